"""What vLLM really used, in its own words: version, dtype, kernels, attention backend, KV cache."""

from __future__ import annotations

import math
import re
from typing import Any

from bench.engines.engine import LaunchTrace
from bench.engines.logs import messages
from bench.environments.versions import Version, version

_VERSION = re.compile(
    r"(?:Initializing an? (?:V\d )?LLM engine \(v|vLLM API server version |█ +version )(?P<v>\d+\.\d+[\w.+-]*)"
)
_CONFIG = re.compile(
    r"Initializing an? (?:(?P<core>V\d) )?LLM engine \(v[^)]*\) with config: (?P<config>.*)", re.DOTALL
)
# 0.8 to 0.9 choose the older core where the newer one cannot serve what is asked for.
_FALLBACK = re.compile(r"(?P<why>[^\n]*?)\. Falling back to V0")
# The V0 core counts blocks, and says how many full-length requests they hold.
_BLOCKS = re.compile(r"# (?:cuda|cpu|GPU|\w+) blocks: (?P<n>\d+), # CPU blocks")
_HOLDS = re.compile(r"Maximum concurrency for (?P<tokens>\d+) tokens per request: (?P<times>[\d.]+)x")
# A setting's value: names of methods have hyphens (compressed-tensors), and some versions quote them.
_VALUE = r"['\"]?([\w.:-]+)"
# Our name → its name in the configuration that vLLM prints.
_SETTINGS = {
    "dtype": r"dtype=torch\.(\w+)",
    "quantization": rf"quantization={_VALUE}",
    "kv_cache_dtype": rf"kv_cache_dtype={_VALUE}",
    "load_format": rf"load_format=(?:LoadFormat\.)?{_VALUE}",
    "device": rf"device_config={_VALUE}",
    "enforce_eager": r"enforce_eager=(True|False)",
    "prefix_caching": r"enable_prefix_caching=(True|False|None)",
    "chunked_prefill": r"(?:enable_chunked_prefill|chunked_prefill_enabled)=(True|False)",
    "max_model_len": r"max_seq_len=(\d+)",
    "compile_mode": r"'mode': <CompilationMode\.(\w+)",
    "cudagraph_mode": r"'cudagraph_mode': <CUDAGraphMode\.(\w+)",
}
_ATTENTION = re.compile(
    r"Using (?P<a>[\w -]+?) (?:attention )?backend(?: on V1 engine| out of potential backends|\.)"
    r"|Using AttentionBackendEnum\.(?P<b>[\w-]+) backend"
)
_LINEAR = re.compile(
    r"(?:Using|Selected) (?P<k>[\w-]+) for "
    r"(?:mixed-precision linear|\w*(?:LinearMethod|WNA16|Int8|W4A8\w*|WNA\w+|Fp8\w*)\b)"
)
_KV_TOKENS = re.compile(r"(?:GPU|CPU|\w+) KV cache size: (?P<n>[\d,]+) tokens")
_KV_GIB = re.compile(
    r"Available KV cache memory: (?P<a>[\d.]+) GiB|(?:Explicitly|Auto) set \((?P<b>[\d.]+)/[\d.]+\) GiB for KV cache"
    r"|reserved (?P<c>[\d.]+) GiB memory for KV Cache|reserved for KV Cache is (?P<d>[\d.]+)GiB"
)
_WEIGHTS = re.compile(r"Model loading took (?P<g>[\d.]+) G(?:iB|B)")
_GRAPHS = re.compile(r"Graph capturing finished in \d+ secs, took (?P<g>[\d.]+) GiB")


def version_of(trace: LaunchTrace) -> Version | None:
    """The version that the log tells of."""
    found = _said_version(trace)
    return version(found) if found else version(trace.version) if trace.version else None


def facts_of(trace: LaunchTrace) -> dict[str, Any]:
    """All that the log tells; what it does not tell is not there."""
    said = [message.text for message in messages(trace.log)]
    facts: dict[str, Any] = {}
    if found := _said_version(trace):
        facts["version"] = found
    started = next((match for text in said if (match := _CONFIG.search(text))), None)
    config = started["config"] if started else ""
    if started:
        facts["core"] = started["core"] or "V0"
    if started and facts["core"] == "V0":
        facts |= {name: why.strip() for name, why in _last("core_reason", _FALLBACK, said).items()} | _blocks(said)
    for name, setting in _SETTINGS.items():
        if match := re.search(rf"(?<![\w.]){setting}", config):
            facts[name] = _plain(match[1])
    facts |= _last("attention", _ATTENTION, said)
    kernels = sorted({match["k"] for text in said for match in _LINEAR.finditer(text)})
    if kernels:
        facts["linear_kernels"] = kernels
    facts |= {name: int(str(n).replace(",", "")) for name, n in _last("kv_cache_tokens", _KV_TOKENS, said).items()}
    for name, pattern in (("kv_cache_gib", _KV_GIB), ("weights_gib", _WEIGHTS), ("graphs_gib", _GRAPHS)):
        facts |= {key: float(value) for key, value in _last(name, pattern, said).items()}
    facts["traced"] = bool(trace.spans)
    return facts


def _blocks(said: list[str]) -> dict[str, Any]:
    """The V0 core's cache: its blocks as it counts them, and tokens where its own words give the size of a block."""
    counted = [int(match["n"]) for text in said for match in _BLOCKS.finditer(text)]
    holds = [match for text in said for match in _HOLDS.finditer(text)]
    if not counted:
        return {}
    facts: dict[str, Any] = {"kv_cache_blocks": counted[-1]}
    if counted[-1] and holds:
        size = float(holds[-1]["times"]) * int(holds[-1]["tokens"]) / counted[-1]
        # The number of full-length requests is rounded to hundredths; a block is a power of two.
        nearest = 2 ** round(math.log2(size)) if size > 0 else 0
        if nearest and abs(size / nearest - 1) <= 0.005 / float(holds[-1]["times"]) + 1e-6:
            facts["kv_cache_tokens"] = nearest * counted[-1]
    return facts


def _said_version(trace: LaunchTrace) -> str | None:
    return next((match["v"] for message in messages(trace.log) if (match := _VERSION.search(message.text))), None)


def _last(name: str, pattern: re.Pattern[str], said: list[str]) -> dict[str, str]:
    matches = [match for text in said for match in pattern.finditer(text)]
    return {name: next(group for group in matches[-1].groups() if group)} if matches else {}


def _plain(text: str) -> Any:
    constants = {"True": True, "False": False, "None": None}
    return constants[text] if text in constants else int(text) if text.isdigit() else text
