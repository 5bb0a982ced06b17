"""Last words in the shape of public reports: the cause is found where it stands, and no sentence that points elsewhere
is ever quoted."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest

from bench.engines.failure import classify
from bench.engines.lastwords import points_elsewhere, words

CHECK_ABOVE = "please check the stack trace above for the root cause"
SEE_ABOVE = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"
API = "(APIServer pid=49)"


def frames(count: int, prefix: str = "") -> list[str]:
    """The frames of a traceback, two lines each."""
    return [
        f"{prefix}{line}"
        for number in range(count)
        for line in (f'  File "/site/engine/step{number}.py", line {number}, in step{number}', f"    step{number}()")
    ]


def traceback(last: str, prefix: str = "", count: int = 6) -> list[str]:
    return [f"{prefix}Traceback (most recent call last):", *frames(count, prefix), f"{prefix}{last}"]


def core(*cause: str, name: str = "(EngineCore_DP0 pid=210) ") -> list[str]:
    """vLLM: the core's own words, once logged and once raw, then a longer traceback of the API server."""
    head = f"{name}ERROR 02-12 10:01:40 [core.py:946] "
    return [
        f"{API} INFO 02-12 10:00:01 [utils.py:299] non-default args: {{'model': '/m'}}",
        f"{name}INFO 02-12 10:00:20 [core.py:97] Initializing a V1 LLM engine (v0.15.1) with config: model='/m'",
        f"{head}EngineCore failed to start.",
        *traceback(cause[0], head),
        *(f"{head}{line}" for line in cause[1:]),
        f"{name}Process EngineCore_DP0:",
        *traceback(cause[0], name),
        *(f"{name}{line}" for line in cause[1:]),
        *traceback(SEE_ABOVE, f"{API} ", 24),
    ]


def old_core(*cause: str) -> list[str]:
    """vLLM before 0.10.2, whose lines bear no process: a file of the engine's, then a raw traceback of each process."""
    head = "ERROR 07-20 18:15:01 [core.py:586] "
    return [
        "INFO 07-20 18:14:40 [api_server.py:1395] vLLM API server version 0.9.2",
        f"{head}EngineCore failed to start.",
        *traceback(cause[0], head),
        *(f"{head}{line}" for line in cause[1:]),
        "Process EngineCore_0:",
        *traceback(cause[0]),
        *cause[1:],
        *traceback(SEE_ABOVE, "", 24),
    ]


def scheduler(*cause: str, place: str = " TP0") -> list[str]:
    """SGLang: the scheduler's traceback without a header, then the parent's words."""
    return [
        "[2025-03-29 18:17:02] server_args=ServerArgs(model_path='/m')",
        f"[2025-03-29 18:18:34{place}] Scheduler hit an exception: Traceback (most recent call last):",
        *frames(6),
        *cause,
        "",
        "[2025-03-29 18:18:34] Received sigquit from a child process. It usually means the child failed.",
        "[2025-03-29 18:18:35] Rank 0 scheduler is dead. Please check if there are relevant logs.",
        *traceback("RuntimeError: Initialization failed. Please see the error messages above."),
    ]


OOM = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 594.00 MiB. GPU 0 has a total of 7.44 GiB."
PTXAS = (
    "triton.runtime.errors.PTXASError: PTXAS error: Internal Triton PTX codegen error",
    "`ptxas` stderr:",
)
GATED = (
    "OSError: You are trying to access a gated repo.",
    "Make sure to have access to it at https://huggingface.co/some/model.",
    "401 Client Error.",
)
FP4_WARNING = (
    "(EngineCore pid=81) WARNING 06-29 11:56:38 [nvfp4_utils.py:209] Your GPU does not have native support for FP4"
    " computation but FP4 quantization is being used."
)

# name: the lines, the reason, and what the sentence must hold.
SAID: dict[str, tuple[Sequence[str], str, Sequence[str]]] = {
    "memory in the core, far above the end": (core(OOM), "out_of_memory", ["Tried to allocate 594.00 MiB"]),
    "memory, versions without process names": (old_core(OOM), "out_of_memory", ["594.00 MiB"]),
    "memory in a worker, wrapped by the executor": (
        [
            *traceback(OOM, "(VllmWorker rank=0 pid=430) ERROR 07-18 03:07:00 [multiproc_executor.py:380] "),
            *traceback(
                f"RuntimeError: Worker failed with error '{OOM}', {CHECK_ABOVE}",
                "(EngineCore_DP0 pid=3) ERROR 07-18 03:07:01 [core.py:700] ",
            ),
            *traceback(SEE_ABOVE, f"{API} ", 24),
        ],
        "out_of_memory",
        ["the GPU ran out of memory: torch.OutOfMemoryError"],
    ),
    "a wrapper alone gives what it wraps": (
        [f"{API} RuntimeError: Worker failed with error '{OOM}', {CHECK_ABOVE}"],
        "out_of_memory",
        ["594.00 MiB"],
    ),
    "memory of the cache, older wording": (
        old_core(
            "ValueError: The model's max seq len (32768) is larger than the maximum number of tokens that can be stored"
            " in KV cache (7344). Try increasing `gpu_memory_utilization` or decreasing `max_model_len`."
        ),
        "out_of_memory",
        ["one full-length request needs more KV cache", "(7344)"],
    ),
    "memory of the cache, newer wording": (
        core(
            "ValueError: To serve at least one request with the models's max seq len (131072), (16.00 GiB KV cache is"
            " needed, which is larger than the available KV cache memory (3.20 GiB)."
        ),
        "out_of_memory",
        ["16.00 GiB"],
    ),
    "memory on ROCm": (
        core("torch.OutOfMemoryError: HIP out of memory. Tried to allocate 2.00 GiB."),
        "out_of_memory",
        ["HIP"],
    ),
    "a compiler that does not know Thor": (
        core(*PTXAS, "ptxas fatal   : Value 'sm_110a' is not defined for option 'gpu-name'"),
        "unsupported",
        ["does not know the chip sm_110a", "TRITON_PTXAS_PATH"],
    ),
    "a compiler that does not know Spark": (
        core(*PTXAS, "ptxas fatal   : Value 'sm_121a' is not defined for option 'gpu-name'"),
        "unsupported",
        ["does not know the chip sm_121a"],
    ),
    "a compiler that does not know Orin": (
        old_core("ptxas fatal   : Value 'sm_87' is not defined for option 'gpu-name'"),
        "unsupported",
        ["does not know the chip sm_87"],
    ),
    "nvcc that does not know the chip": (
        core("nvcc fatal   : Unsupported gpu architecture 'compute_121a'"),
        "unsupported",
        ["does not know the chip compute_121a"],
    ),
    "ptxas that lacks an instruction": (
        core(*PTXAS, "ptxas /tmp/a.ptx, line 9; error   : Instruction 'cvt' not supported on .target 'sm_121'"),
        "unsupported",
        ["does not go with this GPU", "sm_121"],
    ),
    "flashinfer without an architecture": (
        core("RuntimeError: No supported CUDA architectures found for major versions [10]."),
        "unsupported",
        ["not built for this GPU"],
    ),
    "no kernel image": (
        core("RuntimeError: CUDA error: no kernel image is available for execution on the device"),
        "unsupported",
        ["not built for this GPU"],
    ),
    "no kernel image on ROCm, in the V0 engine": (
        [
            "ERROR 06-10 07:32:06 [engine.py:448] HIP error: invalid device function",
            *traceback("RuntimeError: HIP error: invalid device function", "ERROR 06-10 07:32:06 [engine.py:448] "),
            "Process SpawnProcess-1:",
            *traceback("RuntimeError: HIP error: invalid device function"),
            *traceback("RuntimeError: Engine process failed to start. See stack trace for the root cause.", "", 24),
        ],
        "unsupported",
        ["not built for this GPU"],
    ),
    "FP4 gemm that does not start": (
        core("RuntimeError: [FP4 gemm Runner] Failed to initialize cutlass FP4 gemm. Error: Error Internal"),
        "unsupported_quantization",
        ["no FP4 kernel for this GPU"],
    ),
    "FP4 kernel that was not compiled": (
        core("NotImplementedError: No compiled nvfp4 quantization kernel"),
        "unsupported_quantization",
        ["no nvfp4 kernel"],
    ),
    "FP4 kernel that the build lacks": (
        old_core("AttributeError: '_OpNamespace' '_C' object has no attribute 'scaled_fp4_quant'"),
        "unsupported_quantization",
        ["scaled_fp4_quant"],
    ),
    "FP4 on a platform without it": (
        core("ValueError: Current platform does not support NVFP4 quantization. Please use Blackwell and above."),
        "unsupported_quantization",
        ["this GPU has no NVFP4"],
    ),
    "FP4 experts without a kernel": (
        core("RuntimeError: FlashInfer-CUTLASS MoE kernel does not support current device sm_120"),
        "unsupported",
        ["sm_120"],
    ),
    "a gated model": (
        [*traceback("huggingface_hub.errors.GatedRepoError: 401 Client Error."), "", *traceback("\n".join(GATED))],
        "missing_file",
        ["the model is gated", "HF_TOKEN"],
    ),
    "a gated model, told by the API server alone": (
        traceback(f"{API} huggingface_hub.utils._errors.GatedRepoError: 403 Client Error."),
        "missing_file",
        ["the model is gated"],
    ),
    "SGLang without room for the cache": (
        scheduler("RuntimeError: Not enough memory. Please try to increase --mem-fraction-static."),
        "out_of_memory",
        ["--mem-fraction-static"],
    ),
    "SGLang out of memory on one GPU": (scheduler(OOM, place=""), "out_of_memory", ["594.00 MiB"]),
    "SGLang whose scheduler was killed": (
        [
            "[12-16 14:27:08] Rank 0 scheduler is dead. Please check if there are relevant logs.",
            "[12-16 14:27:10] Exit code: -9",
            *traceback("RuntimeError: Initialization failed. Please see the error messages above."),
        ],
        "out_of_memory",
        ["a process of the engine was killed", "want of memory"],
    ),
    "SGLang with an error of its own": (
        scheduler("ValueError: TP rank 1 could finish the model loading, but there are other ranks that could not"),
        "crash_at_start",
        ["ValueError: TP rank 1 could finish"],
    ),
    "TensorRT-LLM without room for the cache": (
        [
            "[07/08/2025-19:47:15] [TRT-LLM] [RANK 1] [E] Failed to initialize executor on rank 1: Executor creation"
            " failed due to insufficient GPU memory.",
            "",
            "The following component could not be created: KV cache",
            *traceback("RuntimeError: Executor worker returned error", "", 24),
        ],
        "out_of_memory",
        ["insufficient GPU memory"],
    ),
    "TensorRT out of memory": (
        [
            "[TensorRT-LLM][INFO] Loaded engine size: 922 MiB",
            "[TensorRT-LLM][ERROR] Error Code 2: OutOfMemory (Requested size was 4194304 bytes.)",
            *traceback("RuntimeError: Executor worker died during initialization"),
        ],
        "out_of_memory",
        ["4194304 bytes"],
    ),
    "llama.cpp without room for the weights": (
        [
            "load_tensors: loading model tensors, this can take a while... (mmap = true)",
            "ggml_backend_cuda_buffer_type_alloc_buffer: allocating 7012.19 MiB on device 0: cudaMalloc failed: out of"
            " memory",
            "alloc_tensor_range: failed to allocate CUDA0 buffer of size 7352830976",
            "llama_model_load: error loading model: unable to allocate CUDA0 buffer",
            "srv    load_model: failed to load model, '/m/model.gguf'",
            "main: exiting due to model loading error",
        ],
        "out_of_memory",
        ["allocating 7012.19 MiB"],
    ),
    "llama.cpp without room for the context, newer logger": (
        [
            "1.06.520.077 E ggml_gallocr_reserve_n_impl: failed to allocate CUDA0 buffer of size 54262464512",
            "1.06.520.086 E graph_reserve: failed to allocate compute buffers",
            "1.06.600.000 I main: cleaning up before exit...",
        ],
        "out_of_memory",
        ["memory ran out", "54262464512"],
    ),
    "llama.cpp that does not know the model": (
        [
            "llama_model_load: error loading model: error loading model architecture: unknown model architecture:"
            " 'qwen3next'",
            "main: exiting due to model loading error",
        ],
        "unsupported",
        ["does not know the architecture qwen3next"],
    ),
    "llama.cpp whose port is taken": (
        ["start: couldn't bind HTTP server socket, hostname: 127.0.0.1, port: 8080", "main: exiting"],
        "port",
        ["8080"],
    ),
    "llama.cpp and a flag that it does not know": (
        ["error: invalid argument: --flash-attention"],
        "bad_argument",
        ["--flash-attention"],
    ),
    "Ollama on a small machine": (
        ['time=2025-11-01T10:00:00Z level=ERROR msg="model requires more system memory (5.6 GiB) than is available"'],
        "out_of_memory",
        ["5.6 GiB"],
    ),
    "Ollama whose runner died": (
        [
            "time=2025-11-01T10:00:00Z level=INFO source=server.go msg=starting",
            "Error: llama runner process has terminated: cudaMalloc failed: out of memory",
        ],
        "out_of_memory",
        ["llama runner process has terminated"],
    ),
    "Ollama whose runner was killed": (
        ["Error: llama runner process has terminated: signal: killed"],
        "out_of_memory",
        ["want of memory"],
    ),
    "a core that died of something unknown, and an API server that then complains": (
        [
            *core("AssertionError: head size 80 is not served")[:-1],
            f"{API} OSError: [Errno 98] Address already in use",
        ],
        "crash_at_start",
        ["AssertionError: head size 80"],
    ),
    "of a chain the first exception is the cause": (
        core(
            "KeyError: 'rope_type'",
            "",
            "During handling of the above exception, another exception occurred:",
            "",
            "Traceback (most recent call last):",
            "ValueError: the configuration cannot be used",
        ),
        "crash_at_start",
        ["KeyError: 'rope_type'"],
    ),
    "warnings about what was survived": (
        [
            'WARNING 11-22 22:54:19 [rocm.py:28] Failed to import with ModuleNotFoundError("No module named amdsmi")',
            FP4_WARNING,
            *core("ValueError: Free memory on device (5.2/7.4 GiB) on startup is less than desired"),
        ],
        "out_of_memory",
        ["too little device memory was free"],
    ),
}


@pytest.mark.parametrize("name", SAID)
def test_the_cause_is_told_and_quoted(name: str) -> None:
    lines, kind, holds = SAID[name]
    found, sentence = classify([part for line in lines for part in line.split("\n")], {"code": 1}, "start")
    assert found == kind, sentence
    for part in holds:
        assert part in sentence
    assert not points_elsewhere(sentence)


def test_thirty_public_shapes_are_read() -> None:
    assert len(SAID) >= 30


DEAD = "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above)"
LOADING = "INFO 07-20 18:14:40 [a.py:1] loading"


@pytest.mark.parametrize(
    ("lines", "end"),
    [([f"{API} {SEE_ABOVE}"], "; it named no cause"), ([DEAD], "; it named no cause"), ([LOADING], f": {LOADING}")],
)
def test_what_points_elsewhere_is_not_quoted_even_where_it_is_all(lines: list[str], end: str) -> None:
    assert classify(lines, {"code": 1}, "start") == ("crash_at_start", f"the engine exited with status 1{end}")


def test_an_exception_that_was_survived_is_not_the_cause_of_a_later_end() -> None:
    lines = [*traceback("ModuleNotFoundError: No module named 'flash_attn'"), *(f"step {i}" for i in range(100))]
    ended: dict[str, Any] = {"signal": "SIGSEGV"}
    assert classify(lines, ended, "serving") == (
        "crash_while_serving",
        "the engine died of a segmentation fault: step 99",
    )


@pytest.mark.parametrize(("kills", "word"), [(1, "out-of-memory killer"), (None, "most likely"), (0, None)])
def test_a_killed_child_is_told_by_what_the_kernel_counted(kills: int | None, word: str | None) -> None:
    found, sentence = classify(
        ["Error: llama runner process has terminated: signal: killed"], {"code": 1, "oom_kills": kills}, "start"
    )
    assert found == ("out_of_memory" if word else "crash_at_start")
    assert (word or "status 1") in sentence


@pytest.mark.parametrize(
    ("line", "process", "computes"),
    [
        ("(EngineCore_DP0 pid=210) RuntimeError: x", "EngineCore_DP0 210", True),
        ("(VllmWorker rank=0 pid=430) RuntimeError: x", "VllmWorker 430", True),
        ("(RayWorkerWrapper pid=7, ip=10.0.0.2) RuntimeError: x", "RayWorkerWrapper 7", True),
        ("(pid=7) RuntimeError: x", "process 7", False),
        ("(APIServer pid=49) RuntimeError: x", "APIServer 49", False),
        ("[rank1]: RuntimeError: x", "rank 1", True),
        ("[2025-03-29 18:18:34 DP0 TP1] RuntimeError: x", "DP0 TP1", True),
        ("[07/08/2025-19:47:15] [TRT-LLM] [RANK 1] [E] RuntimeError: x", "rank 1", True),
        ("RuntimeError: x", None, False),
    ],
)
def test_who_speaks(line: str, process: str | None, computes: bool) -> None:
    (word,) = words([line])
    assert (word.process, word.computes, word.text) == (process, computes, "RuntimeError: x")


@pytest.mark.parametrize(("colour", "end"), list(product(["", "\x1b[31m"], ["", "\r"])))
def test_colours_and_returns_hide_nothing(colour: str, end: str) -> None:
    assert classify([f"{colour}{OOM}{end}"], None, "start")[0] == "out_of_memory"
