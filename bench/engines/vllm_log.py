"""What vLLM's log says, version by version: the phases of its start, and the facts of what it started with."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

from bench.engines.engine import LaunchTrace, Span
from bench.engines.logs import Between, Took, messages
from bench.environments.pythons import Version, version
from bench.record.launches import Phase

_S = r"(?P<s>[\d.]+)"

CONFIGURED = r"vLLM API server version|non-default args:"
RESOLVED = r"Using max model len|This model supports multiple tasks"
ENGINE_UP = r"Initializing an? (?:V\d )?LLM engine"
V0 = re.compile(r"Initializing an? (?:V0 )?LLM engine")

LINES: tuple[Took | Between, ...] = (
    Between("imports", None, CONFIGURED),
    Between("resolve_model", CONFIGURED, RESOLVED),
    Between("engine_process", RESOLVED, ENGINE_UP),
    Between("worker_process", ENGINE_UP, r"rank \d+ in world size \d+ is assigned"),
    Took("download", rf"Time spent downloading weights for [^\n]*: {_S} seconds"),
    Took("model_init", rf"Initializing model took {_S} seconds", since=version("0.32")),
    Took("weights", rf"Loading weights took {_S} seconds"),
    Took("model_load", rf"Model loading took [\d.]+ G(?:iB|B)(?: memory)? and {_S} seconds"),
    Took("dynamo", rf"Dynamo bytecode transform time: {_S} s"),
    Took("inductor", rf"Compiling a graph for (?:general shape|shape [^\n]*?) takes {_S} s", until=version("0.10")),
    Took(
        "inductor",
        rf"Compiling a graph for (?:dynamic shape|shape [^\n]*?) takes {_S} s",
        since=version("0.10"),
        until=version("0.13"),
    ),
    Took("inductor", rf"Compiling a graph for compile range [^\n]*? takes {_S} s", since=version("0.13")),
    Took(
        "compile_load",
        rf"Directly load the compiled graph\(s\) for (?:dynamic )?shape[^\n]*? from the cache, took {_S} s",
        since=version("0.8.2"),
        until=version("0.13"),
    ),
    Took(
        "compile_load",
        rf"Directly load the compiled graph\(s\) for compile range [^\n]*? from the cache, took {_S} s",
        since=version("0.13"),
    ),
    Took("compile", rf"torch\.compile takes {_S} s in total", until=version("0.18")),
    Took("compile", rf"torch\.compile took {_S} s in total", since=version("0.18")),
    Between("compile", r"Warming up model for the compilation", r"saved AOT compiled function to|Warming up done"),
    Took("profile", rf"Memory profiling takes {_S} seconds", until=version("0.12"), core="V0"),
    Took("profile", rf"Initial profiling/warmup run took {_S} s", since=version("0.18")),
    Took("kernel_warmup", rf"JIT kernel warmup finished in {_S}s", since=version("0.29")),
    Took("graph_capture", rf"Graph capturing finished in {_S} secs"),
    Took("engine_init", rf"init engine \(profile, create kv cache, warmup model\) took {_S} s(?:econds)?"),
    Between("api_server", r"Supported[_ ]tasks: |Starting vLLM (?:API )?server", r"Application startup complete"),
)

# A total that is printed after its parts: of use only where no part was found.
TOTALS = {"compile": ("dynamo", "inductor", "compile_load")}
# What an engine that was told to run eagerly does not do.
COMPILED = ("dynamo", "inductor", "compile_load", "compile", "graph_capture", "kernel_warmup", "profile")
# The V0 core captures graphs of what it runs and compiles nothing.
V1_ONLY = ("dynamo", "inductor", "compile_load", "compile", "kernel_warmup")
EAGER = re.compile(r"enforce_eager=True|'enforce_eager': True")

SPANS = {
    "EngineCoreProc init": "engine_core",
    "Executor init": "executor",
    "Worker init": "worker_init",
    "Init device": "device",
    "Download weights - HF": "download",
    "Load model": "model_load",
    "Initialize model": "model_init",
    "Load weights": "weights",
    "Warmup (CPU)": "warmup_run",
    "Warmup (GPU)": "warmup_run",
    "Dynamo bytecode transform": "dynamo",
    "Inductor compilation": "inductor",
    "Allocate KV cache": "kv_cache",
    "DeepGemm warmup": "kernel_warmup",
    "CuTeDSL warmup": "kernel_warmup",
    "Capture model": "graph_capture",
    "Prepare model": "engine_init",
    "API server setup": "api_server",
}
SPANS_SINCE = version("0.16")


def log_phases(trace: LaunchTrace, installed: Version | None) -> list[Phase]:
    """Phases by log lines; a phase whose lines the version has and the log lacks is null.

    Without a version all lines are tried.
    """
    said = list(messages(trace.log))
    core = "V0" if any(V0.search(message.text) for message in said) else "V1"
    rules = [
        rule
        for rule in LINES
        if (installed is None or rule.since <= installed < rule.until) and rule.core in {None, core}
    ]
    eager = any(EAGER.search(message.text) for message in said)
    found: dict[str, list[Phase]] = {}
    for rule in rules:
        found.setdefault(rule.phase, []).extend(rule.phases(said, trace.stamps))
    for total, parts in TOTALS.items():
        if any(phase.start_ns is not None for part in parts for phase in found.get(part, ())):
            found.pop(total, None)
    for name in {rule.phase for rule in LINES} - set(TOTALS):
        if not found.get(name):
            known = any(rule.phase == name for rule in rules)
            skipped = not known or (eager and name in COMPILED) or (core == "V0" and name in V1_ONLY)
            found[name] = [Phase(name, None, None, "log", reason="unsupported" if skipped else "not_found")]
    return [phase for phases in found.values() for phase in phases]


def span_phases(spans: Sequence[Span], installed: Version | None) -> list[Phase]:
    """Phases by OpenTelemetry spans; null where a version that sends them sent none."""
    known = [span for span in spans if span.name in SPANS]
    phases = [
        Phase(SPANS[span.name], span.start_ns, span.end_ns, "span", process=span.process or None)
        for span in known
        if not any(_around(other, span) for other in known)
    ]
    if phases:
        return phases
    sends = installed is None or installed >= SPANS_SINCE
    return [Phase("kv_cache", None, None, "span", reason="not_found" if sends else "unsupported")]


def _around(outer: Span, inner: Span) -> bool:
    """Whether a span only repeats a part of another: a worker wraps its own initialisation in a span of that name."""
    same = (outer.name, outer.process) == (inner.name, inner.process) and outer is not inner
    return same and outer.start_ns <= inner.start_ns and inner.end_ns < outer.end_ns


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
