"""What vLLM really used, in its own words: version, dtype, kernels, attention backend, KV cache."""

from __future__ import annotations

import re
from typing import Any

from bench.engines.engine import LaunchTrace
from bench.engines.logs import messages
from bench.environments.versions import Version, version

_VERSION = re.compile(
    r"(?:Initializing a V1 LLM engine \(v|vLLM API server version |█ +version )(?P<v>\d+\.\d+[\w.+]*)"
)
_CONFIG = re.compile(r"Initializing a V1 LLM engine \(v[^)]*\) with config: (?P<config>.*)", re.DOTALL)
# Our name → its name in the configuration that vLLM prints.
_SETTINGS = {
    "dtype": r"dtype=torch\.(\w+)",
    "quantization": r"quantization=(\w+)",
    "kv_cache_dtype": r"kv_cache_dtype=(\w+)",
    "load_format": r"load_format=(?:LoadFormat\.)?(\w+)",
    "device": r"device_config=(\w+)",
    "enforce_eager": r"enforce_eager=(True|False)",
    "prefix_caching": r"enable_prefix_caching=(True|False)",
    "chunked_prefill": r"(?:enable_chunked_prefill|chunked_prefill_enabled)=(True|False)",
    "max_model_len": r"max_seq_len=(\d+)",
    "compile_mode": r"'mode': <CompilationMode\.(\w+)",
    "cudagraph_mode": r"'cudagraph_mode': <CUDAGraphMode\.(\w+)",
}
_ATTENTION = re.compile(
    r"Using (?P<a>[\w ]+?) (?:attention )?backend(?: on V1 engine| out of potential backends|\.)"
    r"|Using AttentionBackendEnum\.(?P<b>\w+) backend"
)
_LINEAR = re.compile(
    r"(?:Using|Selected) (?P<k>\w+) for "
    r"(?:mixed-precision linear|\w*(?:LinearMethod|WNA16|Int8|W4A8\w*|WNA\w+|Fp8\w*)\b)"
)
_KV_TOKENS = re.compile(r"(?:GPU|CPU|\w+) KV cache size: (?P<n>[\d,]+) tokens")
_KV_GIB = re.compile(
    r"Available KV cache memory: (?P<a>[\d.]+) GiB|(?:Explicitly|Auto) set \((?P<b>[\d.]+)/[\d.]+\) GiB for KV cache"
    r"|reserved (?P<c>[\d.]+) GiB memory for KV Cache"
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
    config = next((match["config"] for text in said if (match := _CONFIG.search(text))), "")
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


def _said_version(trace: LaunchTrace) -> str | None:
    return next((match["v"] for message in messages(trace.log) if (match := _VERSION.search(message.text))), None)


def _last(name: str, pattern: re.Pattern[str], said: list[str]) -> dict[str, str]:
    matches = [match for text in said for match in pattern.finditer(text)]
    return {name: next(group for group in matches[-1].groups() if group)} if matches else {}


def _plain(text: str) -> Any:
    constants = {"True": True, "False": False, "None": None}
    return constants[text] if text in constants else int(text) if text.isdigit() else text
