"""The name of the device that compiled code was made for, read without any driver library."""

from __future__ import annotations

import platform
import re
from functools import cache
from pathlib import Path


@cache
def device_name(root: Path = Path("/")) -> str:
    """The board of a Jetson, the NVIDIA cards of a desktop, or else the processor's model."""
    board = root / "proc/device-tree/model"
    if board.is_file():
        return board.read_text(errors="replace").rstrip("\0")
    cards = sorted(root.glob("proc/driver/nvidia/gpus/*/information"))
    found = [re.search(r"Model:\s*(.+)", card.read_text(errors="replace")) for card in cards]
    models = [match[1].strip() for match in found if match]
    if models:
        return ", ".join(models)
    info = root / "proc/cpuinfo"
    match = re.search(r"model name\s*:\s*(.+)", info.read_text(errors="replace")) if info.is_file() else None
    return match[1].strip() if match else platform.machine()
