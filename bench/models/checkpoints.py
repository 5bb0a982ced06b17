"""From a model's source, as a scenario writes it, to a checkpoint on this machine in the quantization asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bench.engines.engine import Checkpoint
from bench.errors import ModelError
from bench.home import Progress
from bench.models import fetch, make
from bench.models.cache import Cache, Entry, source_key
from bench.models.contents import is_weights, vocab_size
from bench.scenario.model import Model
from bench.scenario.sources import REMOTE, Reference, parse

# Quantizations that are the engine's flag over one and the same checkpoint.
DENSE = ("fp32", "fp16", "bf16")


def resolve(
    model: Model,
    quantization: str,
    *,
    cache: Cache | None = None,
    progress: Progress | None = None,
    offline: bool = False,
) -> Checkpoint:
    """The checkpoint to serve; fetched, unpacked or converted first where need be.

    `offline` forbids the network, not the conversion of what is here. ModelError says what is missing and which
    command makes it.
    """
    if model.source == REMOTE:
        return Checkpoint(None, REMOTE, None, quantization, "remote")
    cache = cache or Cache()
    ready_made = model.checkpoints.get(quantization)  # type: ignore[call-overload]  # a plain str outside the literal
    if ready_made:
        base = _base(Model(source=ready_made), cache, progress, offline)
        return replace(base, quantization=quantization)
    base = _base(model, cache, progress, offline)
    if quantization in DENSE:
        dense = _dense(base, cache, progress) if base.format == "gguf" else base
        return replace(dense, quantization=quantization)
    if quantization == "gguf-q4":
        if base.format != "gguf":
            raise ModelError(
                f"{base.source} has no 4-bit GGUF file",
                hint='name one in the scenario: `checkpoints: {gguf-q4: "path:model.gguf"}`',
            )
        return replace(_packed(base, cache, progress), quantization=quantization)
    dense = _dense(base, cache, progress) if base.format == "gguf" else base
    entry = cache.entry(quantized_key(dense, quantization))
    if entry is None:
        raise ModelError(
            f"there is no {quantization} checkpoint of {model.source}",
            hint=f"run `bench models quantize {model.source} --to {quantization}`, or name one under `checkpoints:`",
        )
    return replace(checkpoint(entry, dense.source), quantization=quantization, random_weights=dense.random_weights)


def quantized_key(dense: Checkpoint, quantization: str) -> dict[str, Any]:
    """The cache key of a checkpoint quantized here from a dense one; how it was quantized belongs in `about`."""
    return {"kind": "quantized", "from": dense.digest, "quantization": quantization}


def checkpoint(entry: Entry, source: str) -> Checkpoint:
    """A cache entry as a checkpoint."""
    packed = any(name.endswith(".gguf") for name in entry.files)
    return Checkpoint(
        path=entry.folder,
        source=source,
        digest=entry.digest,
        quantization=str(entry.about.get("quantization", "bf16")),
        format="gguf" if packed else "safetensors",
        size_bytes=sum(file.size for name, file in entry.files.items() if is_weights(name)),
        random_weights=bool(entry.about.get("random_weights")),
        vocab_size=vocab_size(entry.folder),
    )


def _base(model: Model, cache: Cache, progress: Progress | None, offline: bool) -> Checkpoint:
    """The source as it is published: a folder of safetensors, or a folder with a GGUF file."""
    reference = parse(model.source, revision=model.revision, sha256=model.sha256)
    if reference.kind == "path":
        return fetch.path(reference, cache, progress)
    if reference.kind == "dummy":
        entry = cache.entry(make.dummy_key(reference.name)) or make.dummy(reference.name, cache, progress)
    else:
        entry = cache.entry(source_key(reference)) or _fetched(reference, cache, progress, offline)
    return checkpoint(entry, str(reference))


def _fetched(reference: Reference, cache: Cache, progress: Progress | None, offline: bool) -> Entry:
    if offline:
        raise ModelError(f"{reference} is not on this machine", hint=f"run `bench models fetch {reference}` online")
    return fetch.FETCHERS[reference.kind](reference, cache, progress)


def _dense(base: Checkpoint, cache: Cache, progress: Progress | None) -> Checkpoint:
    return checkpoint(make.dense(base, cache, progress), base.source)


def _packed(base: Checkpoint, cache: Cache, progress: Progress | None) -> Checkpoint:
    """The GGUF file with the tokenizer and configuration of its dense copy beside it."""
    return checkpoint(make.packed(base, make.dense(base, cache, progress), cache, progress), base.source)
