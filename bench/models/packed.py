"""A GGUF file served as it was published: what it is, and a tokenizer made from its own vocabulary."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bench.engines.engine import Checkpoint
from bench.engines.gguf import Header, gguf_file, header
from bench.models.cache import Cache
from bench.models.convert import DENSE
from bench.models.gguf_tokenizer import tokenizer

# Raised when the same file would give another tokenizer.
_RECIPE = 1


def is_of(base: Checkpoint, quantization: str) -> bool:
    """Whether the file is of that type; `gguf-q4` is the file as it was published, whatever its bits."""
    if quantization == "gguf-q4":
        return True
    return _header(base).file_type == DENSE.get(quantization, quantization.removeprefix("gguf-"))


def described(base: Checkpoint, cache: Cache) -> Checkpoint:
    """The checkpoint with its vocabulary, and with a tokenizer where its kind is known; the weights stay in place."""
    found = _header(base)
    return replace(base, vocab_size=found.vocab_size, side=_side(base, found, cache))


def _header(base: Checkpoint) -> Header:
    assert base.path is not None
    return header(gguf_file(base.path))


def _side(base: Checkpoint, found: Header, cache: Cache) -> Path | None:
    made = tokenizer(found)
    if made is None:
        return None
    key = {"kind": "tokenizer", "from": base.digest, "recipe": _RECIPE}

    def write(folder: Path, partial: Path) -> None:
        made.save(str(folder / "tokenizer.json"))

    stored = cache.entry(key) or cache.put(key, write, about={"source": base.source})
    return stored.folder
