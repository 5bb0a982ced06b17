"""The gate tried on itself: how often it cries with nothing changed (A/A), and what it finds of a known slowdown.

An A/A record belongs to a machine's state (`likeness.digest`). Without one that holds, a gate's word is advice: nobody
knows yet how often it is wrong there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scipy import special

from bench.errors import RecordError
from bench.judge import likeness
from bench.judge.compare import Terms, compare
from bench.judge.decide import Verdict
from bench.phrases import counted
from bench.record.documents import keep_document

if TYPE_CHECKING:
    import pandas as pd

    from bench.analyse.run import Run

AA_VERSION = 1
# Twenty sessions without an alarm bound the rate below 17 %; fewer say next to nothing.
ENOUGH_SESSIONS = 20


@dataclass(frozen=True, slots=True)
class Rate:
    """How often something happened, with its 95 % Clopper-Pearson interval."""

    count: int
    of: int

    @property
    def share(self) -> float:
        """The observed share."""
        return self.count / self.of if self.of else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Clopper and Pearson's exact interval."""
        return clopper_pearson(self.count, self.of)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.count} of {self.of} ({low:.0%} to {high:.0%})"


@dataclass(frozen=True, slots=True)
class Trial:
    """A handful of consecutive blocks judged as a run of its own."""

    first_block: int
    verdict: Verdict | None
    verdicts: Mapping[str, Verdict]
    ratios: Mapping[str, float]
    p_change: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class AaRecord:
    """What an A/A study found. `alarms` counts, per metric, sessions in which "no change" was rejected at 5 %."""

    scenario: str
    variant: str
    host_class: str
    fingerprint: str
    taken: str
    blocks: int
    alpha: float
    sessions: int
    fails: int
    verdicts: Mapping[str, int]
    alarms: Mapping[str, int]
    spread: Mapping[str, float]
    margins: Mapping[str, float]
    schema_version: int = AA_VERSION

    @property
    def doubt(self) -> str | None:
        """Why this record does not make a gate trustworthy; None if it does."""
        if self.sessions < ENOUGH_SESSIONS:
            return f"only {counted(self.sessions, 'A/A session')}; {ENOUGH_SESSIONS} are needed"
        failed = Rate(self.fails, self.sessions)
        if failed.interval[0] > self.alpha:
            return f"with nothing changed it failed {failed}, more often than the {self.alpha:.0%} it promises"
        return None


def sessions(launches: pd.DataFrame, a: str, b: str, blocks: int, margins: Mapping[str, float]) -> list[Trial]:
    """Cut a long run into sessions of so many consecutive blocks and judge each; a short last one is left out."""
    present = sorted(launches["block"].unique())
    cuts = [present[start : start + blocks] for start in range(0, len(present) - blocks + 1, blocks)]
    return [_session(launches[launches["block"].isin(cut)], a, b, margins) for cut in cuts]


def aa_record(run: Run, found: Sequence[Trial], blocks: int, margins: Mapping[str, float], variant: str) -> AaRecord:
    """Sum up the sessions of an A/A run."""
    import numpy as np

    names = list(margins)
    return AaRecord(
        scenario=run.manifest.scenario,
        variant=variant,
        host_class=likeness.host_class(run.manifest.fingerprint),
        fingerprint=likeness.digest(run.manifest.fingerprint),
        taken=(run.manifest.finished or run.manifest.created or "")[:10],
        blocks=blocks,
        alpha=0.05,
        sessions=len(found),
        fails=sum(one.verdict is Verdict.FAIL for one in found),
        verdicts={name.value: sum(one.verdict is name for one in found) for name in Verdict},
        alarms={name: sum(one.p_change.get(name, 1.0) < 0.05 for one in found) for name in names},
        spread={
            name: round(float(np.std([np.log(one.ratios[name]) for one in found if name in one.ratios])), 5)
            for name in names
            if sum(name in one.ratios for one in found) > 1
        },
        margins=dict(margins),
    )


def save(record: AaRecord, folder: Path) -> Path:
    """Keep the record below a folder of baselines; a newer study of the same scenario and state takes its place."""
    return keep_document(folder / record.host_class / f"aa-{record.scenario}-{record.fingerprint}.json", asdict(record))


def find(folder: Path, fingerprint: Mapping[str, Any]) -> AaRecord | None:
    """The A/A record with the most sessions for a machine's state."""
    here = sorted((folder / likeness.host_class(fingerprint)).glob(f"aa-*-{likeness.digest(fingerprint)}.json"))
    return max((load(path) for path in here), key=lambda record: record.sessions, default=None)


def load(path: Path) -> AaRecord:
    """An A/A record; RecordError if it is damaged or of another version."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document.get("schema_version") != AA_VERSION:
            raise RecordError(f"{path} has schema version {document.get('schema_version')}, this reads {AA_VERSION}")
        return AaRecord(**document)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise RecordError(f"{path} is damaged: {error}", hint="make it anew with `bench aa`") from error


def clopper_pearson(count: int, of: int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share: quantiles of the beta distribution (Clopper and Pearson 1934)."""
    tail = (1 - level) / 2
    low = float(special.betaincinv(count, of - count + 1, tail)) if count else 0.0
    high = float(special.betaincinv(count + 1, of - count, 1 - tail)) if count < of else 1.0
    return low, high


def _session(launches: pd.DataFrame, a: str, b: str, margins: Mapping[str, float]) -> Trial:
    sides = (launches[launches["variant"] == a], launches[launches["variant"] == b])
    compared = compare(*sides, Terms(margins, metrics=()), (a, b))
    return Trial(
        first_block=int(launches["block"].min()),
        verdict=compared.verdict,
        verdicts={one.metric.id: one.verdict for one in compared.gated if one.verdict},
        ratios={one.metric.id: one.ratio for one in compared.gated if one.ratio is not None},
        p_change={one.metric.id: one.decision.p_change for one in compared.gated if one.decision.p_change is not None},
    )
