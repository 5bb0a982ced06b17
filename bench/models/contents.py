"""What lies in a checkpoint's folder."""

from __future__ import annotations

import json
import os
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.errors import ModelError

# Files beside the weights that tell what they mean.
SIDE = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")

# Weights that are looked up and not multiplied.
_LOOKED_UP = ("embed_tokens", "lm_head", "wte", "wpe")


def is_weights(name: str) -> bool:
    """Whether a file of that name holds weights."""
    return name.endswith((".safetensors", ".gguf", ".bin", ".pt"))


def vocab_size(folder: Path) -> int | None:
    """The vocabulary size that a checkpoint's configuration names, if it does."""
    config = folder / "config.json"
    if not config.is_file():
        return None
    try:
        described: Mapping[str, Any] = json.loads(config.read_text())
    except ValueError as error:
        raise ModelError(f"{config} is not JSON: {error}") from error
    size = described.get("vocab_size", described.get("text_config", {}).get("vocab_size"))
    return int(size) if size is not None else None


def input_widths(folder: Path) -> dict[int, str]:
    """Every input width of a checkpoint's linear layers, each with the name of one such layer."""
    found: dict[int, str] = {}
    for file in sorted(folder.glob("*.safetensors")):
        for name, tensor in _header(file).items():
            if (
                name.endswith(".weight")
                and len(tensor.get("shape", ())) == 2
                and not any(k in name for k in _LOOKED_UP)
            ):
                found.setdefault(int(tensor["shape"][1]), name.removesuffix(".weight"))
    if not found:
        raise ModelError(f"{folder} holds no linear layers in safetensors files")
    return found


def link(file: Path, to: Path) -> None:
    """The same bytes under another name: a hard link where the file system allows it, else a copy."""
    try:
        os.link(file.resolve(), to)
    except OSError:
        shutil.copyfile(file, to)


def _header(file: Path) -> Mapping[str, Any]:
    with file.open("rb") as handle:
        start = handle.read(8)
        try:
            header: dict[str, Any] = json.loads(handle.read(struct.unpack("<Q", start)[0]))
        except (struct.error, ValueError, MemoryError, OverflowError) as error:
            raise ModelError(f"{file} is no safetensors file: {error}") from error
    header.pop("__metadata__", None)
    return header
