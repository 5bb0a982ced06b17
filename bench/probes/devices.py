"""Which processes hold a GPU's device file open: without one nothing computes there, whatever an engine is."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any

# NVIDIA's driver on desktops and Thor, nvgpu on Tegra (by JetPack), AMD's kfd, a render node, and WSL's.
_GPU = re.compile(r"/dev/(nvidia\d+$|nvhost-(\w+-)*gpu|nvgpu/|kfd$|dri/renderD\d+|dxg$)")


def without_gpu(pids: Sequence[int], proc: str = "/proc") -> dict[str, Any]:
    """`device_used: cpu` with its evidence where none of the processes can compute on a GPU; nothing where one may, or
    where their files cannot be read.

    The inverse is no evidence: a library that only looked for a GPU holds one open too.
    """
    seen = 0
    for pid in pids:
        try:
            names = [_target(f"{proc}/{pid}/fd/{number}") for number in os.listdir(f"{proc}/{pid}/fd")]  # noqa: PTH208
        except FileNotFoundError:
            continue  # it ended meanwhile
        except OSError:
            return {}
        if any(_GPU.match(name) for name in names):
            return {}
        seen += 1
    if not seen:
        return {}
    who = "its process holds" if seen == 1 else f"none of its {seen} processes holds"
    return {"device_used": "cpu", "device_evidence": f"{who} {'no' if seen == 1 else 'a'} GPU's device file open"}


def _target(link: str) -> str:
    try:
        return os.readlink(link)  # noqa: PTH115
    except OSError:
        return ""
