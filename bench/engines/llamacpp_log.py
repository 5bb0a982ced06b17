"""Where llama-server's start shows in its log, and what it says that it uses. Lines as of 2026, seen on a CPU."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.engines.device import device_facts
from bench.engines.engine import LaunchTrace
from bench.engines.logs import Between, Message, Rule, by_rules, lines
from bench.record.launches import Phase

LOADING = r"load_model: loading model|main: loading model"
# The file is opened twice: once to see whether it fits the device, once to load it. The last opening is the real one.
OPENED = r"llama_model_loader: loaded meta data"
TENSORS = r"load_tensors: loading model tensors"
BUFFERS = r"load_tensors: .* model buffer size"
CONTEXT = r"llama_context: constructing llama_context"
KV_READY = r"llama_kv_cache\w*: size ="
RESERVE = r"sched_reserve: reserving|graph_reserve: reserving"
WARMING = r"warming up the model with an empty run"
SLOTS = r"initializing, n_slots|initializing slots"
TEMPLATE = r"init: chat template|chat template, "
LOADED = r"llama_server: model loaded|main: model loaded"

RULES: tuple[Rule, ...] = (
    Between("server", None, LOADING),
    Between("fit", r"fitting params to device memory", r"fitting params to free memory took"),
    Between("model_load", OPENED, CONTEXT),
    Between("weights", TENSORS, CONTEXT),
    Between("kv_cache", CONTEXT, KV_READY),
    Between("reserve", RESERVE, WARMING + "|" + SLOTS),
    Between("empty_run", WARMING, SLOTS),
    Between("slots", SLOTS, TEMPLATE),
    Between("chat_template", TEMPLATE, LOADED),
)
# Switched off by a flag, and then no gap in what is known.
OPTIONAL = ("fit", "empty_run")

_BUILD = re.compile(
    r"build (?P<n>\d+) \((?P<c>[^)]+)\) with (?P<w>.+?) for (?P<f>.+)$|build: (?P<n2>\d+) \((?P<c2>[^)]+)\)"
)
_SYSTEM = re.compile(r"system_info: n_threads = (?P<t>\d+)(?: \(n_threads_batch = (?P<tb>\d+)\))? / \d+ \| (?P<b>.*)")
_DEVICE = re.compile(r"using device (?P<name>\S+) \((?P<what>[^)]*)\)")
_OFFLOADED = re.compile(r"offloaded (?P<n>\d+)/(?P<of>\d+) layers to GPU")
_WEIGHTS = re.compile(r"load_tensors: +(?P<d>\S+) model buffer size = +(?P<n>[\d.]+) MiB")
_KV = re.compile(r"KV buffer size = +(?P<n>[\d.]+) MiB")
_KV_TYPES = re.compile(r"K \((?P<k>\w+)\):.*V \((?P<v>\w+)\):")


def _context(name: str, kind: Callable[[str], Any] = int) -> tuple[re.Pattern[str], Callable[[str], Any]]:
    return re.compile(rf"llama_context: {name} += (?P<v>\S+)"), kind


# Our name → the line that says it, and what its value is.
_SETTINGS: Mapping[str, tuple[re.Pattern[str], Callable[[str], Any]]] = {
    "file_type": (re.compile(r"print_info: file type +?= (?P<v>\S+)"), str),
    "architecture": (re.compile(r"print_info: arch +?= (?P<v>\S+)"), str),
    "context": _context("n_ctx"),
    "context_per_slot": _context("n_ctx_seq"),
    "batch": _context("n_batch"),
    "ubatch": _context("n_ubatch"),
    "parallel": _context("n_seq_max"),
    "kv_unified": _context("kv_unified", lambda word: word == "true"),
    "flash_attention": (
        re.compile(r"Flash Attention (?:was auto, set to )?(?P<v>enabled|disabled)"),
        lambda word: word == "enabled",
    ),
    "load": (
        re.compile(r"\((?:load_mode|mmap) = (?P<v>[\w+]+)"),
        lambda word: {"true": "mmap", "false": "none"}.get(word, word),
    ),
}


def log_phases(trace: LaunchTrace) -> list[Phase]:
    """From the spawn to `model loaded`; what was switched off, or is not said at this verbosity, is null."""
    said = _last_load(list(lines(trace.log)))
    loaded = any(re.search(LOADED, message.text) for message in said)
    return [
        Phase(phase.name, None, None, "log", reason="unsupported")
        if phase.start_ns is None and phase.name in OPTIONAL and loaded
        else phase
        for phase in by_rules(RULES, said, trace.stamps)
    ]


def facts_of(trace: LaunchTrace) -> dict[str, Any]:
    """Build, backends, device with its evidence, threads, context, KV cache; what is not said is left out."""
    said = _last_load(list(lines(trace.log)))
    facts: dict[str, Any] = {}
    if build := _search(_BUILD, said):
        facts["version"] = f"b{build['n'] or build['n2']} ({build['c'] or build['c2']})"
        facts |= {"compiler": build["w"], "built_for": build["f"]} if build["w"] else {}
    if system := _search(_SYSTEM, said):
        facts |= {"threads": int(system["t"]), "threads_batch": int(system["tb"] or system["t"])}
        facts |= _backends(system["b"])
    for name, (pattern, kind) in _SETTINGS.items():
        if match := _search(pattern, said):
            facts[name] = kind(match["v"])
    if devices := [match for message in said if (match := _DEVICE.search(message.text))]:
        facts["devices"] = {match["name"]: match["what"] for match in devices}
    if kv := [float(match["n"]) for message in said if (match := _KV.search(message.text))]:
        facts["kv_cache_mib"] = round(sum(kv), 2)
    if types := _search(_KV_TYPES, said):
        facts["kv_cache_type"] = types["k"] if types["k"] == types["v"] else f"{types['k']}/{types['v']}"
    weights: dict[str, float] = {}
    for message in said:
        if match := _WEIGHTS.search(message.text):
            weights[match["d"]] = float(match["n"])
    layers = _search(_OFFLOADED, said)
    return facts | device_facts(
        weights, (int(layers["n"]), int(layers["of"])) if layers else None, layers.string if layers else None
    )


def _last_load(said: Sequence[Message]) -> list[Message]:
    """The log without what an earlier opening of the file said of it."""
    opened = [index for index, message in enumerate(said) if re.search(OPENED, message.text)]
    if len(opened) < 2:
        return list(said)
    return [*said[: opened[0]], *said[opened[-1] :]]


def _backends(text: str) -> dict[str, Any]:
    """`CPU : AVX2 = 1 | FMA = 1 | CUDA : ARCHS = 870 |` as backends and the instruction sets of the CPU."""
    backends: list[str] = []
    features: list[str] = []
    for part in (piece.strip() for piece in text.split("|")):
        head, colon, rest = part.partition(" : ")
        if colon:
            backends.append(head)
        feature, _, value = (rest if colon else part).partition(" = ")
        if value == "1" and backends and backends[-1] == "CPU":
            features.append(feature)
    return {"backends": backends, "cpu_features": features} if backends else {}


def _search(pattern: re.Pattern[str], said: Sequence[Message]) -> re.Match[str] | None:
    return next((match for message in said if (match := pattern.search(message.text))), None)
