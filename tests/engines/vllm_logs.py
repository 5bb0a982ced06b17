"""Reads the start-up logs under tests/fixtures/vllm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench.engines.engine import LaunchTrace, Span
from bench.record.engine_log import LogLine

FOLDER = Path(__file__).parents[1] / "fixtures" / "vllm"
REAL = sorted(path.stem for path in FOLDER.glob("0.32.0-*.log"))
WRITTEN = sorted(path.stem for path in FOLDER.glob("*.log") if not path.stem.startswith("0.32.0-"))


def about(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return found


def lines(name: str) -> list[LogLine]:
    rows = (line.split("\t", 1) for line in (FOLDER / f"{name}.log").read_text().splitlines())
    return [LogLine(round(float(at) * 1e9), "stdout", text) for at, text in rows]


def trace(name: str, *, spans: bool = True, log: list[LogLine] | None = None) -> LaunchTrace:
    known = about(name)
    stamps = {"warmup_end": known["stamps"].get("ready"), **known["stamps"]}
    sent = [Span(**span) for span in known.get("spans", [])] if spans else []
    return LaunchTrace(stamps, lines(name) if log is None else log, spans=sent)
