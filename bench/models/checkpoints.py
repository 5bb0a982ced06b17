"""From a model's source, as a scenario writes it, to a checkpoint here, in the form and quantization asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bench.engines.engine import Checkpoint
from bench.errors import ModelError
from bench.home import Progress
from bench.models import convert, fetch, make, packed
from bench.models.cache import Cache, Entry, source_key
from bench.models.contents import is_weights, vocab_size
from bench.phrases import among
from bench.scenario.model import Model
from bench.scenario.sources import REMOTE, Reference, parse

# Quantizations that are the engine's flag over one and the same checkpoint.
DENSE = ("fp32", "fp16", "bf16")


def resolve(
    model: Model,
    quantization: str,
    *,
    form: str = "safetensors",
    cache: Cache | None = None,
    progress: Progress | None = None,
    offline: bool = False,
) -> Checkpoint:
    """The checkpoint to serve; fetched, unpacked or converted first where need be.

    `form` is what the engine loads: safetensors, or gguf (`engines.base.form`), in which case nothing is unpacked.
    `offline` forbids the network, not the conversion of what is here. ModelError says what is missing and which
    command makes it.
    """
    if model.source == REMOTE:
        return Checkpoint(None, REMOTE, None, quantization, "remote")
    cache = cache or Cache()
    ready_made = model.checkpoints.get(quantization)  # type: ignore[call-overload]  # a plain str outside the literal
    if ready_made:
        base = _base(Model(source=ready_made), cache, progress, offline)
        found = _gguf(base, quantization, cache, progress, as_published=True) if form == "gguf" else base
        return replace(found, quantization=quantization)
    base = _base(model, cache, progress, offline)
    if form == "gguf":
        return replace(_gguf(base, quantization, cache, progress), quantization=quantization)
    if quantization in convert.QUANTIZED:
        raise ModelError(
            f"{quantization} is a type of GGUF file, which this engine does not load",
            hint="serve it with llama-cpp or ollama, or leave the cell out with `matrix: exclude:`",
        )
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


def _gguf(
    base: Checkpoint, quantization: str, cache: Cache, progress: Progress | None, *, as_published: bool = False
) -> Checkpoint:
    """One GGUF file: the published one where it is of the type asked for, else one made here."""
    if base.format == "gguf" and (as_published or packed.is_of(base, quantization)):
        return packed.described(base, cache)
    dense = _dense(base, cache, progress) if base.format == "gguf" else base
    if quantization in convert.DENSE:
        return _beside(convert.dense(dense, quantization, cache, progress), dense)
    if quantization in convert.QUANTIZED:
        whole = convert.dense(dense, "bf16", cache, progress)
        return _beside(convert.quantized(dense, whole, quantization, cache, progress), dense)
    known = (*convert.DENSE, "gguf-q4", *convert.QUANTIZED)
    raise ModelError(
        f"there is no GGUF file of {base.source} as {quantization}: {among(known, quantization)}",
        hint=f'name one in the scenario: `checkpoints: {{{quantization}: "path:model.gguf"}}`',
    )


def _beside(entry: Entry, dense: Checkpoint) -> Checkpoint:
    """A GGUF file made from a dense checkpoint, whose tokenizer serves both."""
    made = checkpoint(entry, dense.source)
    return replace(made, side=dense.path, vocab_size=dense.vocab_size, random_weights=dense.random_weights)


def _packed(base: Checkpoint, cache: Cache, progress: Progress | None) -> Checkpoint:
    """The GGUF file with the tokenizer and configuration of its dense copy beside it."""
    return checkpoint(make.packed(base, make.dense(base, cache, progress), cache, progress), base.source)
