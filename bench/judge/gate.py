"""From comparisons to one verdict and one exit code.

    exit 0   PASS, or a FAIL or INCONCLUSIVE that is advice only (ADVISORY in its first line)
         1   FAIL: a regression
         2   INCONCLUSIVE: the data do not say
         3   INVALID: the measurement is not fit to judge by, or there is nothing it may be held against

A gate is advice only until an A/A study (`bench aa`) stands behind this very state of this machine; --enforce insists.
An invalid measurement is never advice: it says nothing of ADVISORY and ends with 3 in either case.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from bench.analyse import answers
from bench.analyse.crowd import crowd
from bench.analyse.divergence import Divergence, diverge
from bench.analyse.metrics import metric
from bench.errors import Exit, IncomparableError, RecordError, UsageError
from bench.home import BASELINES
from bench.judge import aa, baseline, likeness, predict
from bench.judge.comparable import Side, variant_id
from bench.judge.compare import Comparison, Terms, overall, with_holm
from bench.judge.decide import Verdict, level_at
from bench.judge.trade import reference
from bench.phrases import counted
from bench.scenario.measures import margin
from bench.scenario.model import Design, Gate
from bench.scenario.variant import level_text

if TYPE_CHECKING:
    from bench.analyse.run import Run

EXITS = {
    Verdict.PASS: Exit.PASS,
    Verdict.FAIL: Exit.REGRESSION,
    Verdict.INCONCLUSIVE: Exit.INCONCLUSIVE,
    Verdict.INVALID: Exit.INVALID,
}
WORDS = {
    Verdict.PASS: "no regression",
    Verdict.FAIL: "a regression",
    Verdict.INCONCLUSIVE: "the data do not say",
    Verdict.INVALID: "not fit to judge by",
}


@dataclass(frozen=True, slots=True)
class Judgement:
    """A run's verdict, with every comparison it rests on. `doubt` is what its word lacks to be binding."""

    scenario: str
    run: str
    host_class: str
    comparisons: tuple[Comparison, ...]
    calibration: aa.AaRecord | None = None
    doubt: str | None = None
    notes: tuple[str, ...] = ()
    quality: tuple[Limit, ...] = ()

    @property
    def verdict(self) -> Verdict | None:
        """The worst verdict among the comparisons and quality limits; None if all of them are reports only."""
        compared = [comparison.verdict for comparison in self.comparisons if comparison.verdict is not None]
        return overall([*compared, *(limit.verdict for limit in self.quality)])

    @property
    def advisory(self) -> str | None:
        """Why its word does not bind; None if it does, as that of an invalid measurement always does."""
        return None if self.verdict in {None, Verdict.INVALID} else self.doubt

    @property
    def word(self) -> str:
        """The verdict as its first line has it: `FAIL`, `ADVISORY FAIL`, `NO VERDICT`."""
        if self.verdict is None:
            return "NO VERDICT"
        return f"ADVISORY {self.verdict}" if self.advisory else str(self.verdict)

    @property
    def exit_code(self) -> Exit:
        """What the process ends with."""
        if self.verdict is None:
            return Exit.INVALID
        return Exit.PASS if self.advisory else EXITS[self.verdict]

    @property
    def headline(self) -> str:
        """The verdict in words, and whether it is advice."""
        if self.verdict is None:
            return f"{self.word}: a report on {self.scenario} on {self.host_class}"
        return f"{self.word}: {WORDS[self.verdict]} in {self.scenario} on {self.host_class}"

    @property
    def promise(self) -> str:
        """How often this gate is wrong, as far as that was measured."""
        if self.calibration is None:
            return "false alarms on this machine: not measured"
        record = self.calibration
        failed = aa.Rate(record.fails, record.sessions)
        return (
            f"false alarms on this machine: {failed} A/A sessions of {counted(record.blocks, 'block')}, {record.taken}"
        )


def judge(run: Run, *, baselines: Path = BASELINES, enforce: bool = False) -> Judgement:
    """Judge a run as its scenario's gate asks; UsageError if it has none."""
    asked = policy(run)
    compared = comparisons(run, asked)
    if not compared:
        raise UsageError(
            f"{run.manifest.scenario} has only the baseline in it: nothing to judge",
            hint="add a variant, or judge against stored sessions with `bench gate RUN --stored`",
        )
    record = aa.find(baselines, run.manifest.fingerprint)
    quality = limits(run)
    notes = [*run.manifest.notes, *(f"quality of {one.variant}: {one.verdict}: {one.reason}" for one in quality)]
    notes += crowd_notes(run)
    if run.manifest.state != "complete":
        notes.append(f"the run is not complete ({run.manifest.state}); `bench run --resume` goes on with it")
    return Judgement(
        run.manifest.scenario,
        run.manifest.run_id,
        likeness.host_class(run.manifest.fingerprint),
        compared,
        record,
        None if enforce else doubt(record),
        tuple(notes),
        quality,
    )


def judge_stored(
    run: Run, *, variant: str | None = None, baselines: Path = BASELINES, enforce: bool = False
) -> Judgement:
    """Judge a run's variant against its stored sessions; RecordError if there are none."""
    names = [variant] if variant else [name for name in run.variants if _stored(baselines, run, name)]
    if not names:
        raise RecordError(
            f"no baseline of a variant of {run.manifest.scenario} in {baselines}",
            hint="`bench baseline add RUN` makes one; ten sessions are needed for a verdict",
        )
    compared = tuple(predict.against(run, baseline.find(baselines, run, name)) for name in names)
    record = aa.find(baselines, run.manifest.fingerprint)
    return Judgement(
        run.manifest.scenario,
        run.manifest.run_id,
        likeness.host_class(run.manifest.fingerprint),
        compared,
        record,
        None if enforce else doubt(record),
        crowd_notes(run),
    )


def crowd_notes(run: Run) -> tuple[str, ...]:
    """What must be said of other programs on the processors before any verdict."""
    found = crowd(launch.record for launch in run.all)
    contended = f"contended: {found.contended}" if found.contended else None
    return tuple(words for words in (contended, found.accompanied, found.unknown) if words)


def _stored(folder: Path, run: Run, name: str) -> bool:
    return any(folder.glob(f"*/{run.manifest.scenario}--{name}.json"))


def doubt(record: aa.AaRecord | None) -> str | None:
    """Why a gate is advice only."""
    if record is None:
        return "no A/A study of this machine in this state; `bench aa SCENARIO` makes one, --enforce insists"
    return f"{record.doubt}; --enforce insists" if record.doubt else None


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
        return Comparison.on(Terms(asked.margins, alpha=asked.level), run, baseline, candidate)
    except IncomparableError as error:
        return Comparison(Side(baseline, 0, 0, 0), Side(candidate, 0, 0, 0), (), asked.level, refused=error.message)


@dataclass(frozen=True, slots=True)
class Limit:
    """One variant's divergence against the limit, nats per token."""

    variant: str
    verdict: Verdict
    reason: str


def limits(run: Run) -> tuple[Limit, ...]:
    """Every variant against the scenario's `max_kl`; empty if there is none."""
    asked = run.scenario.get("quality")
    most = asked.get("max_kl") if isinstance(asked, dict) else None
    if most is None:
        return ()
    against = reference(run)
    theirs = answers.of_variant(run, against)
    others = [variant for variant in run.variants if variant != against]
    return tuple(_limit(diverge(theirs, answers.of_variant(run, variant)), float(most)) for variant in others)


def _limit(quality: Divergence, most: float) -> Limit:
    """PASS if the interval's end is within the limit, FAIL if its beginning is beyond; a lower bound cannot pass."""
    kl = quality.kl
    if kl.value is None:
        return Limit(quality.variant, Verdict.INVALID, f"no divergence: {kl.reason}")
    low, high = (kl.low, kl.high) if kl.low is not None and kl.high is not None else (None, None)
    bounded = quality.kl_kind == "lower bound"
    span = "" if low is None else f" ({low:.4f} … {high:.4f})"
    said = f"KL {'at least ' if bounded else ''}{kl.value:.4f}{span} nats a token; {most:g} is allowed"
    if low is None or high is None:
        return Limit(quality.variant, Verdict.INCONCLUSIVE, f"{said}; one document carries no interval")
    if low > most:
        return Limit(quality.variant, Verdict.FAIL, said)
    if bounded:
        return Limit(quality.variant, Verdict.INCONCLUSIVE, f"{said}; a lower bound cannot pass a limit")
    return Limit(quality.variant, Verdict.PASS if high <= most else Verdict.INCONCLUSIVE, said)
