"""Recorded traffic: when requests came, how long their prompts and answers were, and which prompts began alike.

Two forms are read. Mooncake: JSON lines with `timestamp` (ms), `input_length`, `output_length` and `hash_ids`, one for
each 512 prompt tokens; equal ids are equal tokens. Azure LLM inference: CSV with TIMESTAMP (a date), ContextTokens
and GeneratedTokens. Nothing of the traffic's text is in either.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.errors import UsageError
from bench.phrases import unread

# Prompt tokens that one entry of Mooncake's hash_ids stands for.
BLOCK_TOKENS = 512
MOONCAKE = ("timestamp", "input_length", "output_length")
AZURE = ("TIMESTAMP", "ContextTokens", "GeneratedTokens")


@dataclass(frozen=True, slots=True)
class Row:
    """One request of a trace: seconds since the trace's first one, lengths in tokens, ids of its 512-token blocks."""

    at_s: float
    prompt_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()


def read(path: Path, limit: int | None = None) -> list[Row]:
    """The first `limit` requests of a trace, in their order. UsageError names the line that is wrong, and what is."""
    rows: list[Row] = []
    first = last = None
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, seconds, row in _lines(path, file):
                if last is not None and seconds < last:
                    raise UsageError(f"{path}:{number}: earlier than the line before; sort the trace by its times")
                first, last = (seconds if first is None else first), seconds
                rows.append(Row(seconds - first, *row))
                if len(rows) == limit:
                    break
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from None
    except OSError as error:
        raise UsageError(unread(f"the trace {path}", error)) from None
    if not rows:
        raise UsageError(f"{path}: has no requests")
    return rows


def _lines(path: Path, file: Any) -> Iterator[tuple[int, float, tuple[int, int, tuple[int, ...]]]]:
    """Line number, absolute seconds, and prompt tokens, output tokens and blocks; the first line tells the form."""
    columns: list[str] | None = None
    known = False
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        head, known = not known and not line.lstrip().startswith("{"), True
        if head:
            columns = [name.strip() for name in next(csv.reader([line]))]
            if missing := [name for name in AZURE if name not in columns]:
                raise UsageError(
                    f"{where}: neither a JSON object with {', '.join(MOONCAKE)} (Mooncake) nor a CSV head with "
                    f"{', '.join(AZURE)} (Azure): lacks {', '.join(missing)}"
                )
            continue
        yield (number, *(_mooncake(where, line) if columns is None else _azure(where, columns, line)))


def _mooncake(where: str, line: str) -> tuple[float, tuple[int, int, tuple[int, ...]]]:
    try:
        content = json.loads(line)
    except ValueError as error:
        raise UsageError(f"{where}: not JSON: {error}") from None
    if not isinstance(content, dict):
        raise UsageError(f"{where}: not a JSON object")
    if missing := [name for name in MOONCAKE if name not in content]:
        raise UsageError(f"{where}: lacks {', '.join(missing)}")
    at = content["timestamp"]
    if isinstance(at, bool) or not isinstance(at, int | float) or not 0 <= at < float("inf"):
        raise UsageError(f"{where}: timestamp {at!r} is not a number of milliseconds")
    asked, given = (_tokens(where, name, content[name]) for name in MOONCAKE[1:])
    blocks = content.get("hash_ids") or []
    if not isinstance(blocks, list) or not all(type(one) is int for one in blocks):
        raise UsageError(f"{where}: hash_ids is not a list of whole numbers")
    if blocks and len(blocks) != -(-asked // BLOCK_TOKENS):
        raise UsageError(
            f"{where}: {len(blocks)} hash_ids for {asked} tokens; one for each {BLOCK_TOKENS} is wanted, "
            f"{-(-asked // BLOCK_TOKENS)} in all"
        )
    return at / 1e3, (asked, given, tuple(blocks))


def _azure(where: str, columns: list[str], line: str) -> tuple[float, tuple[int, int, tuple[int, ...]]]:
    values = next(csv.reader([line]))
    if len(values) != len(columns):
        raise UsageError(f"{where}: {len(values)} fields, the head has {len(columns)}")
    named = dict(zip(columns, (value.strip() for value in values), strict=True))
    try:
        at = datetime.fromisoformat(named["TIMESTAMP"])
    except ValueError:
        raise UsageError(f"{where}: TIMESTAMP {named['TIMESTAMP']!r} is not a date and time") from None
    seconds = (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    asked, given = (
        _tokens(where, name, int(named[name]) if named[name].isascii() and named[name].isdigit() else named[name])
        for name in AZURE[1:]
    )
    return seconds, (asked, given, ())


def _tokens(where: str, name: str, value: Any) -> int:
    if type(value) is not int or value < 1:
        raise UsageError(f"{where}: {name} {value!r} is not a number of tokens, 1 or more")
    return value
