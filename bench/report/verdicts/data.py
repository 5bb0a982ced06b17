"""A gate's verdict as plain data, for machines."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from bench.judge.compare import Comparison
from bench.judge.gate import Judgement
from bench.record.documents import plain

VERSION = 1


def render(gate: Judgement) -> dict[str, Any]:
    """Everything the other renderers say, as numbers."""
    return {
        "schema_version": VERSION,
        "verdict": gate.verdict.value if gate.verdict else None,
        "exit_code": int(gate.exit_code),
        "scenario": gate.scenario,
        "run": gate.run,
        "host_class": gate.host_class,
        "advisory": gate.advisory,
        "calibration": plain(asdict(gate.calibration)) if gate.calibration else None,
        "notes": list(gate.notes),
        "comparisons": [compared(comparison) for comparison in gate.comparisons],
    }


def compared(comparison: Comparison) -> dict[str, Any]:
    """One comparison; infinite bounds and what is not known are null."""
    return {
        "baseline": plain(asdict(comparison.a)),
        "candidate": plain(asdict(comparison.b)),
        "verdict": comparison.verdict.value if comparison.verdict else None,
        "alpha": comparison.alpha,
        "refused": comparison.refused,
        "notes": list(comparison.notes),
        "metrics": [
            plain(row) | {"pairs": [{"block": pair.block, "a": pair.a, "b": pair.b} for pair in result.pairs]}
            for row, result in zip(comparison.table().to_dict("records"), comparison.results, strict=True)
        ],
    }
