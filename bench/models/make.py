"""Checkpoints made on this machine by a worker in the `transformers` environment."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from bench.engines.engine import Checkpoint
from bench.environments.environment import provisioned
from bench.errors import ModelError
from bench.home import Progress
from bench.models import dummy as dummies
from bench.models.cache import Cache, Entry
from bench.models.contents import SIDE, gguf_file, link

_WORKER = Path(__file__).parents[1] / "engines" / "workers" / "make_checkpoint.py"
# Raised when the worker would unpack the same file differently.
_RECIPE = 1


def dummy(name: str, cache: Cache, progress: Progress | None) -> Entry:
    """Random weights in a model's true shape."""

    def write(folder: Path, partial: Path) -> None:
        shape = partial / "shape.json"
        shape.write_text(json.dumps(dummies.SHAPES[name]))
        _work("dummy", shape, folder)

    if progress:
        progress(f"making dummy:{name}, random weights in its true shape")
    about = {"source": f"dummy:{name}", "quantization": "bf16", "random_weights": True}
    return cache.put(dummies.key(name), write, needs=dummies.room(name), about=about, progress=progress)


def dense(base: Checkpoint, cache: Cache, progress: Progress | None) -> Entry:
    """A GGUF file unpacked once to bf16 safetensors."""
    file = _packed_file(base)
    key: dict[str, Any] = {"kind": "dense", "from": base.digest, "dtype": "bf16", "recipe": _RECIPE}
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


def _packed_file(base: Checkpoint) -> Path:
    assert base.path is not None
    return gguf_file(base.path)


def _work(kind: str, source: Path, folder: Path) -> None:
    python = provisioned("transformers")
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TRANSFORMERS_VERBOSITY": "error"}
    ran = subprocess.run(
        [python, _WORKER, kind, source, folder], capture_output=True, text=True, errors="replace", env=env
    )
    if ran.returncode:
        said = [line for line in ran.stderr.splitlines() if line.strip()]
        raise ModelError(
            f"{source.name} could not be turned into a checkpoint: {said[-1] if said else f'exit {ran.returncode}'}"
        )
