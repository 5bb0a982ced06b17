"""github-action-benchmark: `customSmallerIsBetter` and `customBiggerIsBetter`, a file each."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median, stdev
from typing import Any

from bench.analyse.run import Run
from bench.formats.per_launch import PerLaunch, per_launch
from bench.phrases import counted


def export(run: Run) -> Mapping[str, Any]:
    """Medians over launches, with their standard deviation as the range."""
    made: dict[str, list[dict[str, Any]]] = {}
    for one in per_launch(run):
        kind = "bigger" if one.metric.direction == "higher" else "smaller"
        made.setdefault(f"{run.manifest.scenario}-{kind}-is-better.json", []).append(_entry(one))
    return made


def _entry(one: PerLaunch) -> dict[str, Any]:
    spread = f"± {stdev(one.values):.3g}" if len(one.values) > 1 else None
    entry = {"name": one.name, "unit": one.metric.unit, "value": median(one.values), "range": spread}
    return {key: value for key, value in entry.items() if value is not None} | {
        "extra": counted(len(one.values), "launch")
    }
