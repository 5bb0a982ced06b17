"""Stored sessions of one variant on one host class: what a new session may be held against on another day.

A baseline is a small JSON file, made for review: the recipe to rebuild it, and one line per session. It only ever
grows by `add` and shrinks by `prune`; a session that does not belong is refused with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.analyse.metrics import metric
from bench.errors import IncomparableError, RecordError, UsageError
from bench.judge import likeness
from bench.judge.comparable import values_of, variant_id
from bench.record.documents import keep_document
from bench.scenario.measures import margin
from bench.scenario.redaction import redacted

if TYPE_CHECKING:
    from bench.analyse.run import Run

BASELINE_VERSION = 1
# What may be lost before it counts, where no gate says otherwise.
DEFAULT_MARGINS = {"ttft.p50": 0.05, "ttft.p95": 0.10, "output_throughput": 0.03, "memory.peak": 0.01}
DIGITS = 6


@dataclass(frozen=True, slots=True)
class Session:
    """One run: medians over its launches, by metric, of the variant and of the reference workload."""

    run: str
    taken: str
    launches: int
    values: Mapping[str, float]
    reference: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Baseline:
    """Sessions that belong together, and how to make another. `recipe` is the scenario file as it was."""

    scenario: str
    variant: str
    host_class: str
    margins: Mapping[str, float]
    machine: Mapping[str, Any]
    scenario_digest: str
    recipe: str
    factors: Mapping[str, str] = field(default_factory=dict)
    weights: str | None = None
    reference: str | None = None
    sessions: tuple[Session, ...] = ()
    schema_version: int = BASELINE_VERSION

    @property
    def file(self) -> str:
        """Where it lies below a folder of baselines."""
        return f"{self.host_class}/{self.scenario}--{self.variant}.json"


def start(
    run: Run, variant: str, *, reference: str | None = None, margins: Mapping[str, float] | None = None
) -> Baseline:
    """An empty baseline for a variant of a run. `reference` names the variant that is the reference workload."""
    name = variant_id(run, variant)
    anchor = variant_id(run, reference) if reference else None
    if anchor == name:
        raise UsageError("the reference workload cannot be the variant itself")
    gate = run.scenario.get("gate") or {}
    asked = margins or _margins(gate.get("metrics") or {}) or DEFAULT_MARGINS
    return Baseline(
        scenario=run.manifest.scenario,
        variant=name,
        host_class=likeness.host_class(run.manifest.fingerprint),
        margins={metric(one).id: share for one, share in asked.items()},
        machine=likeness.state(run.manifest.fingerprint),
        scenario_digest=run.manifest.scenario_digest,
        recipe=redacted(run.manifest.scenario_text),
        factors=run.manifest.variant(name).factors,
        weights=_weights(run, name),
        reference=anchor,
    )


def add(baseline: Baseline, run: Run) -> Baseline:
    """The baseline with a run as one more session; IncomparableError or UsageError if it does not belong."""
    _belongs(baseline, run)
    if run.manifest.run_id in {session.run for session in baseline.sessions}:
        raise UsageError(f"the run {run.manifest.run_id} is in {baseline.file} already")
    return replace(baseline, sessions=(*baseline.sessions, session(baseline, run)))


def session(baseline: Baseline, run: Run) -> Session:
    """A run as a session of this baseline; UsageError if it has nothing to give."""
    values, launches = _medians(run, baseline.variant, baseline.margins)
    if not values:
        raise UsageError(f"the run {run.manifest.run_id} has no valid launch of {baseline.variant}")
    anchor = _medians(run, baseline.reference, baseline.margins)[0] if baseline.reference else {}
    if baseline.reference and not anchor:
        raise UsageError(f"the run {run.manifest.run_id} has no valid launch of its reference {baseline.reference}")
    taken = (run.manifest.finished or run.manifest.created or "")[:10]
    return Session(run.manifest.run_id, taken, launches, values, anchor)


def prune(baseline: Baseline, *, keep: int | None = None, runs: Sequence[str] = ()) -> Baseline:
    """Without the named runs, and of the others only the newest `keep`."""
    if missing := [name for name in runs if name not in {session.run for session in baseline.sessions}]:
        raise UsageError(f"{baseline.file} has no session {', '.join(missing)}")
    kept = [session for session in baseline.sessions if session.run not in runs]
    return replace(baseline, sessions=tuple(kept[-keep:] if keep else kept))


def save(baseline: Baseline, folder: Path) -> Path:
    """Write it to its place, whole or not at all."""
    return keep_document(folder / baseline.file, asdict(baseline))


def load(path: Path) -> Baseline:
    """A stored baseline; RecordError if it is missing, damaged or of another version."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RecordError(f"{path} does not exist", hint="`bench baseline add RUN` makes one") from error
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} is damaged: {error}", hint="take it from version control again") from error
    version = document.get("schema_version") if isinstance(document, dict) else None
    if version != BASELINE_VERSION:
        raise RecordError(
            f"{path} has schema version {version}, this firsttoken reads {BASELINE_VERSION}",
            hint="rebuild it: run its scenario again and `bench baseline add`",
        )
    try:
        sessions = tuple(Session(**one) for one in document.pop("sessions"))
        found = Baseline(**document, sessions=sessions)
        _check_numbers(found)
    except (TypeError, KeyError, ValueError) as error:
        raise RecordError(f"{path} is damaged: {error}", hint="take it from version control again") from error
    return found


def stored(folder: Path) -> list[Path]:
    """Every baseline file below a folder, A/A records aside."""
    return sorted(path for path in folder.glob("*/*--*.json") if not path.name.startswith("aa-"))


def find(folder: Path, run: Run, variant: str) -> Baseline:
    """The baseline of a variant on the run's host class, else on any other; RecordError if there is none at all."""
    name = variant_id(run, variant)
    file = f"{run.manifest.scenario}--{name}.json"
    here = folder / likeness.host_class(run.manifest.fingerprint) / file
    elsewhere = sorted(folder.glob(f"*/{file}"))
    if not here.exists() and not elsewhere:
        raise RecordError(
            f"no baseline of {run.manifest.scenario}/{name} in {folder}",
            hint="`bench baseline add RUN` makes one; ten sessions are needed for a verdict",
        )
    return load(here if here.exists() else elsewhere[0])


def _belongs(baseline: Baseline, run: Run) -> None:
    manifest = run.manifest
    if manifest.state != "complete":
        raise UsageError(f"the run {manifest.run_id} is {manifest.state}", hint="`bench run --resume` completes it")
    found = []
    if manifest.scenario != baseline.scenario:
        found.append(f"scenario: {baseline.scenario} and {manifest.scenario}")
    elif manifest.scenario_digest != baseline.scenario_digest:
        found.append("the scenario asks for something else than it did")
    found += likeness.differences_of(baseline.machine, likeness.state(manifest.fingerprint))
    weights = _weights(run, baseline.variant) if baseline.variant in run.variants else None
    if weights != baseline.weights:
        found.append(f"weights: {baseline.weights} and {weights}")
    if found:
        raise IncomparableError(
            f"the run {manifest.run_id} does not belong to {baseline.file}:\n" + "\n".join(f"  {one}" for one in found),
            hint="a changed machine or scenario needs a baseline of its own: move the old file away, then add",
        )


def _medians(run: Run, variant: str, metrics: Iterable[str]) -> tuple[dict[str, float], int]:
    launches = run.per_launch
    rows = launches[launches["variant"] == variant] if len(launches) else launches
    found = {name: list(values_of(rows, name).values()) for name in metrics}
    usable = {name: values for name, values in found.items() if values and _possible(name, min(values))}
    medians = {name: float(f"{np.median(values):.{DIGITS}g}") for name, values in usable.items()}
    return medians, max((len(values) for values in usable.values()), default=0)


def _weights(run: Run, variant: str) -> str | None:
    facts = (one.record.facts for one in run.all if one.record.variant == variant and one.record.status == "ok")
    digests = {str(fact["checkpoint_digest"]) for fact in facts if fact.get("checkpoint_digest")}
    return ", ".join(sorted(digests)) or None


def _margins(asked: Mapping[str, str]) -> dict[str, float]:
    return {name: margin(text) for name, text in asked.items()}


def _possible(name: str, value: float) -> bool:
    """Whether a value can be compared later: above zero, or zero where that is a share's healthy value."""
    return value > 0 or (value == 0 and metric(name).by_difference)


def _check_numbers(baseline: Baseline) -> None:
    for one in baseline.sessions:
        for values in (one.values, one.reference):
            for name, value in values.items():
                if not isinstance(value, int | float) or not (value < float("inf") and _possible(name, value)):
                    raise ValueError(f"session {one.run}: {name} is {value!r}")
