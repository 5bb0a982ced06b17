"""What engines really print when they die, and the reason each text stands for."""

from __future__ import annotations

import re

import pytest

from bench.engines.failure import SYMPTOMS, classify
from bench.record.schema import REASONS

REAL = [
    (
        "out_of_memory",
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has 7.44 GiB in all",
    ),
    (
        "out_of_memory",
        'RuntimeError: NVML_SUCCESS == r INTERNAL ASSERT FAILED at "/opt/c10/cuda/CUDACachingAllocator.cpp":1016,'
        " please report a bug to PyTorch.",
    ),
    ("out_of_memory", "NvMapMemAllocInternalTagged: 1075072515 error 12"),
    (
        "out_of_memory",
        "ValueError: Free memory on device cuda:0 (5.21/7.44 GiB) on startup is less than desired GPU memory"
        " utilization (0.92, 6.84 GiB).",
    ),
    ("out_of_memory", "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization`"),
    (
        "out_of_memory",
        "RuntimeError: [enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate memory: you"
        " tried to allocate 4194304000000 bytes. Error code 12 (Cannot allocate memory)",
    ),
    (
        "out_of_memory",
        "ValueError: To serve at least one request with the models's max seq len (131072), (4.50 GiB KV cache is"
        " needed, which is larger than the available KV cache memory (2.00 GiB).",
    ),
    (
        "out_of_memory",
        "0.01.332.330 E alloc_tensor_range: failed to allocate CPU buffer of size 13825474560",
    ),
    (
        "out_of_memory",
        "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 9216.00 MiB on device 0: cudaMalloc failed: out of"
        " memory",
    ),
    ("missing_file", "E gguf_init_from_file: failed to open GGUF file 'nosuch.gguf' (No such file or directory)"),
    (
        "missing_file",
        "E llama_model_load: error loading model: tensor 'token_embd.weight' data is not within the file bounds, model"
        " is corrupted or incomplete",
    ),
    ("missing_file", "0.00.041.410 E gguf_init_from_reader: failed to read key-value pairs"),
    ("unsupported", "llama_model_load: error loading model: unknown model architecture: 'ernie4_9'"),
    ("bad_argument", "error: invalid argument: --foo"),
    ("bad_argument", 'error while handling argument "--threads": stoi'),
    ("port", "srv         start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 18082"),
    ("port", "OSError: [Errno 98] Address already in use"),
    (
        "port",
        "ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 8000): address already in use",
    ),
    ("missing_module", "ModuleNotFoundError: No module named 'vllm'"),
    ("missing_module", "/usr/bin/python3: No module named vllm"),
    ("missing_module", "ImportError: libcudart.so.13: cannot open shared object file: No such file or directory"),
    ("unsupported_quantization", "AttributeError: '_OpNamespace' '_C' object has no attribute 'cpu_gemm_wna16'"),
    (
        "unsupported_quantization",
        "ValueError: The quantization method awq is not supported for the current GPU. Minimum capability: 75. Current"
        " capability: 72.",
    ),
    (
        "unsupported_quantization",
        "  Value error, awq quantization is currently not supported in cpu. [type=value_error]",
    ),
    (
        "unsupported_quantization",
        "ValueError: torch.bfloat16 is not supported for quantization method awq. Supported dtypes: [torch.float16]",
    ),
    ("unsupported_quantization", "ValueError: Unknown quantization method: awk. Must be one of ['awq', 'fp8']."),
    (
        "unsupported_quantization",
        "ImportError: Loading a GPTQ quantized model requires optimum (`pip install optimum`)",
    ),
    ("unsupported_quantization", "ValueError: GGUF model with architecture ernie4_5 is not supported yet."),
    ("unsupported", "RuntimeError: CUDA error: no kernel image is available for execution on the device"),
    ("unsupported", "ValueError: Model architectures ['Foo'] are not supported for now."),
    ("bad_argument", "api_server.py: error: unrecognized arguments: --max-model-length 2048"),
    ("bad_argument", "api_server.py: error: argument --dtype: invalid choice: 'fp61' (choose from auto, half)"),
    ("bad_argument", "server.py: error: the following arguments are required: --model"),
    ("missing_file", "FileNotFoundError: [Errno 2] No such file or directory: '/models/x/config.json'"),
    ("missing_file", "OSError: /models/x does not appear to have a file named config.json."),
    ("missing_file", "python: can't open file '/srv/server.py': [Errno 2] No such file or directory"),
    ("disk_full", "OSError: [Errno 28] No space left on device: '/home/someone/.cache/vllm/torch_compile_cache'"),
]


@pytest.mark.parametrize(("kind", "text"), REAL)
def test_a_real_text_is_recognised_and_quoted(kind: str, text: str) -> None:
    found, sentence = classify(
        ["INFO loading", text, "RuntimeError: Engine core initialization failed."], None, "start"
    )
    assert found == kind
    # llama.cpp's time and level before its words are not quoted.
    assert re.sub(r"^[\d.]+ [A-Z] ", "", text).strip()[:100] in sentence


def test_the_cause_outweighs_its_consequences() -> None:
    lines = ["torch.OutOfMemoryError: CUDA out of memory.", "OSError: [Errno 98] Address already in use"]
    assert classify(lines, {"code": 1}, "start")[0] == "out_of_memory"
    assert classify(lines[::-1], {"code": 1}, "start")[0] == "out_of_memory"


@pytest.mark.parametrize(
    ("ended", "kind", "words"),
    [
        ({"signal": "SIGKILL", "oom_kills": 1}, "out_of_memory", "out-of-memory killer"),
        ({"signal": "SIGKILL", "oom_kills": None}, "out_of_memory", "most likely"),
        ({"signal": "SIGKILL", "oom_kills": 0}, "crash_while_serving", "not by the kernel"),
        ({"signal": "SIGKILL", "oom_kills": 0, "killed": True}, "crash_while_serving", "SIGKILL"),
        ({"signal": "SIGILL"}, "unsupported", "another one"),
        ({"signal": "SIGSEGV"}, "crash_while_serving", "segmentation"),
        ({"code": 3, "signal": None}, "crash_while_serving", "status 3: bye"),
        ({"code": 0, "signal": None}, "crash_while_serving", "background"),
        ({"code": 127, "message": "Permission denied: x", "errno": 13}, "bad_argument", "Permission denied"),
        ({"code": None, "message": "the engine's supervisor was killed from outside"}, "interrupted", "supervisor"),
        (None, "crash_while_serving", "no longer answers"),
    ],
)
def test_without_a_telling_line_the_exit_decides(ended: dict[str, object] | None, kind: str, words: str) -> None:
    found, sentence = classify(["hello", "bye", ""], ended, "serving")
    assert found == kind
    assert words in sentence


def test_before_serving_the_same_exit_is_a_crash_at_start() -> None:
    assert classify([], {"code": 1, "signal": None}, "start") == (
        "crash_at_start",
        "the engine exited with status 1; it said nothing",
    )


def test_every_reason_of_the_table_is_a_recorded_one_and_long_lines_are_cut() -> None:
    assert {symptom.kind for symptom in SYMPTOMS} <= set(REASONS)
    assert len(classify(["No space left on device" + "x" * 5000], None, "start")[1]) < 400


@pytest.mark.parametrize(("code", "says"), [(137, "killed from outside"), (139, "a segmentation fault")])
def test_a_signal_told_as_a_status_by_a_shell_or_a_container_is_a_signal(code: int, says: str) -> None:
    kind, sentence = classify([], {"code": code, "signal": None, "oom_kills": 0}, "serving")
    assert kind == "crash_while_serving"
    assert says in sentence


@pytest.mark.parametrize("code", [1, 128, 255])
def test_a_status_that_is_no_signal_s_stays_one(code: int) -> None:
    assert f"exited with status {code}" in classify([], {"code": code, "signal": None}, "serving")[1]


@pytest.mark.parametrize(
    ("line", "kind", "says"),
    [
        (
            "Error: crun: executable file `llama-server` not found in $PATH: No such file or directory",
            "missing_file",
            "the image has no program llama-server",
        ),
        (
            'docker: Error response from daemon: exec: "python3": executable file not found in $PATH: unknown.',
            "missing_file",
            "the image has no program python3",
        ),
        (
            "Error: setting up CDI devices: unresolvable CDI devices nvidia.com/gpu=all",
            "bad_argument",
            "set up the NVIDIA Container Toolkit",
        ),
    ],
)
def test_what_docker_and_podman_say_has_its_reason(line: str, kind: str, says: str) -> None:
    found, sentence = classify([line], {"code": 127, "signal": None}, "start")
    assert (found, says in sentence) == (kind, True)
