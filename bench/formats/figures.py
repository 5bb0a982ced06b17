"""What the readers of other tools' files share: a file's documents, and figures that are figures."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.errors import RecordError

Row = dict[str, Any]
STATISTICS = ("mean", "p50", "p90", "p95", "p99")


def figure(value: Any, where: str) -> float | None:
    """A number of another tool's; None where it has none. RecordError if it is no finite number."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RecordError(f"{where} is {value!r}, which is no number")
    if not math.isfinite(value):
        raise RecordError(
            f"{where} is {value}, which is no figure",
            hint="the tool divided by nothing there; take the key out of the file to read the others",
        )
    return float(value)


def times(metric: str, found: Mapping[str, tuple[str, Any]], scale: float = 1.0) -> Iterator[Row]:
    """The statistics of one time in ms; `found` has where each was read and its value, `scale` is their unit in ms.

    Tools write zeros where nothing was measured: a time whose every statistic is zero is none.
    """
    values = {statistic: figure(value, where) for statistic, (where, value) in found.items()}
    if any(values.values()):
        for statistic, value in values.items():
            if value is not None:
                yield {"metric": f"{metric}.{statistic}", "unit": "ms", "value": scale * value}


def rate(metric: str, value: Any, where: str) -> Iterator[Row]:
    """A rate per second, if it is there."""
    if (found := figure(value, where)) is not None:
        yield {"metric": metric, "unit": "/s", "value": found}


def documents(file: Path) -> list[Any]:
    """Every result in a file, at least one: JSON, JSON Lines, a list of results, or our own export of several.

    RecordError says in which line it is damaged.
    """
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
