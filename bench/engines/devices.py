"""On which device an engine really runs, from what it says of its buffers and layers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bench.record.schema import Check

HOST_BUFFERS = ("CPU", "Host")


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


def device_check(wants_gpu: bool | None, facts: Mapping[str, Any]) -> Check | None:
    """Whether an engine that was to use a GPU does; None where nobody asked for one.

    An engine that finds no GPU mostly goes on without a word, many times slower: such a launch is no measurement.
    """
    if not wants_gpu:
        return None
    used, evidence = facts.get("device_used"), str(facts.get("device_evidence", "it does not say"))
    return Check(
        "engine.device",
        "unknown" if used is None else "violated" if used == "cpu" else "ok",
        f"runs on {used}: {evidence}" if used else evidence,
        limit="the GPU",
        remedy="install a build for this GPU, or ask for the CPU (n_gpu_layers: 0)" if used == "cpu" else None,
    )


def _host(name: str) -> bool:
    return name.startswith(HOST_BUFFERS) or name.endswith("_Host")
