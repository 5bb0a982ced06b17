"""A run judged as its scenario asks: every variant against the baseline, on the gated metrics, at the level due."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from pydantic import ValidationError

from bench.analyse.metrics import metric
from bench.errors import IncomparableError, RecordError, UsageError
from bench.judge.compare import Comparison, with_holm
from bench.judge.pairs import Side, variant_id
from bench.judge.power import level_at
from bench.scenario.measures import margin
from bench.scenario.model import Design, Gate
from bench.scenario.variant import level_text

if TYPE_CHECKING:
    from bench.analyse.run import Run


@dataclass(frozen=True, slots=True)
class Policy:
    """What a scenario's `gate` asks for. `alpha` is what all looks may spend, `level` what this one may."""

    baseline: Mapping[str, str]
    margins: Mapping[str, float]
    alpha: float
    level: float


def policy(run: Run) -> Policy:
    """The policy a run was planned with; UsageError if its scenario has no gate."""
    if not isinstance(run.scenario.get("gate"), dict):
        raise UsageError(
            f"the scenario {run.manifest.scenario!r} has no gate",
            hint="add one to the scenario, or compare two variants with `bench compare RUN --a … --b …`",
        )
    try:
        gate = Gate.model_validate(run.scenario["gate"])
        design = Design.model_validate(run.scenario.get("design") or {})
    except ValidationError as error:
        raise RecordError(f"{run.path}/manifest.json holds a scenario that cannot be read: {error}") from error
    margins = {metric(name).id: margin(text) for name, text in gate.metrics.items()}
    done = run.launches["block"].nunique() if len(run.launches) else 0
    level = level_at(done, design.blocks, gate.alpha) if design.sequential and done else gate.alpha
    return Policy(
        {name: level_text(value) for name, value in (gate.baseline.model_extra or {}).items()},
        margins,
        gate.alpha,
        level,
    )


def comparisons(run: Run, asked: Policy) -> tuple[Comparison, ...]:
    """Every other variant against the baseline; Holm's correction spans them all."""
    baseline = variant_id(run, asked.baseline)
    made = tuple(_one(run, asked, baseline, candidate) for candidate in run.variants if candidate != baseline)
    judged = iter(with_holm([result for one in made for result in one.gated], asked.level))
    return tuple(
        replace(one, results=tuple(next(judged) if result.verdict is not None else result for result in one.results))
        for one in made
    )


def _one(run: Run, asked: Policy, baseline: str, candidate: str) -> Comparison:
    try:
        return Comparison.of(run, baseline, candidate, margins=asked.margins, alpha=asked.level)
    except IncomparableError as error:
        return Comparison(Side(baseline, 0, 0, 0), Side(candidate, 0, 0, 0), (), asked.level, refused=error.message)
