"""The search: one run that races the candidates, one that confirms the best of them on fresh launches."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.analyse.metrics import Metric, metric
from bench.analyse.run import Run
from bench.errors import IncomparableError, UnknownName, UsageError
from bench.judge.comparable import side_of
from bench.judge.compare import Comparison, rows_of, worse
from bench.judge.decide import Decision, Interval, Verdict, decide
from bench.judge.validity import judge_folder
from bench.phrases import counted
from bench.plan.blocks import in_blocks
from bench.plan.budget import TimeLimit, expect, measured
from bench.run.conductor import Rules, Setting, carry_out
from bench.scenario.measures import margin
from bench.tune import race
from bench.tune.levers import START, Candidate, Field

if TYPE_CHECKING:
    from bench.plan.blocks import Plan
    from bench.scenario.load import Scenario
    from bench.scenario.model import Tune
    from bench.scenario.variant import Variant

# The race may spend this share of the budget; the confirmation gets the rest.
RACE_SHARE = 0.6
# One-sided error of calling a finalist better than the start, for all finalists together.
ALPHA = 0.05
RACED = (
    "A race of `bench tune`: the best of many is partly the luckiest of many. What counts is the run that confirms it."
)
CONFIRMS = "It confirms the best of a race of `bench tune`, on launches that had no part in choosing them."


@dataclass(frozen=True, slots=True)
class Confirmed:
    """A finalist against the start, on launches that had no part in choosing it.

    `gain` is its decision on log(start/candidate): `better` where that is surely above 0. `comparison` has the guards.
    """

    candidate: Candidate
    comparison: Comparison
    gain: Decision

    @property
    def better(self) -> bool:
        """Surely better than the start in the objective."""
        return self.gain.verdict is Verdict.FAIL  # decide's word for "surely above the limit"

    @property
    def loss(self) -> Interval | None:
        """The same as log(candidate/start) where less is better: positive is worse, as everywhere else."""
        found = self.gain.interval
        return found and Interval(-found.estimate, -found.high, -found.low)

    @property
    def harmless(self) -> bool:
        """No guard says FAIL or could not be judged for want of launches."""
        return self.comparison.verdict not in {Verdict.FAIL, Verdict.INVALID}

    @property
    def doubtful(self) -> bool:
        """A guard could not be decided."""
        return self.comparison.verdict is Verdict.INCONCLUSIVE


@dataclass(frozen=True, slots=True)
class Found:
    """A search from start to end. `out` says who fell out of the race and why; `confirm` is None without finalists."""

    objective: Metric
    field: Field
    race: Path
    effects: Mapping[str, Decision]
    out: Mapping[str, str]
    confirm: Path | None
    confirmed: tuple[Confirmed, ...]

    @property
    def confidence(self) -> float:
        """Level of the confirmation's two-sided intervals."""
        return 1 - 2 * ALPHA / max(1, len(self.confirmed))

    @property
    def chosen(self) -> Confirmed | None:
        """The finalist that gains most of those that are surely better and break no guard."""
        fit = [one for one in self.confirmed if one.better and one.harmless and one.gain.interval]
        return max(fit, key=lambda one: one.gain.interval.estimate, default=None)  # type: ignore[union-attr]  # kept above


def tuning(scenario: Scenario) -> Tune:
    """The scenario's `tune`; UsageError if it has none, or too few blocks for a verdict."""
    asked = scenario.model.tune
    if asked is None:
        raise UsageError(
            f"{scenario.path} does not say what may be turned",
            hint="add for example  tune: {levers: {enforce_eager: [true]}, objective: cold_ttft}",
        )
    if scenario.model.design.blocks < race.LEAST:
        raise UsageError(
            f"a search needs at least {race.LEAST} blocks; {scenario.path} has {scenario.model.design.blocks}",
            hint="raise `design: blocks:`",
        )
    return asked


def guards(scenario: Scenario, objective: Metric) -> dict[str, float]:
    """The gate's margins without the objective's own: what must not get worse by more while it gets better."""
    asked = scenario.model.gate.metrics if scenario.model.gate else {}
    return {metric(name).id: margin(text) for name, text in asked.items() if metric(name).id != objective.id}


def search(scenario: Scenario, start: Variant, setting: Setting) -> Found:
    """Race the candidates around a variant and confirm the best.

    UsageError if there is nothing to try; IncomparableError if no launch of the start counts.
    """
    asked, design = tuning(scenario), scenario.model.design
    objective = metric(asked.objective)
    limits = guards(scenario, objective)
    field = Field.of(start, asked.levers)
    racing = Race(field, objective, limits)
    plan = in_blocks([field.start.variant, *(one.variant for one in field.candidates)], design.blocks, design.seed)
    setting.progress.note(
        f"race: {START} and {_several(field.candidates)}, {_expected(scenario, plan, setting, RACE_SHARE)}"
    )
    rules = Rules(judge_folder, racing.decided, racing.fallen, _allowed(RACE_SHARE * asked.budget_minutes))
    raced = carry_out(scenario, replace(setting, rules=rules, note=RACED), plan)
    rows = Run.open(raced).per_launch
    if not side_of(rows_of(rows, START), START).ok:
        raise IncomparableError(
            f"no launch of the start, {start.id}, counts: there is nothing to compare with",
            hint=f"`bench report {raced}` says why",
        )
    effects, out = race.effects(rows, objective, field), racing.fallen(raced)
    last = race.finalists(rows, objective, field, asked.levers, out)
    if not last:
        return Found(objective, field, raced, effects, out, None, ())
    fresh = in_blocks([field.start.variant, *(one.variant for one in last)], design.blocks, design.seed + 1)
    names = " and ".join(one.id for one in last)
    setting.progress.note(
        f"confirmation: {names} against {START}, {_expected(scenario, fresh, setting, 1 - RACE_SHARE)}"
    )
    rules = Rules(judge_folder, limit=_allowed((1 - RACE_SHARE) * asked.budget_minutes))
    # The client has not changed since the race.
    confirm = carry_out(scenario, replace(setting, rules=rules, note=CONFIRMS, check_client=False), fresh)
    run = Run.open(confirm)
    confirmed = tuple(_confirmed(run, one, objective, limits, ALPHA / len(last)) for one in last)
    return Found(objective, field, raced, effects, out, confirm, confirmed)


def _several(candidates: Sequence[Candidate]) -> str:
    return f"{counted(len(candidates), 'candidate')}"


def _expected(scenario: Scenario, plan: Plan, setting: Setting, share: float) -> str:
    """How many launches a run has at most, how long they may take, and what it is allowed."""
    earlier = measured(setting.results, scenario.name, scenario.digest)
    minutes = math.ceil(expect(plan, scenario.model, earlier, scenario.base).seconds / 60)
    allowed = share * tuning(scenario).budget_minutes
    return f"at most {counted(len(plan.launches), 'launch')}, about {minutes} min of {allowed:.0f} allowed"


def _allowed(minutes: float) -> TimeLimit:
    return TimeLimit(minutes, f"this part's {minutes:g} minutes of the tuning budget")


@dataclass(frozen=True, slots=True)
class Race:
    """The race as the conductor asks about it between blocks: from what is on the disk."""

    field: Field
    objective: Metric
    guards: Mapping[str, float]

    def fallen(self, folder: Path) -> dict[str, str]:
        """Who is out, and why."""
        return race.fallen(Run.open(folder).per_launch, self.objective, self.field, self.guards)

    def decided(self, folder: Path) -> str | None:
        """Why no further block is needed."""
        left = len(self.field.candidates) - len(self.fallen(folder))
        return "every candidate has fallen out" if left == 0 else None


def _confirmed(run: Run, one: Candidate, objective: Metric, limits: Mapping[str, float], alpha: float) -> Confirmed:
    comparison = Comparison.of(run, START, one.id, margins=limits, metrics=[objective.id])
    try:
        pairs = comparison[objective.id].pairs
    except UnknownName:  # no block has both
        pairs = ()
    gain = decide({block: -loss for block, loss in worse(objective, pairs).items()}, 0.0, alpha)
    return Confirmed(one, comparison, gain)
