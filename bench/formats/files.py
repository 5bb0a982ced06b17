"""Another tool's file as its documents: JSON, JSON Lines, a list of results, or our own export of several."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.errors import RecordError


def documents(file: Path) -> list[Any]:
    """Every result in a file, at least one; RecordError says in which line it is damaged."""
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise RecordError(f"{file} does not exist") from error
    except (OSError, ValueError) as error:
        raise RecordError(f"{file} cannot be read as text: {error}") from error
    try:
        found = _unwrapped(json.loads(text))
    except ValueError as error:
        found = _lines(file, text, error)
    if not found:
        raise RecordError(f"{file} holds no result")
    return found


def _lines(file: Path, text: str, whole: ValueError) -> list[Any]:
    filled = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    found = []
    for number, line in filled:
        try:
            found.append(json.loads(line))
        except ValueError as error:
            if not found:
                raise RecordError(f"{file} cannot be read as JSON: {whole}") from error
            raise RecordError(f"{file} cannot be read as JSON Lines: line {number}: {error}") from error
    return found


def _unwrapped(document: Any) -> list[Any]:
    if isinstance(document, list):
        return document
    if isinstance(document, dict) and document and all(str(name).endswith(".json") for name in document):
        return list(document.values())
    return [document]
