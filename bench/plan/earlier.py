"""What earlier launches took, read from the runs that are on disk."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from bench.plan.budget import Measured

# Older runs say little about today's machine, and reading all of them would take longer than it helps.
NEWEST = 5


def measured(results: Path, scenario: str, digest: str) -> dict[str, Measured]:
    """Medians by variant over the newest runs of the same scenario, content and all; damaged files are passed over."""
    taken: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for manifest in sorted((results / scenario).glob("*/manifest.json"), reverse=True)[:NEWEST]:
        if _read(manifest).get("scenario_digest") != digest:
            continue
        for file in manifest.parent.glob("launches/*/launch.json"):
            launch = _read(file)
            stamps = launch.get("stamps") or {}
            begin, end = stamps.get("spawn"), stamps.get("exit")
            if launch.get("status") in ("ok", "invalid") and begin is not None and end is not None:
                size = sum(one.stat().st_size for one in file.parent.rglob("*") if one.is_file())
                taken[str(launch.get("variant"))].append(((end - begin) / 1e9, size))
    return {
        variant: Measured(
            statistics.median(seconds for seconds, _ in seen), statistics.median(size for _, size in seen), len(seen)
        )
        for variant, seen in taken.items()
    }


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
