"""A new session against stored ones: a prediction interval, with the reference workload as a covariate.

Days differ. The spread of at least ten stored sessions says how much, and what the reference workload felt of a day is
taken out by regression: never by subtraction or division, which add noise wherever the two do not scale alike. The
regression is used only where it predicts the stored sessions better than their mean does.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from bench.analyse.metrics import Metric, comparable, metric
from bench.judge import likeness
from bench.judge.baseline import Baseline, Session, session
from bench.judge.comparable import Side, crowded_blocks
from bench.judge.compare import Comparison, with_holm
from bench.judge.decide import Decision, Interval, Verdict, noncentrality, p_above, t_quantile
from bench.judge.result import Result, explain, limit_of
from bench.phrases import counted

if TYPE_CHECKING:
    from bench.analyse.run import Run

Array = np.ndarray
ENOUGH_SESSIONS = 10


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a new session was expected to be, in log units, and the standard error of a single new value."""

    expected: float
    error: float
    df: int
    used_reference: bool


def predict(y: Array, r: Array | None = None, new_r: float | None = None) -> Prediction:
    """Expect a new session from stored ones, all in logs; `r` are their references, `new_r` is the new one's."""
    k = len(y)
    plain = Prediction(float(y.mean()), float(y.std(ddof=1)) * math.sqrt(1 + 1 / k), k - 1, used_reference=False)
    if r is None or new_r is None or k < 4 or np.ptp(r) == 0:
        return plain
    centred, spread = r - r.mean(), float(((r - r.mean()) ** 2).sum())
    slope = float((centred * y).sum()) / spread
    residual = y - y.mean() - slope * centred
    # Leave-one-out residuals in closed form, by the leverage of each session.
    regressed = residual / (1 - 1 / k - centred**2 / spread)
    constant = (y - y.mean()) / (1 - 1 / k)
    if (regressed**2).sum() >= (constant**2).sum():
        return plain
    away = new_r - float(r.mean())
    scale = math.sqrt(float((residual**2).sum()) / (k - 2))
    return Prediction(
        expected=float(y.mean()) + slope * away,
        error=scale * math.sqrt(1 + 1 / k + away**2 / spread),
        df=k - 2,
        used_reference=True,
    )


def judge_new(y_new: float, prediction: Prediction, k: int, limit: float, sign: int, alpha: float = 0.05) -> Decision:
    """Judge a new session's log value; `limit` is a log ratio, `sign` 1 where more is worse and −1 where less is."""
    change = sign * (y_new - prediction.expected)
    half = t_quantile(1 - alpha, prediction.df) * prediction.error
    interval = Interval(change, change - half, change + half)
    # One new value with this error is a mean of df + 1 values with an SD larger by √(df + 1).
    as_sd = prediction.error * math.sqrt(prediction.df + 1)
    worse, above = (p_above(change, as_sd, prediction.df + 1, at) for at in (limit, 0.0))
    verdict = Verdict.INCONCLUSIVE
    if interval.low > limit:
        verdict = Verdict.FAIL
    elif interval.high < limit:
        verdict = Verdict.PASS
    found = limit + noncentrality(prediction.df + 1, alpha, 0.8) * prediction.error
    how = "the reference workload taken into account" if prediction.used_reference else "by their spread alone"
    return Decision(
        verdict=verdict,
        reason=f"held against {counted(k, 'session')}, {how}",
        blocks=k,
        interval=interval,
        sd=prediction.error,
        p_worse=worse,
        p_change=2 * min(above, 1 - above),
        mde=math.expm1(found) if found < 100 else math.inf,
    )


def against(run: Run, baseline: Baseline, alpha: float = 0.05) -> Comparison:
    """A run's variant against stored sessions; on another class or state of machine a report without verdicts."""
    new = session(baseline, run)
    obstacle = _obstacle(run, baseline, new)
    results = [_one(metric(name), margin, baseline, new, alpha, obstacle) for name, margin in baseline.margins.items()]
    launches = sum(one.launches for one in baseline.sessions)
    stored = Side(f"{len(baseline.sessions)} stored sessions", launches, launches, requests=0)
    side = Side(baseline.variant, new.launches, new.launches, requests=0)
    return Comparison(
        stored,
        side,
        tuple(with_holm(results, alpha)),
        alpha,
        notes=(obstacle[1],) if obstacle else (),
        unit="sessions",
    )


def _obstacle(run: Run, baseline: Baseline, new: Session) -> tuple[Verdict | None, str] | None:
    """Why there is no verdict: None for a report only, INCONCLUSIVE where more sessions would help."""
    here = likeness.host_class(run.manifest.fingerprint)
    if here != baseline.host_class:
        return None, f"{here} is not {baseline.host_class}: a report, never a verdict"
    if changed := likeness.differences_of(baseline.machine, likeness.state(run.manifest.fingerprint)):
        return None, f"the machine has changed since ({'; '.join(changed)}): a report, never a verdict"
    if run.manifest.scenario_digest != baseline.scenario_digest:
        return None, "the scenario asks for something else than it did: a report, never a verdict"
    rows = run.per_launch
    mine = rows[rows["variant"] == baseline.variant] if len(rows) else rows
    if blocks := crowded_blocks(mine):
        named = ", ".join(str(block + 1) for block in sorted(blocks))
        return Verdict.INCONCLUSIVE, f"launches in block {named} were not alone on the processors"
    kept = [one for one in baseline.sessions if one.run != new.run]
    if len(kept) < ENOUGH_SESSIONS:
        return Verdict.INCONCLUSIVE, f"{len(kept)} stored sessions; a verdict needs {ENOUGH_SESSIONS}"
    return None


def _one(
    measure: Metric,
    margin: float,
    baseline: Baseline,
    new: Session,
    alpha: float,
    obstacle: tuple[Verdict | None, str] | None,
) -> Result:
    sign = -1 if measure.direction == "higher" else 1
    having = [one for one in baseline.sessions if measure.id in one.values and one.run != new.run]
    values = np.array([one.values[measure.id] for one in having])
    value, middle = new.values.get(measure.id), float(np.median(values)) if len(values) else None
    if obstacle and (value is None or len(values) < 2):
        decision = Decision(Verdict.INCONCLUSIVE, obstacle[1], len(values))
        return Result(measure, middle, value, decision, (), margin, *obstacle)
    if value is None or len(values) < 2:
        missing = "this run" if value is None else "the stored sessions"
        decision = Decision(Verdict.INVALID, f"{measure.title} was not measured in {missing}", len(values))
        return Result(measure, middle, value, decision, (), margin, decision.verdict, decision.reason)
    prediction = predict(comparable(measure, values), *_references(measure, having, new.reference))
    decision = judge_new(
        float(comparable(measure, value)), prediction, len(values), limit_of(measure, margin), sign, alpha
    )
    if obstacle:
        return Result(measure, middle, value, decision, (), margin, *obstacle)
    result = Result(measure, middle, value, decision, (), margin, decision.verdict)
    return replace(result, reason=f"{explain(result)}, {decision.reason}")


def _references(measure: Metric, having: list[Session], new: Mapping[str, float]) -> tuple[Array | None, float | None]:
    name = measure.id
    if name not in new or any(name not in one.reference for one in having):
        return None, None
    return comparable(measure, [one.reference[name] for one in having]), float(comparable(measure, new[name]))


def expectation(baseline: Baseline, name: str, margin: float) -> str:
    """What a baseline lets a new session be, as a sentence."""
    measure = metric(name)
    values = comparable(measure, [one.values[name] for one in baseline.sessions if name in one.values])
    if len(values) < ENOUGH_SESSIONS:
        return f"  {name}: {counted(len(values), 'session')}; a verdict needs {ENOUGH_SESSIONS}"
    plain = predict(values)
    sign = -1 if metric(name).direction == "higher" else 1
    reach = limit_of(metric(name), margin) + t_quantile(0.95, plain.df) * plain.error
    middle, limit = plain.expected, plain.expected + sign * reach
    if not measure.by_difference:
        middle, limit = math.exp(middle), math.exp(limit)
    return f"  {name}: {middle:.4g} expected, fails beyond {limit:.4g} (margin {margin:.1%})"
