"""Where Ollama's start shows in its log, and what it says that it uses. Lines of 0.9 to 0.17, after public logs."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from bench.engines.device import device_facts
from bench.engines.engine import LaunchTrace
from bench.engines.logs import Between, Message, Rule, Took, by_rules, lines
from bench.record.launches import Phase

LISTENING = r'msg="Listening on \S+ \(version (?P<v>[^)"]+)\)"'
RUNNER = r'msg="starting (?:runner|llama server)"'
STARTED = r'msg="llama runner started in (?P<s>[\d.]+) seconds"'
RULES: tuple[Rule, ...] = (
    Between("server", None, LISTENING),
    Between("discovery", LISTENING, r'msg="inference compute"'),
    Between("runner_process", RUNNER, r'msg="starting (?:ollama engine|go runner)"'),
    Took("model_load", STARTED),
)
_COMPUTE = re.compile(
    r'msg="inference compute" .*?library=(?P<library>\S+)(?:.*?description="?(?P<name>[^"=]+?)"? \w+=)?'
)
_OFFLOADED = re.compile(r"offloaded (?P<n>\d+)/(?P<of>\d+) layers to GPU")
# Per device, how much: 'msg="model weights" device=CUDA0 size="1.2 GiB"'.
_SIZE = re.compile(
    r'msg="(?P<what>model weights|kv cache|compute graph)" device=(?P<device>\S+) '
    r'size="(?P<n>[\d.]+) (?P<u>[KMGT]i?B|B)"'
)
_BUFFER = re.compile(r"(?P<device>\w+) (?P<what>model|KV) buffer size = +(?P<n>[\d.]+) (?P<u>MiB)")
_UNITS = {"B": 2**-20, "KiB": 2**-10, "KB": 2**-10, "MiB": 1.0, "MB": 1.0, "GiB": 2**10, "GB": 2**10, "TiB": 2**20}
# Our name → the variable in the line `server config`.
_SETTINGS = {
    "context": "OLLAMA_CONTEXT_LENGTH",
    "flash_attention": "OLLAMA_FLASH_ATTENTION",
    "kv_cache_type": "OLLAMA_KV_CACHE_TYPE",
    "parallel": "OLLAMA_NUM_PARALLEL",
}


def log_phases(trace: LaunchTrace) -> list[Phase]:
    """Server, discovery of devices, the runner's process, and loading as the server times it."""
    found = by_rules(RULES, list(lines(trace.log)), trace.stamps)
    # The line that ends a load is printed once by each who waits for it; the first ended it.
    loads = [phase for phase in found if phase.name == "model_load"]
    return [phase for phase in found if phase.name != "model_load"] + loads[:1]


def facts_of(trace: LaunchTrace) -> dict[str, Any]:
    """Version, settings, devices; what the log does not tell is not there."""
    said = list(lines(trace.log))
    facts: dict[str, Any] = {}
    if match := _first(LISTENING, said):
        facts["version"] = match["v"]
    config = next((message.text for message in said if 'msg="server config"' in message.text), "")
    for name, variable in _SETTINGS.items():
        if (match := re.search(rf"{variable}:(\S*)", config)) and match[1]:
            facts[name] = match[1].rstrip(']"')
    found = [match for message in said if (match := _COMPUTE.search(message.text))]
    facts |= {"backends": sorted({match["library"].lower() for match in found})} if found else {}
    weights: dict[str, float] = {}
    for message in said:
        for match in (*_SIZE.finditer(message.text), *_BUFFER.finditer(message.text)):
            what = {"model weights": "weights", "model": "weights"}.get(match["what"])
            if what:
                weights[match["device"]] = round(float(match["n"]) * _UNITS[match["u"]], 2)
    layers = _first(_OFFLOADED.pattern, said)
    offloaded = (int(layers["n"]), int(layers["of"])) if layers else None
    return facts | device_facts(weights, offloaded, layers.string if layers else None)


def _first(pattern: str, said: Sequence[Message]) -> re.Match[str] | None:
    return next((match for message in said if (match := re.search(pattern, message.text))), None)
