"""What lies in a checkpoint's folder."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.errors import ModelError

# Files beside the weights that tell what they mean.
SIDE = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


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


def gguf_file(place: Path) -> Path:
    """The one GGUF file of a folder, or the place itself if it is a file."""
    found = [place] if place.is_file() else sorted(place.glob("*.gguf"))
    if len(found) != 1:
        raise ModelError(f"{place} holds {len(found)} GGUF files instead of one", hint="name the file itself")
    return found[0]


def link(file: Path, to: Path) -> None:
    """The same bytes under another name: a hard link where the file system allows it, else a copy."""
    try:
        os.link(file.resolve(), to)
    except OSError:
        shutil.copyfile(file, to)
