"""The race: who falls out after a block, and who goes on to the confirmation.

A candidate is judged by its launches beside others of the same blocks, as `bench compare` does. To fall out it must be
surely behind: at ALPHA one-sided, without correction, for a good one lost by chance costs an opportunity and no false
claim. What is claimed in the end rests on the confirmation alone: the winner of many is partly the luckiest of many.
"""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from bench.analyse.metrics import Metric
from bench.judge.comparable import pairs_of, side_of
from bench.judge.compare import Terms, compare, rows_of, worse
from bench.judge.decide import Decision, Verdict, decide
from bench.tune.levers import START, Candidate, Field

ALPHA = 0.1
# Fewer blocks than this leave no noise to judge by; a candidate that never starts is out after two.
LEAST = 3
PATIENCE = 2
FINALISTS = 2


def effects(rows: pd.DataFrame, objective: Metric, field: Field) -> dict[str, Decision]:
    """Each candidate against the start, log units, positive is worse; those with at least one common block."""
    return {
        one.id: decision
        for one in field.candidates
        if (decision := versus(rows, objective, START, one.id)).interval is not None
    }


def versus(rows: pd.DataFrame, objective: Metric, a: str, b: str, alpha: float = 0.05) -> Decision:
    """Variant b against a over their common blocks; `Verdict.FAIL` says that b is surely worse."""
    pairs, _ = pairs_of(objective, rows_of(rows, a), rows_of(rows, b))
    return decide(worse(objective, pairs), 0.0, alpha)


def fallen(
    rows: pd.DataFrame, objective: Metric, field: Field, guards: Mapping[str, float] | None = None
) -> dict[str, str]:
    """Who is out of the race, and why. `guards` are metrics that must not get worse than the start's by a margin."""
    out: dict[str, str] = {}
    blocks = rows["block"].nunique() if len(rows) else 0
    stopped = rows[rows["status"] == "stopped"].drop_duplicates("variant").to_dict("records") if len(rows) else []
    out |= {str(row["variant"]): str(row["reason"]) for row in stopped}
    for one in field.candidates:
        if one.id in out:
            continue
        side = side_of(rows_of(rows, one.id), one.id)
        if not side.ok and blocks >= PATIENCE:
            out[one.id] = (*side.failed, *side.invalid, "it was never launched")[0]
    if blocks < LEAST:
        return out
    means = {name: decision.interval.estimate for name, decision in effects(rows, objective, field).items()}  # type: ignore[union-attr]  # those without are left out
    for one in field.candidates:
        if one.id in out or one.id not in means:
            continue
        rivals = {START: 0.0} | {name: mean for name, mean in means.items() if name != one.id}
        leader = min(rivals, key=lambda name: rivals[name])
        if versus(rows, objective, leader, one.id, ALPHA).verdict is Verdict.FAIL:
            out[one.id] = f"slower than {leader}" if objective.direction != "higher" else f"below {leader}"
        elif breach := _breach(rows, one.id, guards or {}):
            out[one.id] = breach
    return out


def finalists(rows: pd.DataFrame, objective: Metric, field: Field, out: Mapping[str, str]) -> tuple[Candidate, ...]:
    """Who goes on: the best of the race, if they looked better than the start at all."""
    left = [one for one in field.candidates if one.id not in out]
    seen = effects(rows, objective, field)
    means = {one.id: interval.estimate for one in left if one.id in seen and (interval := seen[one.id].interval)}
    ranked = sorted((one for one in left if means.get(one.id, 0.0) < 0.0), key=lambda one: means[one.id])
    return tuple(ranked[:FINALISTS])


def _breach(rows: pd.DataFrame, name: str, guards: Mapping[str, float]) -> str | None:
    """Which guard a candidate surely breaks."""
    compared = compare(rows_of(rows, START), rows_of(rows, name), Terms(guards, metrics=()))
    failed = next((result for result in compared.gated if result.verdict is Verdict.FAIL), None)
    return f"{failed.metric.title} {failed.reason}" if failed else None
