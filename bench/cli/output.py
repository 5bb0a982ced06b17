"""What several commands print and read alike."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import typer


def whole() -> None:
    """Let standard output go on after a short write, which it does not by itself with PYTHONUNBUFFERED.

    A command stopped and continued (Ctrl-Z, fg) in front of a slow reader would lose part of its document.
    """
    out = sys.__stdout__
    if out is not None and sys.stdout is out and isinstance(getattr(out, "buffer", None), io.FileIO):
        sys.stdout = os.fdopen(out.fileno(), "w", 1, encoding=out.encoding, errors=out.errors, closefd=False)


def write(path: Path, text: str) -> None:
    """Write a file, or standard output for `-`; UsageError if it cannot be."""
    from bench.errors import UsageError
    from bench.phrases import unwritten

    if str(path) == "-":
        typer.echo(text)
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text if text.endswith("\n") else f"{text}\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(unwritten(path, error)) from error


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
