"""Which device an engine was asked to compute on, and which one it says that it did.

Only words that are about the computing count: a library that finds a GPU, or complains that it finds none, has not
computed yet.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.record.engine_log import LogLine
    from bench.scenario.variant import Variant

HOST_BUFFERS = ("CPU", "Host")
# Environment variables that hide every GPU when they are empty or -1.
_HIDING = ("CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
# llama.cpp's number of layers on the GPU, in its spellings.
_LAYERS = ("ngl", "gpu_layers", "n_gpu_layers")
# Sentence → device, the latest sentence counts. `{n}` layers on a GPU are a GPU, none of them is the processor.
_TOLD = (
    # vLLM: the configuration it prints; in newer versions the one of its platform.
    (re.compile(r"device_config=(?:torch\.)?(?:device\()?(?:type=)?['\"]?(?P<device>\w+)"), None),
    # SGLang: its arguments, with the device that it settled on.
    (re.compile(r"server_args=.*\bdevice=['\"](?P<device>\w+)"), None),
    # llama.cpp, also inside Ollama and LM Studio.
    (re.compile(r"offloaded 0/\d+ layers to GPU"), "cpu"),
    (re.compile(r"offloaded [1-9]\d*/\d+ layers to GPU"), "cuda"),
    (re.compile(r"no usable GPU found, --(?:n-)?gpu-layers option will be ignored"), "cpu"),
    # Ollama: the library that it runs a model with.
    (re.compile(r"inference compute.*\blibrary=(?P<device>\w+)"), None),
    # Transformers and accelerate, in other people's servers.
    (re.compile(r"Device set to use (?P<device>\w+)"), None),
)


def asked(variant: Variant) -> str | None:
    """`cpu` or `cuda` where the scenario says so: by flag, by hidden GPUs, or by an environment made for processors."""
    engine = variant.engine
    flags = {name: str(value) for name, value in engine.args.items()} | dict(_flags(engine.command or ()))
    for name, value in flags.items():
        plain = name.lstrip("-").replace("-", "_")
        if plain == "device" and value != "auto":
            return name_of(value)
        if plain in _LAYERS and value.lstrip("-").isdigit():
            return "cpu" if value == "0" else "cuda"
    if any(engine.env.get(name, "?").strip() in ("", "-1", "none", "void") for name in _HIDING):
        return "cpu"
    if "cpu" in re.split(r"[^a-z0-9]+", str(engine.environment or "").lower()):
        return "cpu"
    return None


def _flags(command: Sequence[str]) -> Iterator[tuple[str, str]]:
    """`--flag value` and `--flag=value`."""
    for word, following in zip(command, [*command[1:], ""], strict=False):
        if word.startswith("-"):
            name, equals, value = word.partition("=")
            yield name, value if equals else following


def told(log: Iterable[LogLine]) -> dict[str, Any]:
    """`device_used` and the sentence that says so; nothing where no sentence does."""
    found: dict[str, Any] = {}
    for line in log:
        for pattern, device in _TOLD:
            if match := pattern.search(line.text):
                used = device or name_of(match["device"])
                if used != "auto":
                    found = {"device_used": used, "device_evidence": _sentence(line.text, match)}
    return found


def name_of(device: str) -> str:
    """`cuda:1`, `CUDA` and `GPU` as `cuda`; others in small letters without their number."""
    name = device.lower().partition(":")[0]
    return "cuda" if name in ("gpu", "cuda", "nvidia") else name


def _sentence(text: str, match: re.Match[str]) -> str:
    """The words around a match, not the whole configuration that it stands in."""
    if len(text) <= 120:
        return text.strip()
    return text[max(0, match.end() - 80) : match.end() + 20].strip()


def device_facts(
    weights_mib: Mapping[str, float], offloaded: tuple[int, int] | None, evidence: str | None
) -> dict[str, Any]:
    """Facts `device_used`, `device_evidence`, `weights_mib` and `layers_on_gpu`; empty where nothing was said.

    `weights_mib` is MiB of weights by the engine's own name of the buffer, `offloaded` layers (on the GPU, in all). The
    device used is the accelerator that holds most weights, or `cpu` where none of them, or no layer, is on one.
    """
    facts: dict[str, Any] = {}
    if weights_mib:
        facts["weights_mib"] = dict(weights_mib)
    if offloaded is not None:
        facts["layers_on_gpu"] = f"{offloaded[0]} of {offloaded[1]}"
    accelerators = {name: size for name, size in weights_mib.items() if not _host(name) and size > 0}
    if offloaded is not None and offloaded[0] == 0:
        accelerators = {}
    if accelerators:
        facts["device_used"] = max(accelerators, key=lambda name: accelerators[name])
    elif weights_mib or offloaded is not None:
        facts["device_used"] = "cpu"
    if "device_used" in facts:
        words = ", ".join(f"{name} {size:g} MiB of weights" for name, size in weights_mib.items())
        facts["device_evidence"] = (evidence or words).strip()[-200:]
    return facts


def _host(name: str) -> bool:
    return name.startswith(HOST_BUFFERS) or name.endswith("_Host")
