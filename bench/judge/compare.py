"""Two variants side by side: a ratio with its interval per metric, and a verdict where there is a margin.

The pairs are made here, the decision over them in `decide`, and what must be equal before anything is compared in
`comparable`. Nothing is left out silently: launches without a partner, and values that cannot be, are named.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.analyse.measured import asked
from bench.analyse.metrics import METRICS, Metric, metric
from bench.errors import UnknownName, UsageError
from bench.judge import comparable
from bench.judge.comparable import Pair, Side, crowded_blocks, pairs_of, side_of, unsteady_blocks, values_of, variant_id
from bench.judge.decide import Decision, Verdict, benjamini_hochberg, decide, holm
from bench.judge.result import Result, explain, limit_of

if TYPE_CHECKING:
    from bench.analyse.run import Run

# Share of false findings accepted among the metrics that have no margin.
ADVISORY_Q = 0.1
# A change that surely stays below this is none to speak of, however surely it is there.
NEGLIGIBLE = 0.001
HEADLINE = (
    "ttft.p50",
    "ttft.p95",
    "tpot.p50",
    "itl.p50",
    "e2el.p50",
    "output_throughput",
    "startup",
    "cold_ttft",
    "first_ttft",
    "memory.peak",
    "energy.per_token",
)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a comparison is held to.

    `margins` maps metrics to relative margins and brings verdicts; `metrics` are shown beside them (None: the
    headline's). `alpha` is one-sided. `obstacles` say in words what keeps every verdict open.
    """

    margins: Mapping[str, float] = field(default_factory=dict)
    metrics: Iterable[str] | None = None
    alpha: float = 0.05
    obstacles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """A baseline and a candidate, metric by metric: those with a margin first, in the scenario's order.

    `timeline` has every launch of both sides (`side` is a or b) in order of time. `refused` says why the two cannot be
    compared at all; there are no results then. `unit` is what a decision counts: blocks, or stored sessions.
    """

    a: Side
    b: Side
    results: tuple[Result, ...]
    alpha: float = 0.05
    notes: tuple[str, ...] = ()
    refused: str | None = None
    unit: str = "blocks"
    timeline: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        run: Run,
        a: str | Mapping[str, Any],
        b: str | Mapping[str, Any],
        *,
        other: Run | None = None,
        margins: Mapping[str, float] | None = None,
        metrics: Iterable[str] | None = None,
    ) -> Comparison:
        """Compare variant `b` (of `other`, if given) with baseline `a`; both by id or by factors.

        `margins` maps metrics to relative margins and brings verdicts; `metrics` are shown beside them.
        IncomparableError if the two differ in what must be equal.
        """
        return cls.on(Terms(margins or {}, metrics), run, a, b, other=other)

    @classmethod
    def on(
        cls, terms: Terms, run: Run, a: str | Mapping[str, Any], b: str | Mapping[str, Any], *, other: Run | None = None
    ) -> Comparison:
        """The same on terms of any level."""
        theirs = other or run
        first, second = variant_id(run, a), variant_id(theirs, b)
        if other is None and first == second:
            raise UsageError(f"both sides are the variant {first!r}", hint="name two different variants of the run")
        comparable.check(run, first, theirs, second)
        if other is not None:
            terms = replace(terms, obstacles=(*terms.obstacles, *comparable.unpaired(run, theirs)))
        if terms.metrics is None:
            terms = replace(terms, metrics=asked(run, HEADLINE))
        return compare(rows_of(run.per_launch, first), rows_of(theirs.per_launch, second), terms, (first, second))

    @property
    def gated(self) -> tuple[Result, ...]:
        """The metrics with a margin."""
        return tuple(result for result in self.results if result.verdict is not None)

    @property
    def verdict(self) -> Verdict | None:
        """One word for all metrics with a margin; None if there are none."""
        if self.refused:
            return Verdict.INVALID
        return overall([result.verdict for result in self.gated if result.verdict is not None])

    def table(self) -> pd.DataFrame:
        """One row per metric: both medians, the ratio or difference with its interval, and what is behind them."""
        return pd.DataFrame([_row(result) for result in self.results])

    def __getitem__(self, name: str) -> Result:
        for result in self.results:
            if result.metric.id == name:
                return result
        raise UnknownName("compared metric", name, (result.metric.id for result in self.results))


def compare(
    a: pd.DataFrame, b: pd.DataFrame, terms: Terms | None = None, labels: tuple[str, str] = ("a", "b")
) -> Comparison:
    """Compare two tables of launches: columns block, status and the metrics."""
    terms = terms or Terms()
    limits = {metric(name).id: margin for name, margin in terms.margins.items()}
    shown = (
        [metric(name).id for name in terms.metrics]
        if terms.metrics is not None
        else [m for m in HEADLINE if m in METRICS]
    )
    both = _Both(a, b, side_of(a, labels[0]), side_of(b, labels[1]))
    results = [_judged(metric(name), both, limit, terms) for name, limit in limits.items()]
    beside = [
        result
        for name in shown
        if name not in limits and (result := _estimated(metric(name), both, terms.alpha)) is not None
    ]
    timeline = pd.concat([a.assign(side="a"), b.assign(side="b")], ignore_index=True)
    if "wall_time" in timeline:
        timeline = timeline.sort_values("wall_time", kind="stable", ignore_index=True)
    every = (*with_holm(results, terms.alpha), *_with_bh(beside))
    return Comparison(both.first, both.second, every, terms.alpha, terms.obstacles, timeline=timeline)


def overall(verdicts: Sequence[Verdict]) -> Verdict | None:
    """One FAIL fails; else what could not be judged outweighs what passed."""
    for verdict in (Verdict.FAIL, Verdict.INVALID, Verdict.INCONCLUSIVE, Verdict.PASS):
        if verdict in verdicts:
            return verdict
    return None


@dataclass(frozen=True, slots=True, eq=False)
class _Both:
    """Both sides' launches, and what became of them."""

    a: pd.DataFrame
    b: pd.DataFrame
    first: Side
    second: Side


def _judged(measure: Metric, both: _Both, margin: float, terms: Terms) -> Result:
    """A metric with a margin, and whatever keeps its verdict from standing."""
    a, b, alpha = both.a, both.b, terms.alpha
    pairs, notes = pairs_of(measure, a, b)
    decision = decide(worse(measure, pairs), limit_of(measure, margin), alpha)
    result = _result(measure, pairs, decision, notes, margin=margin, verdict=decision.verdict)
    result = replace(result, reason=decision.reason or explain(result))
    if spoiled := _spoiled(measure, both, result):
        return replace(result, verdict=spoiled[0], reason=spoiled[1])
    if terms.obstacles:
        return replace(result, verdict=Verdict.INCONCLUSIVE, reason=terms.obstacles[0])
    if doubt := _doubtful(measure, result, crowded_blocks(a, b), "were not alone on the processors", alpha):
        return replace(result, verdict=Verdict.INCONCLUSIVE, reason=doubt)
    drifted = unsteady_blocks(a, b) if measure.kind == "quantile" else frozenset()
    if doubt := _doubtful(measure, result, drifted, "were not steady", alpha):
        return replace(result, verdict=Verdict.INCONCLUSIVE, reason=doubt)
    if decision.verdict is Verdict.PASS and (failed := both.first.failed + both.second.failed):
        reason = (
            f"{len(failed)} launch{'es' * (len(failed) > 1)} failed: the survivors alone prove nothing ({failed[0]})"
        )
        return replace(result, verdict=Verdict.INCONCLUSIVE, reason=reason)
    return result


def _doubtful(measure: Metric, result: Result, blocks: frozenset[int], what: str, alpha: float) -> str | None:
    """Why launches of some blocks leave the verdict open; None if it stands without those blocks too."""
    assert result.margin is not None
    kept = [pair for pair in result.pairs if pair.block not in blocks]
    if result.verdict not in {Verdict.PASS, Verdict.FAIL} or len(kept) == len(result.pairs):
        return None
    without = decide(worse(measure, kept), limit_of(measure, result.margin), alpha)
    if without.verdict is result.verdict:
        return None
    named = ", ".join(str(block + 1) for block in sorted(blocks))
    return f"launches in block {named} {what}, and without them the {result.verdict} does not hold"


def _spoiled(measure: Metric, both: _Both, result: Result) -> tuple[Verdict, str] | None:
    """Why there is nothing to judge, if so."""
    for side, rows in ((both.first, both.a), (both.second, both.b)):
        if not side.ok:
            why = (*side.failed, *side.invalid, "nothing was launched")[0]
            return Verdict.INVALID, f"no valid launch of {side.label}: {why}"
        if not values_of(rows, measure.id):
            if measure.needs > 1:
                why = f"{measure.title} needs {measure.needs} steady requests per launch; {side.label} has fewer"
                return Verdict.INCONCLUSIVE, why
            return Verdict.INVALID, f"{measure.title} was not measured for {side.label}"
    if impossible := next((note for note in result.notes if note.startswith("negative in")), None):
        return Verdict.INVALID, f"{measure.title} is {impossible}: a stepped clock or a damaged record"
    if nothing := next((note for note in result.notes if note.startswith("zero in")), None):
        return Verdict.INVALID, f"{measure.title} is {nothing}: there is no ratio to nothing"
    blocks = len({*both.a["block"], *both.b["block"]})
    if len(result.pairs) * 2 < blocks:
        return Verdict.INVALID, f"only {len(result.pairs)} of {blocks} blocks have a valid launch on both sides"
    return None


def _estimated(measure: Metric, both: _Both, alpha: float) -> Result | None:
    """A metric without a margin: shown if both sides have it."""
    pairs, notes = pairs_of(measure, both.a, both.b)
    if not pairs:
        return None
    # The verdict is not used; margin 0 makes p_worse the test of "not worse at all".
    return _result(measure, pairs, decide(worse(measure, pairs), 0.0, alpha), notes)


def _result(
    measure: Metric, pairs: tuple[Pair, ...], decision: Decision, notes: tuple[str, ...], **more: Any
) -> Result:
    medians = _median(pair.a for pair in pairs), _median(pair.b for pair in pairs)
    return Result(measure, *medians, decision, pairs, notes=notes, **more)


def with_holm(results: Sequence[Result], alpha: float) -> list[Result]:
    """One false alarm in all, not one per metric: what fails alone but not among the others is INCONCLUSIVE."""
    p_values = [1.0 if result.decision.p_worse is None else result.decision.p_worse for result in results]
    adjusted = []
    for result, p in zip(results, holm(p_values), strict=True):
        result = replace(result, p_adjusted=p)
        if result.verdict is Verdict.FAIL and p >= alpha:
            reason = (
                f"worse on its own, but one of {len(results)} gated metrics may look so by chance (Holm p = {p:.3f})"
            )
            result = replace(result, verdict=Verdict.INCONCLUSIVE, reason=reason)
        adjusted.append(result)
    return adjusted


def _with_bh(results: Sequence[Result]) -> list[Result]:
    p_values = [1.0 if result.decision.p_change is None else result.decision.p_change for result in results]
    marked = []
    for result, q in zip(results, benjamini_hochberg(p_values), strict=True):
        interval = result.decision.interval
        remark = "no change seen"
        large = interval is not None and max(-interval.low, interval.high) > NEGLIGIBLE
        if q < ADVISORY_Q and interval is not None and large:
            remark = "worse" if interval.estimate > 0 else "better"
        marked.append(replace(result, p_adjusted=q, reason=remark))
    return marked


def worse(measure: Metric, pairs: Iterable[Pair]) -> dict[int, float]:
    """Block to log ratio, or to the difference of a share, turned so that positive is worse."""
    sign = -1 if measure.direction == "higher" else 1
    if measure.by_difference:
        return {pair.block: sign * (pair.b - pair.a) for pair in pairs}
    return {pair.block: sign * math.log(pair.ratio) for pair in pairs}


def rows_of(launches: pd.DataFrame, variant: str) -> pd.DataFrame:
    """The launches of one variant."""
    return launches[launches["variant"] == variant] if len(launches) else launches


def _row(result: Result) -> dict[str, Any]:
    bounds, decision = result.bounds or result.shifts, result.decision
    return {
        "metric": result.metric.id,
        "unit": result.metric.unit,
        "a": result.a,
        "b": result.b,
        "ratio": result.ratio,
        "difference": result.shift,
        "low": bounds[0] if bounds else None,
        "high": bounds[1] if bounds else None,
        "margin": result.margin,
        "limit": result.limit,
        "verdict": result.verdict.value if result.verdict else None,
        "reason": result.reason,
        "blocks": decision.blocks,
        "sd": decision.sd,
        "mde": result.mde,
        "p_worse": decision.p_worse,
        "p_change": decision.p_change,
        "p_adjusted": result.p_adjusted,
        "trimmed_low": result.trimmed[0] if result.trimmed else None,
        "trimmed_high": result.trimmed[1] if result.trimmed else None,
        "deciding_block": decision.deciding_block,
        "notes": "; ".join(result.notes),
    }


def _median(values: Iterable[float]) -> float | None:
    series = pd.Series(list(values), dtype=float)
    return float(series.median()) if len(series) else None
