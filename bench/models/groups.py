"""Group sizes: how many weights of a row share a scale, which must divide every row that is quantized."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.errors import ModelError, UsageError

# What vLLM's 4-bit kernels take, the cheapest in memory first.
SIZES = (128, 64, 32)
# Weights that stay as they are: looked up, not multiplied.
_KEPT = ("embed_tokens", "lm_head", "wte", "wpe")


def choose(widths: Mapping[int, str], asked: int | None) -> int:
    """The size asked for, or the largest of SIZES that divides every width; UsageError names those that do."""
    fitting = [size for size in SIZES if not any(width % size for width in widths)]
    if asked is None:
        if fitting:
            return fitting[0]
        raise UsageError(f"no group size of {', '.join(map(str, SIZES))} divides every input width: {_listed(widths)}")
    wrong = widths if asked < 1 else {width: name for width, name in widths.items() if width % asked}
    if not wrong:
        return asked
    do = f"{', '.join(map(str, fitting))} would" if fitting else f"none of {', '.join(map(str, SIZES))} does either"
    raise UsageError(f"group size {asked} does not divide the input width {_listed(wrong)}; {do}")


def widths(folder: Path) -> dict[int, str]:
    """Every input width of a checkpoint's linear layers, each with the name of one such layer."""
    found: dict[int, str] = {}
    for file in sorted(folder.glob("*.safetensors")):
        for name, tensor in _header(file).items():
            if name.endswith(".weight") and len(tensor.get("shape", ())) == 2 and not any(k in name for k in _KEPT):
                found.setdefault(int(tensor["shape"][1]), name.removesuffix(".weight"))
    if not found:
        raise ModelError(f"{folder} holds no linear layers in safetensors files")
    return found


def _header(file: Path) -> Mapping[str, Any]:
    with file.open("rb") as handle:
        start = handle.read(8)
        try:
            header: dict[str, Any] = json.loads(handle.read(struct.unpack("<Q", start)[0]))
        except (struct.error, ValueError, MemoryError, OverflowError) as error:
            raise ModelError(f"{file} is no safetensors file: {error}") from error
    header.pop("__metadata__", None)
    return header


def _listed(widths: Mapping[int, str]) -> str:
    return ", ".join(f"{width} of {name}" for width, name in sorted(widths.items()))
