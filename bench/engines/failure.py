"""Why an engine died, from its last words and its exit: a table of what engines really say.

The whole log is searched, and what the computing process died with before what the others made of it (`lastwords`).
Patterns are tried in order, the telling ones first: an engine that ran out of memory often goes on to complain about
other things. The first matching line is quoted, since later ones are usually consequences.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from bench.engines import lastwords
from bench.engines.lastwords import Word

QUOTED = 300
SIGNALS = {
    "SIGILL": ("unsupported", "an instruction that this CPU does not have: the engine was built for another one"),
    "SIGSEGV": (None, "a segmentation fault"),
    "SIGBUS": (None, "a bus error (often a full /dev/shm or a file truncated while mapped)"),
    "SIGABRT": (None, "an abort"),
    "SIGFPE": (None, "an arithmetic fault"),
}


class Symptom(NamedTuple):
    """What a line looks like, which reason it stands for, and what to say; {0}… are the pattern's groups."""

    kind: str
    pattern: str
    says: str


MEMORY, QUANTIZATION = "out_of_memory", "unsupported_quantization"
SYMPTOMS: tuple[Symptom, ...] = tuple(
    Symptom(*row)
    for row in (
        (MEMORY, r"OutOfMemoryError|(?:CUDA|HIP|XPU) out of memory", "the GPU ran out of memory"),
        (
            MEMORY,
            r"(?:CUDA|HIP) error: out of memory|cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY"
            r"|CUBLAS_STATUS_ALLOC_FAILED|ErrorOutOf(?:Device|Host)Memory",
            "the GPU ran out of memory",
        ),
        # On Tegra the allocator asks NVML, which has no answer there, and does so only once an allocation has failed.
        (MEMORY, r"NVML_SUCCESS == r.*INTERNAL ASSERT FAILED", "the GPU ran out of memory (so Tegra reports it)"),
        (
            MEMORY,
            r"NvMapMem\w+.*error",
            "NvMap could not allocate: memory is used up or fragmented, which a reboot cures",
        ),
        (MEMORY, r"Free memory on device .* is less than desired", "too little device memory was free"),
        (MEMORY, r"No available memory for the cache blocks", "the weights left no memory for the KV cache"),
        (
            MEMORY,
            r"larger than the available KV cache memory",
            "one full-length request needs more KV cache than there is",
        ),
        (
            MEMORY,
            r"max seq len \(\d+\) is larger than the maximum number of tokens that can be stored in KV cache",
            "one full-length request needs more KV cache than there is",
        ),
        # SGLang's budget after the weights, and its two ways of running dry.
        (MEMORY, r"Not enough memory\. Please try to", "the weights left no memory for the KV cache"),
        (MEMORY, r"(?:Prefill|Decode|Extend) out of memory", "the KV cache ran out"),
        # TensorRT-LLM.
        (MEMORY, r"creation failed due to insufficient GPU memory", "the GPU ran out of memory"),
        (MEMORY, r"OutOfMemory \(Requested size|Cuda Runtime \(out of memory\)", "the GPU ran out of memory"),
        # llama.cpp and Ollama, which carries it.
        (MEMORY, r"cudaMalloc failed: out of memory", "the GPU ran out of memory"),
        (
            MEMORY,
            r"unable to allocate (?:\S+|backend) buffer|ggml_aligned_malloc: insufficient memory",
            "memory ran out",
        ),
        (MEMORY, r"model requires more system memory", "the host has too little memory for this model"),
        (MEMORY, r"you may not have enough (?:available )?memory", "memory ran out, as the engine thinks"),
        (MEMORY, r"DefaultCPUAllocator: .*memory|^MemoryError|std::bad_alloc", "the host ran out of memory"),
        (
            MEMORY,
            r"Cannot allocate memory|failed to allocate (?:buffer|compute|CUDA|\S+ buffer)|out of memory$"
            r"|insufficient memory \(attempted",
            "memory ran out",
        ),
        ("disk_full", r"No space left on device|Disk quota exceeded", "the disk is full"),
        (
            "port",
            r"[Aa]ddress already in use|EADDRINUSE|while attempting to bind on address"
            r"|couldn't bind (?:HTTP )?server socket",
            "its port was taken",
        ),
        (
            QUANTIZATION,
            r"no attribute '(cpu_gemm_wna16|\w*(?:awq|gptq|marlin)\w*)'",
            "this build lacks the 4-bit kernel {0}",
        ),
        (
            QUANTIZATION,
            r"quantization method (\S+) is not supported for the current GPU",
            "this GPU is too old for {0}",
        ),
        (QUANTIZATION, r"(\S+) quantization is currently not supported (?:in|on|for) (\S+)", "{0} does not run on {1}"),
        (QUANTIZATION, r"is not supported for quantization method (\S+?)\.", "this dtype does not go with {0}"),
        (QUANTIZATION, r"[Uu]nknown quantization (?:method|type)", "the engine does not know this quantization"),
        (QUANTIZATION, r"[Ll]oading an? (\S+) quantized model requires", "a library to load {0} is not installed"),
        (QUANTIZATION, r"Using an? `?([\w-]+)`? quantized model requires", "a library to load {0} is not installed"),
        (
            QUANTIZATION,
            r"requires the (auto-?awq|gptqmodel|optimum|compressed-tensors)",
            "the library {0} is not installed",
        ),
        (
            QUANTIZATION,
            r"GGUF model with architecture (\S+) is not supported",
            "GGUF of architecture {0} is not supported",
        ),
        (
            QUANTIZATION,
            r"Failed to find a kernel that can implement the (\S+) linear",
            "no kernel here runs a {0} layer",
        ),
        (
            QUANTIZATION,
            r"(?:[Cc]urrent platform|this (?:GPU|device|platform)) does not support (NV_?FP4|MX_?FP4|FP4|FP8)",
            "this GPU has no {0}",
        ),
        (
            QUANTIZATION,
            r"No compiled (\w*fp4\w*) |no attribute '(\w*fp4\w*)'|\b(\w*FP4)\w* gemm",
            "this build has no {0} kernel for this GPU",
        ),
        (
            QUANTIZATION,
            r"No (\w*[Ff][Pp]4\w*) \S*(?: MoE)? ?(?:backend|kernel)|\b(\w*FP4)\b.*(?:not supported|no kernel)",
            "no {0} kernel runs on this GPU",
        ),
        (
            "unsupported",
            r"kernel does not support (?:the )?current device (sm_\w+|cuda\S*)|No supported CUDA architectures found",
            "a kernel was not built for this GPU's architecture",
        ),
        (
            "unsupported",
            r"[Vv]alue '(sm_\w+)' is not defined for option 'gpu-(?:name|architecture)'"
            r"|[Uu]nsupported gpu architecture '(\w+)'",
            "the CUDA compiler that it uses does not know the chip {0}"
            " (a newer toolkit's would: TRITON_PTXAS_PATH for Triton's)",
        ),
        (
            "unsupported",
            r"invalid value for --gpu-architecture|not supported on \.target '?(sm_\w+)|unsupported toolchain",
            "the CUDA compiler that it uses does not go with this GPU",
        ),
        (
            "unsupported",
            r"unknown model architecture: '?([\w.-]+)",
            "the engine does not know the architecture {0}",
        ),
        (
            "unsupported",
            r"Model architectures (\[.*?\]) (?:are not supported|failed)",
            "the engine does not support {0}",
        ),
        (
            "unsupported",
            r"does not recognize this architecture|Unrecognized (?:model|config)",
            "it does not know this model",
        ),
        (
            "unsupported",
            r"no kernel image is available for execution|device kernel image is invalid"
            r"|HIP error: invalid device function",
            "it was not built for this GPU's architecture",
        ),
        (
            "unsupported",
            r"driver version is insufficient|driver on your system is too old|Failed to infer device type"
            r"|Found no NVIDIA driver",
            "it found no GPU that it can drive",
        ),
        ("unsupported", r"unknown model architecture: '([^']+)'", "it does not know the architecture {0}"),
        ("unsupported", r"Bfloat16 is only supported on GPUs with compute", "this GPU has no bfloat16"),
        ("missing_module", r"No module named '?([\w.]+)'?", "the module {0} is not installed in its interpreter"),
        (
            "missing_module",
            r"ImportError: (.*(?:shared object|undefined symbol|cannot import name).*)",
            "an import failed",
        ),
        ("bad_argument", r"error: unrecognized arguments?: (.*)", "it does not know the arguments {0}"),
        ("bad_argument", r"error: argument ([^:]+): (.*)", "its argument {0} is wrong"),
        ("bad_argument", r"error: the following arguments are required: (.*)", "it needs the arguments {0}"),
        ("bad_argument", r"error: invalid argument: (.*)", "it does not know the argument {0}"),
        ("bad_argument", r"error: (?:unexpected|invalid|unknown) (?:argument|option|value)", "its arguments are wrong"),
        ("bad_argument", r"error while handling argument \"([^\"]+)\": (.*)", "its argument {0} is wrong"),
        ("bad_argument", r"(?:No such option|Got unexpected extra argument|Missing option)", "its arguments are wrong"),
        (
            "missing_file",
            r"GatedRepoError|gated repo\b|Access to model .* is restricted|Repo model .* is gated",
            "the model is gated: ask for access on its page and give the engine a token (HF_TOKEN)",
        ),
        (
            "missing_file",
            r"RepositoryNotFoundError|Repository Not Found for url",
            "the model's repository was not found, or is private",
        ),
        (
            "missing_file",
            r"LocalEntryNotFoundError|couldn't connect to 'https://huggingface|offline mode is enabled",
            "the model is not on this machine and its hub cannot be reached",
        ),
        ("missing_file", r"FileNotFoundError: (.*)", "a file is missing"),
        ("missing_file", r"failed to open GGUF file '([^']+)'", "{0} cannot be opened"),
        (
            "missing_file",
            r"data is not within the file bounds|gguf_init_from_\w+: (?:failed to read|invalid magic)",
            "the model file is damaged or incomplete",
        ),
        (
            "missing_file",
            r"is not a local folder and is not a valid model|have a file named",
            "the model was not found",
        ),
        ("missing_file", r"Repo id must be in the form|Invalid repository ID or local dir", "the model was not found"),
        (
            "missing_file",
            r"(?:executable file `([^`]+)`|exec: \"([^\"]+)\": executable file) not found in \$PATH",
            "the image has no program {0}",
        ),
        (
            "bad_argument",
            r"(unresolvable CDI devices \S+|unknown or invalid runtime name: \S+|could not select device driver)",
            "the container cannot get at the GPU ({0}): set up the NVIDIA Container Toolkit for docker or podman",
        ),
        ("missing_file", r"can't open file '?([^':]+)'?: \[Errno 2\]", "{0} does not exist"),
    )
)


# A process of the engine that was ended from outside, as its parent tells it.
_KILLED = re.compile(r"signal: killed|[Ee]xit ?code(?: was)?[:=]? ?-9\b|died .*SIGKILL")


def classify(lines: Sequence[str], ended: Mapping[str, Any] | None, phase: str) -> tuple[str, str]:
    """(one of record.schema.REASONS, one sentence) for an engine that died.

    `lines` are all that it said; `ended` has code and signal, and oom_kills, killed and message where known; `phase` is
    start or serving.
    """
    gone = _by_signal(ended or {})
    if gone.get("message"):
        return _unexecuted(gone)
    kernel = gone.get("oom_kills")
    if gone.get("signal") == "SIGKILL" and not gone.get("killed") and kernel:
        return "out_of_memory", "the kernel's out-of-memory killer ended the engine: the host ran out of memory"
    said = lastwords.words(lines)
    return _told(said) or _child(lines, gone) or _by_exit(gone, _last(lines, said), phase)


def _by_signal(gone: Mapping[str, Any]) -> Mapping[str, Any]:
    """An end by a signal as such, also where a shell or a container's client told it as status 128 + number."""
    code = gone.get("code")
    if gone.get("signal") or not code or code not in range(129, 128 + signal.NSIG):
        return gone
    with suppress(ValueError):
        return {**gone, "code": None, "signal": signal.Signals(code - 128).name}
    return gone


def told(lines: Sequence[str]) -> tuple[str, str] | None:
    """What the lines themselves tell, of an engine that may still run; None if they do not."""
    return _told(lastwords.words(lines))


def _told(said: Sequence[Word]) -> tuple[str, str] | None:
    """The first symptom of the most trusted words that have one.

    Where the computing process died of an exception that no symptom fits, that exception is the cause all the same, and
    not what the others complained of afterwards.
    """
    for place, tier in enumerate(lastwords.tiers(said)):
        for symptom in SYMPTOMS:
            for word in tier:
                match = re.search(symptom.pattern, word.text)
                if match:
                    groups = [group.strip() for group in match.groups() if group]
                    meaning = symptom.says.format(*groups) if groups else symptom.says.replace(" {0}", "")
                    return symptom.kind, f"{meaning}: {_quote(word.text)}"
        if place == 0 and any(word.exception for word in tier):
            return None
    return None


def _child(lines: Sequence[str], gone: Mapping[str, Any]) -> tuple[str, str] | None:
    """A process of the engine that the kernel killed, where the engine itself then ended in order."""
    if gone.get("killed") or gone.get("oom_kills") == 0:
        return None
    line = next((line for line in lines if _KILLED.search(line)), None)
    if line is None:
        return None
    sure = "by the kernel's out-of-memory killer" if gone.get("oom_kills") else "most likely by the kernel for want of"
    return "out_of_memory", f"a process of the engine was killed, {sure}{'' if gone.get('oom_kills') else ' memory'}"


def _unexecuted(gone: Mapping[str, Any]) -> tuple[str, str]:
    kinds = {2: "missing_file", 8: "bad_argument", 13: "bad_argument", 12: "out_of_memory", 28: "disk_full"}
    errno = gone.get("errno")
    if errno is None:
        return "interrupted", str(gone["message"])
    return kinds.get(errno, "crash_at_start"), f"the engine could not be executed: {gone['message']}"


def _last(lines: Sequence[str], said: Sequence[Word]) -> str:
    """What to quote of an engine whose words fit no symptom: an exception, else the last line that says something."""
    word = lastwords.root(said) or (said[-1] if said else None)
    if word is not None:
        return f": {_quote(word.text)}"
    quiet = next((line for line in reversed(lines) if line.strip() and not lastwords.points_elsewhere(line)), None)
    return f": {_quote(quiet)}" if quiet else "; it said nothing" if not any(lines) else "; it named no cause"


def _by_exit(gone: Mapping[str, Any], last: str, phase: str) -> tuple[str, str]:
    kind = "crash_while_serving" if phase == "serving" else "crash_at_start"
    name, code = gone.get("signal"), gone.get("code")
    if name == "SIGKILL" and not gone.get("killed"):
        if gone.get("oom_kills") is None:
            return (
                "out_of_memory",
                "killed from outside, most likely by the kernel for want of memory (see dmesg)" + last,
            )
        return kind, "killed from outside, not by the kernel's out-of-memory killer" + last
    if name in SIGNALS:
        known, meaning = SIGNALS[name]
        return known or kind, f"the engine died of {meaning}{last}"
    if name:
        return kind, f"the engine died of {name}{last}"
    if code is None:
        return kind, f"the engine no longer answers{last}"
    if code == 0:
        return kind, f"the engine exited by itself with status 0; if it goes to the background, keep it in front{last}"
    return kind, f"the engine exited with status {code}{last}"


def _quote(line: str) -> str:
    text = line.strip()
    return text if len(text) <= QUOTED else text[: QUOTED - 1] + "…"
