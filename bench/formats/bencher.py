"""Bencher's metric format: benchmark → measure → value with its lowest and highest launch."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

from bench.analyse.run import Run
from bench.formats.per_launch import per_launch


def export(run: Run) -> Mapping[str, Any]:
    """One file for the whole run."""
    document: dict[str, dict[str, Any]] = {}
    for one in per_launch(run):
        measures = document.setdefault(f"{run.manifest.scenario}/{one.variant}", {})
        measures[one.metric.id.replace(".", "-").replace("_", "-")] = {
            "value": median(one.values),
            "lower_value": min(one.values),
            "upper_value": max(one.values),
        }
    return {f"{run.manifest.scenario}-bmf.json": document}
