"""Where vLLM's start-up shows: its spans and its log lines, by version. Data, and the little that reads it.

The lines are those of the sources of 0.8 to 0.33; docs/engines.md says which were also seen on a real start.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from bench.engines.engine import LaunchTrace, Span
from bench.engines.log_rules import Between, Took
from bench.engines.logs import messages
from bench.environments.versions import Version, version
from bench.record.schema import Phase

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
