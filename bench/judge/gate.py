"""From comparisons to one verdict and one exit code.

    exit 0   PASS, or any verdict that is advice only
         1   FAIL: a regression
         2   INCONCLUSIVE: the data do not say
         3   INVALID: the measurement is not fit to judge by, or there is nothing it may be held against

A gate is advice only until an A/A study (`bench aa`) stands behind this very state of this machine; --enforce insists.
An invalid measurement is never advice: exit 3 in either case.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import Exit, RecordError, UsageError
from bench.judge import aa, baseline, likeness, policy, predict
from bench.judge.compare import Comparison, overall
from bench.judge.decide import Verdict
from bench.judge.limit import Limit, limits

if TYPE_CHECKING:
    from bench.analyse.run import Run

BASELINES = Path("results/baselines")
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
class Gate:
    """A run's verdict, with every comparison it rests on. `advisory` says why its word does not bind, if so."""

    scenario: str
    run: str
    host_class: str
    comparisons: tuple[Comparison, ...]
    calibration: aa.AaRecord | None = None
    advisory: str | None = None
    notes: tuple[str, ...] = ()
    quality: tuple[Limit, ...] = ()

    @property
    def verdict(self) -> Verdict | None:
        """The worst verdict among the comparisons and quality limits; None if all of them are reports only."""
        compared = [comparison.verdict for comparison in self.comparisons if comparison.verdict is not None]
        return overall([*compared, *(limit.verdict for limit in self.quality)])

    @property
    def exit_code(self) -> Exit:
        """What the process ends with."""
        if self.verdict is None:
            return Exit.INVALID
        if self.advisory and self.verdict is not Verdict.INVALID:
            return Exit.PASS
        return EXITS[self.verdict]

    @property
    def headline(self) -> str:
        """The verdict in words."""
        if self.verdict is None:
            return f"NO VERDICT: a report on {self.scenario} on {self.host_class}"
        return f"{self.verdict}: {WORDS[self.verdict]} in {self.scenario} on {self.host_class}"

    @property
    def promise(self) -> str:
        """How often this gate is wrong, as far as that was measured."""
        if self.calibration is None:
            return "false alarms on this machine: not measured"
        record = self.calibration
        failed = aa.Rate(record.fails, record.sessions)
        return f"false alarms on this machine: {failed} A/A sessions of {record.blocks} blocks, {record.taken}"


def judge(run: Run, *, baselines: Path = BASELINES, enforce: bool = False) -> Gate:
    """Judge a run as its scenario's gate asks; UsageError if it has none."""
    asked = policy.policy(run)
    compared = policy.comparisons(run, asked)
    if not compared:
        raise UsageError(
            f"{run.manifest.scenario} has only the baseline in it: nothing to judge",
            hint="add a variant, or judge against stored sessions with `bench gate RUN --stored`",
        )
    record = aa.find(baselines, run.manifest.fingerprint)
    quality = limits(run)
    notes = [*run.manifest.notes, *(f"quality of {one.variant}: {one.verdict}: {one.reason}" for one in quality)]
    if run.manifest.state != "complete":
        notes.append(f"the run is not complete ({run.manifest.state}); `bench run --resume` goes on with it")
    return Gate(
        run.manifest.scenario,
        run.manifest.run_id,
        likeness.host_class(run.manifest.fingerprint),
        compared,
        record,
        None if enforce else doubt(record),
        tuple(notes),
        quality,
    )


def judge_stored(run: Run, *, variant: str | None = None, baselines: Path = BASELINES, enforce: bool = False) -> Gate:
    """Judge a run's variant against its stored sessions; RecordError if there are none."""
    names = [variant] if variant else [name for name in run.variants if _stored(baselines, run, name)]
    if not names:
        raise RecordError(
            f"no baseline of a variant of {run.manifest.scenario} in {baselines}",
            hint="`bench baseline add RUN` makes one; ten sessions are needed for a verdict",
        )
    compared = tuple(predict.against(run, baseline.find(baselines, run, name)) for name in names)
    record = aa.find(baselines, run.manifest.fingerprint)
    return Gate(
        run.manifest.scenario,
        run.manifest.run_id,
        likeness.host_class(run.manifest.fingerprint),
        compared,
        record,
        None if enforce else doubt(record),
    )


def _stored(folder: Path, run: Run, name: str) -> bool:
    return any(folder.glob(f"*/{run.manifest.scenario}--{name}.json"))


def doubt(record: aa.AaRecord | None) -> str | None:
    """Why a gate is advice only."""
    if record is None:
        return "no A/A study of this machine in this state; `bench aa SCENARIO` makes one, --enforce insists"
    return f"{record.doubt}; --enforce insists" if record.doubt else None
