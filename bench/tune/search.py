"""The search: one run that races the candidates, one that confirms the best of them on fresh launches."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.analyse.metrics import Metric, metric
from bench.analyse.run import Run
from bench.errors import IncomparableError, UnknownName, UsageError
from bench.judge.comparable import side_of
from bench.judge.compare import Comparison, rows_of, worse
from bench.judge.decide import Decision, Interval, Verdict, decide
from bench.judge.validity import judge_folder
from bench.phrases import counted
from bench.plan.blocks import in_blocks
from bench.plan.budget import expect, measured
from bench.run.conductor import Rules, Setting, carry_out
from bench.scenario.measures import margin
from bench.tune import race
from bench.tune.levers import START, Candidate, Field, Levers
from bench.tune.purse import Purse
from bench.tune.screening import STOPPED, Screening

if TYPE_CHECKING:
    from bench.plan.blocks import Plan
    from bench.scenario.load import Scenario
    from bench.scenario.model import Tune
    from bench.scenario.variant import Variant

Clock = Callable[[], float]

# The race or the screening may spend this share of the budget; the confirmation gets the rest.
RACE_SHARE = 0.6
# So that no block of a screening has the prompts of a race, a confirmation or a plain run.
FIRST_SEED = 100
# One-sided error of calling a finalist better than the start, for all finalists together.
ALPHA = 0.05
RACED = (
    "A race of `bench tune`: the best of many is partly the luckiest of many. What counts is the run that confirms it."
)
SCREENED = (
    "A block of the screening of `bench tune`: which settings are worth a second look. What counts is the run that "
    "confirms the best of them."
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
    """A search from start to end. `out` says who fell out and why; `confirm` is None without finalists.

    `chosen_by` are the runs that chose the finalists: one race, or the blocks of a screening.
    """

    objective: Metric
    field: Field
    chosen_by: tuple[Path, ...]
    effects: Mapping[str, Decision]
    out: Mapping[str, str]
    confirm: Path | None
    confirmed: tuple[Confirmed, ...]

    @property
    def tried(self) -> tuple[Candidate, ...]:
        """Those that were launched."""
        return tuple(one for one in self.field.candidates if one.id in self.effects or one.id in self.out)

    @property
    def runs(self) -> tuple[Path, ...]:
        """All runs of the search, in order of time."""
        return (*self.chosen_by, self.confirm) if self.confirm else self.chosen_by

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


def search(scenario: Scenario, start: Variant, setting: Setting, clock: Clock = time.monotonic) -> Found:
    """Find the best settings of the levers around a variant, by a race or a screening, and confirm them.

    UsageError if there is nothing to try, or no time for a launch; IncomparableError if no launch of the start counts.
    """
    asked = tuning(scenario)
    objective = metric(asked.objective)
    limits = guards(scenario, objective)
    field = Levers.of(scenario.model, start).grid()
    purse = Purse(asked.budget_minutes, clock)
    session = _Session(scenario, setting, purse, objective, limits, field)
    found = session.raced() if field.every else session.screened()
    return session.confirmed(found)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """What a race or a screening came to: its runs, who fell out and why, and who goes on."""

    runs: tuple[Path, ...]
    effects: Mapping[str, Decision]
    out: Mapping[str, str]
    last: tuple[Candidate, ...]


@dataclass(frozen=True, slots=True)
class _Session:
    """A search under way."""

    scenario: Scenario
    setting: Setting
    purse: Purse
    objective: Metric
    limits: Mapping[str, float]
    field: Field

    def raced(self) -> _Chosen:
        """Everybody against everybody, in blocks, until who is surely behind has fallen out."""
        design, field = self.scenario.model.design, self.field
        racing = Race(field, self.objective, self.limits)
        screening = Screening(field.start, field.candidates, self.objective, self.limits)

        def patience(folder: Path, name: str) -> float | None:
            return None if name == START else screening.bound(_rows(folder))

        plan = in_blocks([field.start.variant, *(one.variant for one in field.candidates)], design.blocks, design.seed)
        self._say("race", f"{START} and {_several(field.candidates)}", plan, RACE_SHARE)
        folder = self._run(plan, RACED, RACE_SHARE, patience=patience, stop=racing.decided, retire=racing.fallen)
        rows = Run.open(folder).per_launch
        self._require(rows, folder)
        out = racing.fallen(folder)
        last = race.finalists(rows, self.objective, field, out)
        return _Chosen((folder,), race.effects(rows, self.objective, field), out, last)

    def screened(self) -> _Chosen:
        """Blocks that halve in width, each a run of its own, as its variants follow from those before."""
        screening = Screening(self.field.start, self.field.candidates, self.objective, self.limits)
        rows = pd.DataFrame()
        folders: list[Path] = []
        seed = self.scenario.model.design.seed
        for number, width in enumerate(screening.widths()):
            names = screening.chosen(rows, width)
            plan = in_blocks([one.variant for one in names], 1, seed + FIRST_SEED + number)
            if number == 0:
                # Without it nothing could be cut short, nor compared.
                plan = _first(plan, START)
            several = f"{_several(names)} of {len(self.field.candidates) + 1}"
            self._say(f"screening, block {number + 1}", several, plan, RACE_SHARE)
            before = rows

            def patience(folder: Path, name: str, before: pd.DataFrame = before, number: int = number) -> float | None:
                return None if name == START else screening.bound(_together(before, _rows(folder, number)))

            folder = self._run(plan, SCREENED, RACE_SHARE, patience=patience, first=not folders)
            folders.append(folder)
            rows = _together(rows, _rows(folder, number))
            if number == 0:
                self._require(rows, folder)
            if self.purse.closed:
                break
        out = {
            str(row["variant"]): str(row["reason"])
            for row in rows[~rows["status"].isin(["ok", "invalid"])].to_dict("records")
        }
        return _Chosen(tuple(folders), _against(rows, self.objective), out, screening.finalists(rows))

    def confirmed(self, chosen: _Chosen) -> Found:
        """The best of them against the start, on fresh launches."""
        design, last = self.scenario.model.design, chosen.last
        found = Found(self.objective, self.field, chosen.runs, chosen.effects, chosen.out, None, ())
        if not last:
            return found
        fresh = in_blocks([self.field.start.variant, *(one.variant for one in last)], design.blocks, design.seed + 1)
        self._say("confirmation", f"{' and '.join(one.id for one in last)} against {START}", fresh, 1.0)
        self.purse.open(1.0)
        # The client has not changed since the race.
        confirm = self._run(fresh, CONFIRMS, 1.0, first=False)
        run = Run.open(confirm)
        alpha = ALPHA / len(last)
        confirmed = tuple(_confirmed(run, one, self.objective, self.limits, alpha) for one in last)
        return replace(found, confirm=confirm, confirmed=confirmed)

    def _run(self, plan: Plan, note: str, share: float, *, first: bool = True, **rules: Any) -> Path:
        guess = _guessed(self.scenario, plan, self.setting)
        self.purse.open(share, guess)
        if first and (refused := self.purse.fits(plan.launches[0].variant)):
            raise UsageError(f"not one launch is begun: {refused}", hint="raise `tune: budget_minutes:`")
        handed = Rules(judge_folder, fits=self.purse.fits, **rules)
        setting = replace(self.setting, rules=handed, note=note, check_client=self.setting.check_client and first)
        return carry_out(self.scenario, setting, plan)

    def _say(self, part: str, who: str, plan: Plan, share: float) -> None:
        seconds = sum(_guessed(self.scenario, plan, self.setting)[launch.variant] for launch in plan.launches)
        allowed = self.purse.left(share) / 60
        self.setting.progress.note(
            f"{part}: {who}, at most {counted(len(plan.launches), 'launch')}, about {math.ceil(seconds / 60)} min of "
            f"{allowed:.0f} left"
        )

    def _require(self, rows: pd.DataFrame, folder: Path) -> None:
        if not side_of(rows_of(rows, START), START).ok:
            raise IncomparableError(
                f"no launch of the start, {self.field.start.variant.id}, counts: there is nothing to compare with",
                hint=f"`bench report {folder}` says why",
            )


def _first(plan: Plan, name: str) -> Plan:
    """The plan of one block with this variant before all others."""
    ordered = sorted(plan.launches, key=lambda one: (one.variant != name, one.position))
    launches = tuple(replace(one, position=position) for position, one in enumerate(ordered))
    return replace(plan, launches=launches)


def _rows(folder: Path, block: int | None = None) -> pd.DataFrame:
    """A run's launches, all in this block if one is given, with the seconds after which one was stopped."""
    run = Run.open(folder)
    if not run.all:
        return pd.DataFrame()
    rows, stamps = run.per_launch, run.launches
    rows = rows if block is None else rows.assign(block=block)
    stopped = stamps["exit_s"].fillna(stamps["stop_s"]).astype("float64")
    return rows.assign(above=stopped.where(rows["status"] == STOPPED).to_numpy())


def _together(before: pd.DataFrame, rows: pd.DataFrame) -> pd.DataFrame:
    """All launches, those of later blocks below."""
    parts = [part for part in (before, rows) if len(part)]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame()


def _against(rows: pd.DataFrame, objective: Metric) -> dict[str, Decision]:
    """Each setting that was launched against the start, block by block; the start was not in every block."""
    names = [str(name) for name in rows.loc[rows["status"] == "ok", "variant"].unique() if name != START]
    found = {name: race.versus(rows, objective, START, name) for name in names}
    return {name: decision for name, decision in found.items() if decision.interval is not None}


def _guessed(scenario: Scenario, plan: Plan, setting: Setting) -> dict[str, float]:
    """Seconds that a launch of each variant may take, as earlier ones did or as a guess."""
    earlier = measured(setting.results, scenario.name, scenario.digest)
    return {name: cost.seconds for name, cost in expect(plan, scenario.model, earlier, scenario.base).costs.items()}


def _several(candidates: Sequence[Candidate]) -> str:
    return f"{counted(len(candidates), 'candidate')}"


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
