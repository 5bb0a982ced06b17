"""Why an engine died, from its last words and its exit: a table of what engines really say.

Patterns are tried in order, the telling ones first: an engine that ran out of memory often goes on to complain about
other things. The first matching line is quoted, since later ones are usually consequences.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

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
        (MEMORY, r"OutOfMemoryError|CUDA out of memory", "the GPU ran out of memory"),
        (
            MEMORY,
            r"CUDA error: out of memory|cudaErrorMemoryAllocation|CUDA_ERROR_OUT_OF_MEMORY",
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
        (MEMORY, r"DefaultCPUAllocator: .*memory|^MemoryError|std::bad_alloc", "the host ran out of memory"),
        (MEMORY, r"Cannot allocate memory|failed to allocate (?:buffer|compute|CUDA)", "memory ran out"),
        (
            MEMORY,
            r"failed to allocate \S+ buffer of size|insufficient memory \(attempted|cudaMalloc failed: out of memory",
            "memory ran out",
        ),
        ("disk_full", r"No space left on device|Disk quota exceeded", "the disk is full"),
        (
            "port",
            r"[Aa]ddress already in use|EADDRINUSE|while attempting to bind on address|couldn't bind HTTP server",
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
            "unsupported",
            r"Model architectures (\[.*?\]) (?:are not supported|failed)",
            "the engine does not support {0}",
        ),
        (
            "unsupported",
            r"does not recognize this architecture|Unrecognized (?:model|config)",
            "it does not know this model",
        ),
        ("unsupported", r"unknown model architecture: '([^']+)'", "it does not know the architecture {0}"),
        ("unsupported", r"no kernel image is available for execution", "it was not built for this GPU's architecture"),
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
        ("bad_argument", r"error: (?:unexpected|invalid|unknown) (?:argument|option|value)", "its arguments are wrong"),
        ("bad_argument", r"error while handling argument \"([^\"]+)\": (.*)", "its argument {0} is wrong"),
        ("bad_argument", r"(?:No such option|Got unexpected extra argument|Missing option)", "its arguments are wrong"),
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
        ("missing_file", r"can't open file '?([^':]+)'?: \[Errno 2\]", "{0} does not exist"),
    )
)


def classify(lines: Sequence[str], ended: Mapping[str, Any] | None, phase: str) -> tuple[str, str]:
    """(one of record.schema.REASONS, one sentence) for an engine that died.

    `lines` are its last lines; `ended` has code and signal, and oom_kills, killed and message where known; `phase` is
    start or serving.
    """
    gone = ended or {}
    if gone.get("message"):
        return _unexecuted(gone)
    kernel = gone.get("oom_kills")
    if gone.get("signal") == "SIGKILL" and not gone.get("killed") and kernel:
        return "out_of_memory", "the kernel's out-of-memory killer ended the engine: the host ran out of memory"
    return told(lines) or _by_exit(gone, lines, phase)


def told(lines: Sequence[str]) -> tuple[str, str] | None:
    """What the lines themselves tell, of an engine that may still run; None if they do not."""
    for symptom in SYMPTOMS:
        for line in lines:
            match = re.search(symptom.pattern, line)
            if match:
                groups = [group.strip() for group in match.groups() if group]
                meaning = symptom.says.format(*groups) if groups else symptom.says
                return symptom.kind, f"{meaning}: {_quote(line)}"
    return None


def _unexecuted(gone: Mapping[str, Any]) -> tuple[str, str]:
    kinds = {2: "missing_file", 8: "bad_argument", 13: "bad_argument", 12: "out_of_memory", 28: "disk_full"}
    errno = gone.get("errno")
    if errno is None:
        return "interrupted", str(gone["message"])
    return kinds.get(errno, "crash_at_start"), f"the engine could not be executed: {gone['message']}"


def _by_exit(gone: Mapping[str, Any], lines: Sequence[str], phase: str) -> tuple[str, str]:
    kind = "crash_while_serving" if phase == "serving" else "crash_at_start"
    last = next((f": {_quote(line)}" for line in reversed(lines) if line.strip()), "; it said nothing")
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
