"""When a run may end before its last block. The conductor asks before each block; the rule reads what is on disk.

Two reasons count, and only where the scenario asks for them: `design.sequential` (a planned look finds every gated
metric decided, at a level that pays for having looked) and `design.precision` (every interval is narrow enough, which
does not bend the error rate as stopping on significance would). The budget in minutes is the conductor's own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from bench.analyse.metrics import METRICS
from bench.analyse.run import Run
from bench.judge.compare import Comparison
from bench.judge.decide import Verdict, looks_until, t_interval
from bench.judge.gate import comparisons, policy
from bench.phrases import counted

if TYPE_CHECKING:
    from bench.scenario.load import Scenario

Rule = Callable[[Path], str | None]
# Below this many blocks an interval's width is itself too uncertain to stop on.
FLOOR = 5
# What precision is asked of where no gate says it: one metric per measured family.
MEASURED = {
    "ttft": "ttft.p50",
    "tpot": "tpot.p50",
    "itl": "itl.p50",
    "e2el": "e2el.p50",
    "throughput": "output_throughput",
    "startup": "startup",
    "memory": "memory.peak",
    "energy": "energy.per_token",
}


def stop_rule(scenario: Scenario) -> Rule | None:
    """The rule that a scenario's design asks for; None if all its blocks are to be run."""
    design, gate = scenario.model.design, scenario.model.gate
    sequential = design.sequential and gate is not None
    if not sequential and design.precision is None:
        return None

    def rule(folder: Path) -> str | None:
        run = Run.open(folder)
        blocks = complete_blocks(run.launches)
        if sequential and blocks in looks_until(design.blocks) and (reason := decided(run, blocks)):
            return reason
        if design.precision is not None and blocks >= FLOOR:
            metrics = list(gate.metrics) if gate else [MEASURED[family] for family in scenario.model.measure]
            return precise(run.per_launch, metrics, design.precision)
        return None

    return rule


def complete_blocks(launches: pd.DataFrame) -> int:
    """Blocks that have begun; asked between blocks, all of them are over."""
    return int(launches["block"].nunique()) if len(launches) else 0


def decided(run: Run, blocks: int) -> str | None:
    """Why this look ends the run: everything passed, or something failed."""
    return verdict_reached(comparisons(run, policy(run)), blocks)


def verdict_reached(comparisons: Iterable[Comparison], blocks: int) -> str | None:
    """A FAIL anywhere, or PASS everywhere, in words."""
    results = [(comparison, result) for comparison in comparisons for result in comparison.gated]
    for comparison, result in results:
        if result.verdict is Verdict.FAIL:
            worse = f"{comparison.b.label} is worse in {result.metric.title} ({result.reason})"
            return f"after {counted(blocks, 'block')} {worse}"
    if results and all(result.verdict is Verdict.PASS for _, result in results):
        return f"after {counted(blocks, 'block')} every gated metric has passed"
    return None


def precise(launches: pd.DataFrame, metrics: Iterable[str], target: float) -> str | None:
    """Why the run may end: the half-width of every metric's 90 % interval, relative, is below the target."""
    widest = 0.0
    for name in metrics:
        column = name if name in METRICS else f"{name}.p50"
        for _, rows in launches[launches["status"] == "ok"].groupby("variant"):
            if column not in rows or rows[column].isna().all():
                # Not measured on this machine: more blocks would not bring it.
                continue
            half = half_width(rows[column].to_numpy(dtype=float))
            if half is None or half >= target:
                return None
            widest = max(widest, half)
    return f"every interval is within ±{widest:.1%}, as asked (±{target:.1%})" if widest else None


def half_width(values: np.ndarray) -> float | None:
    """Relative half-width of the 90 % t interval of the mean log value over launches; None below two launches."""
    kept = values[np.isfinite(values) & (values > 0)]
    if len(kept) < 2:
        return None
    logs = np.log(kept)
    interval = t_interval(float(logs.mean()), float(logs.std(ddof=1)), len(logs), 0.05)
    return math.expm1(interval.high - interval.estimate)
