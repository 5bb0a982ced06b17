"""The scenario's `max_kl` as a verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.analyse import answers
from bench.analyse.divergence import Quality, compare
from bench.judge.decide import Verdict
from bench.judge.trade import reference

if TYPE_CHECKING:
    from bench.analyse.run import Run


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
    return tuple(judge(compare(theirs, answers.of_variant(run, variant)), float(most)) for variant in others)


def judge(quality: Quality, most: float) -> Limit:
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
