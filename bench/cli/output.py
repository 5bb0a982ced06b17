"""What several commands print and read alike."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer


def write(path: Path, text: str) -> None:
    """Write a file, or standard output for `-`; UsageError if it cannot be."""
    from bench.errors import UsageError

    if str(path) == "-":
        typer.echo(text)
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text if text.endswith("\n") else f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error


def as_json(value: object) -> str:
    """JSON as every command prints it."""
    import json

    return json.dumps(value, ensure_ascii=False, indent=1, allow_nan=False)


def print_json(value: object) -> None:
    """Print JSON."""
    typer.echo(as_json(value))


def margins(given: Sequence[str]) -> dict[str, float]:
    """`metric=5%` options as shares; UsageError for anything else."""
    from bench.errors import UsageError
    from bench.scenario.measures import margin

    found = {}
    for one in given:
        name, equals, text = one.partition("=")
        if not equals:
            raise UsageError(f"--margin {one}: write metric=percentage, for example ttft.p50=5%")
        try:
            found[name] = margin(text)
        except ValueError as error:
            raise UsageError(f"--margin {one}: {error}") from error
    return found
