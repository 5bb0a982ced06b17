"""A Jetson's power mode and clocks: read always, set only when asked, put back always."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bench.probes.roots import Roots, number


@dataclass(frozen=True, slots=True)
class PowerMode:
    """What `nvpmodel -q` says."""

    name: str
    number: int | None


def power_mode(roots: Roots) -> PowerMode | None:
    """The mode in force; None without nvpmodel or without an answer."""
    printed = roots.output("nvpmodel", "-q")
    found = re.search(r"NV Power Mode:\s*(\S+)\s*(?:\n\s*(\d+))?", printed or "")
    return PowerMode(found[1], int(found[2]) if found[2] else None) if found else None


def clocks(roots: Roots) -> dict[str, bool]:
    """Per clock domain, whether it is pinned: its lowest allowed frequency is its highest."""
    pinned: dict[str, bool] = {}
    policies = sorted(roots.in_sys("devices/system/cpu/cpufreq").glob("policy*"))
    if not policies:
        policies = sorted(roots.in_sys("devices/system/cpu").glob("cpu[0-9]*/cpufreq"))
    pairs = [(number(folder / "scaling_min_freq"), number(folder / "scaling_max_freq")) for folder in policies]
    if known := [low == high for low, high in pairs if low is not None and high is not None]:
        pinned["cpu"] = all(known)
    gpus = [
        (number(folder / "min_freq"), number(folder / "max_freq"))
        for folder in sorted(roots.in_sys("class/devfreq").glob("*"))
        if is_gpu(folder.name)
    ]
    if known := [low == high for low, high in gpus if low is not None and high is not None]:
        pinned["gpu"] = all(known)
    return pinned


def locked(roots: Roots) -> bool | None:
    """Whether every clock domain that can be read is pinned; None if none can."""
    domains = clocks(roots)
    return all(domains.values()) if domains else None


def is_gpu(name: str) -> bool:
    """Whether a devfreq node is the GPU: 17000000.gpu, 17000000.ga10b, gpu-gpc-0, 57000000.gpu."""
    return bool(re.search(r"(^|[.])(gpu|ga10b|gv11b|gp10b|gm20b)|^gpu-gpc-\d+$", name))
