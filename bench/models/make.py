"""Checkpoints made on this machine by a worker in the `transformers` environment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.data import SHAPES
from bench.engines.engine import Checkpoint
from bench.engines.gguf import gguf_file
from bench.environments.environment import provisioned
from bench.errors import ModelError
from bench.home import Progress
from bench.models.cache import Cache, Entry
from bench.models.contents import SIDE, link
from bench.programs import FOLDER

_PROGRAM = FOLDER / "make_process.py"
# Raised when the worker would make other files: from the same shape, or by unpacking the same file.
_DUMMY_RECIPE = 1
_RECIPE = 1


def shape(name: str) -> dict[str, Any]:
    """A dummy's shape, as the published configuration of its model has it; `model_type` is transformers'."""
    found: dict[str, Any] = json.loads((SHAPES / f"{name}.json").read_text(encoding="utf-8"))
    return found


def dummy_key(name: str) -> dict[str, Any]:
    """The cache key of a dummy model."""
    return {"kind": "dummy", "name": name, "shape": shape(name), "recipe": _DUMMY_RECIPE}


def dummy(name: str, cache: Cache, progress: Progress | None) -> Entry:
    """Random weights in a model's true shape: their speed is real, their words are noise."""

    def write(folder: Path, partial: Path) -> None:
        _work("dummy", SHAPES / f"{name}.json", folder)

    if progress:
        progress(f"making dummy:{name}, random weights in its true shape")
    about = {"source": f"dummy:{name}", "quantization": "bf16", "random_weights": True}
    return cache.put(dummy_key(name), write, needs=_room(shape(name)), about=about, progress=progress)


def dense_key(digest: str | None) -> dict[str, Any]:
    """The cache key of what a GGUF file of that digest unpacks to."""
    return {"kind": "dense", "from": digest, "dtype": "bf16", "recipe": _RECIPE}


def dense(base: Checkpoint, cache: Cache, progress: Progress | None) -> Entry:
    """A GGUF file unpacked once to bf16 safetensors."""
    file = _packed_file(base)
    key = dense_key(base.digest)
    if (found := cache.entry(key)) is not None:
        return found
    if progress:
        progress(f"unpacking {file.name} to bf16 safetensors, once")
    return cache.put(
        key,
        lambda folder, partial: _work("dense", file, folder),
        # A 4-bit file holds about a quarter of what its bf16 copy takes.
        needs=5 * file.stat().st_size,
        about={"source": base.source, "quantization": "bf16"},
        progress=progress,
    )


def packed(base: Checkpoint, dense_copy: Entry, cache: Cache, progress: Progress | None) -> Entry:
    """A GGUF file with its dense copy's tokenizer and configuration; it shares disk blocks where it can."""
    file = _packed_file(base)

    def write(folder: Path, partial: Path) -> None:
        link(file, folder / file.name)
        for name in SIDE:
            if (dense_copy.folder / name).is_file():
                shutil.copyfile(dense_copy.folder / name, folder / name)

    key = {"kind": "packed", "from": base.digest, "recipe": _RECIPE}
    about = {"source": base.source, "quantization": "gguf-q4"}
    return cache.entry(key) or cache.put(key, write, about=about, progress=progress)


def _room(shape: Mapping[str, Any]) -> int:
    """Bytes that the bf16 weights of a shape may take, generously."""
    embeddings = shape["vocab_size"] * shape["hidden_size"]
    layer = shape["hidden_size"] * (4 * shape["hidden_size"] + 3 * shape["intermediate_size"])
    return 2 * int(embeddings + shape["num_hidden_layers"] * layer) + 50_000_000


def _packed_file(base: Checkpoint) -> Path:
    assert base.path is not None
    return gguf_file(base.path)


def _work(kind: str, source: Path, folder: Path) -> None:
    python = provisioned("transformers")
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}
    ran = subprocess.run(
        [python, _PROGRAM, kind, source, folder], capture_output=True, text=True, errors="replace", env=env
    )
    if ran.returncode:
        said = [line for line in ran.stderr.splitlines() if line.strip()]
        raise ModelError(
            f"{source.name} could not be turned into a checkpoint: {said[-1] if said else f'exit {ran.returncode}'}"
        )
