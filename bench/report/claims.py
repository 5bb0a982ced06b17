"""Published claims, sentence by sentence, beside what was measured here: when each applies, and whether it holds.

A claim holds by the whole interval of what was measured, never by its middle.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from bench.analyse.run import Run
from bench.analyse.worth import against
from bench.judge.trade import Change, Trade
from bench.report.elements import Cell, Heading, Table, Tone

Holds = Literal["holds", "does not hold", "not shown"]
HOLDS: dict[Holds, Tone] = {"holds": "good", "does not hold": "bad", "not shown": "muted"}

# The founding article's first-request latency, ms, in the order in which it adds its tricks, and its reduction.
ARTICLE_FIRST_MS = (2800.0, 1800.0, 950.0, 450.0)
ARTICLE_REDUCTION = 0.839
# "4-bit AWQ: 280 MB instead of 600, 12 % faster, quality nearly lossless".
SMALLER, FASTER = 280 / 600, 1.12
# "Nearly lossless" names no figure; this is ours: the text is at most two hundredths more surprising.
LOSSLESS = 1.02


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence of a claim, whether it holds, and what was seen."""

    claim: str
    holds: Holds
    evidence: str


def claimed(findings: Iterable[Finding], caption: str) -> Table:
    """One row per sentence."""
    rows = tuple(
        (Cell(finding.claim), Cell(finding.holds, tone=HOLDS[finding.holds]), Cell(finding.evidence))
        for finding in findings
    )
    return Table((Heading("claim"), Heading("here"), Heading("evidence")), rows, caption)


def of_the_article(run: Run, baseline: str) -> tuple[Finding, ...]:
    """The article's steps, each against the baseline on this machine; empty for a run that has not tried them all.

    A step is a variant that does this one thing to the baseline; `all` does everything. Intervals are of the ratio of
    first requests, paired by block, 95 %.
    """
    steps = _steps(run)
    if set(steps) < {"kv", "compile", "stages", "all"} or baseline not in run.variants:
        return ()
    start, kv, compiled, stages = ARTICLE_FIRST_MS
    compared = {str(row["variant"]): row for row in against(run, baseline).to_dict("records")}
    claims = (
        (f"KV preallocation shortens the first request by {1 - kv / start:.0%}", "kv", kv / start),
        (f"compiling shortens it by {1 - compiled / kv:.0%}", "compile", compiled / kv),
        (f"multi-stage warm-up shortens it by {1 - stages / compiled:.0%}", "stages", stages / compiled),
        (f"all of them shorten it by {ARTICLE_REDUCTION:.1%}", "all", 1 - ARTICLE_REDUCTION),
    )
    found = [_of_start(claim, compared.get(steps[step]), "first_ratio", limit) for claim, step, limit in claims]
    sooner = "after all of them the first token also comes sooner, counted from the engine's start"
    return (*found, _of_start(sooner, compared.get(steps["all"]), "cold_ratio", 1.0))


def of_awq(run: Run, trade: Trade) -> tuple[Finding, ...]:
    """The claim about 4-bit AWQ taken apart; empty for a variant that is not AWQ, or could not run."""
    if trade.status != "ok" or _quantization(run, trade.variant) != "awq":
        return ()
    first = next((change for change in trade.changes if change.metric.startswith("ttft")), None)
    return (
        _of_trade("weights shrink to 280/600", trade["weights"], SMALLER * 1.05, less=True),
        _of_trade("the first token comes 12 % sooner", first, 1 / FASTER, less=True),
        _of_trade("12 % more tokens a second", trade["output_throughput"], FASTER, less=False),
        _of_trade("memory in use shrinks", trade["memory.peak"], 1.0, less=True),
        _of_trade("quality is nearly lossless (perplexity at most 2 % up)", trade["perplexity"], LOSSLESS, less=True),
    )


def _steps(run: Run) -> dict[str, str]:
    """Which variant takes which of the article's steps, all of which begin with a new program."""
    found: dict[str, str] = {}
    for variant in (one for one in run.manifest.variants if one.start is None):
        done = {step.strategy for step in variant.warmup}
        compiled = bool((variant.engine.get("args") or {}).get("compile"))
        if {"kv-preallocate", "multi-stage"} <= done and compiled:
            found["all"] = variant.id
        elif done == {"none"} and compiled:
            found["compile"] = variant.id
        elif done == {"kv-preallocate"} and not compiled:
            found["kv"] = variant.id
        elif done == {"multi-stage"} and not compiled:
            found["stages"] = variant.id
    return found


def _quantization(run: Run, variant: str) -> str:
    factors = next((launch.record.factors for launch in run.all if launch.record.variant == variant), {})
    return factors.get("quantization", "")


def _of_start(claim: str, row: dict[Any, Any] | None, figure: str, limit: float) -> Finding:
    value, low, high = (row[f"{figure}{end}"] if row else None for end in ("", "_low", "_high"))
    if value is None or low is None or high is None:
        return Finding(claim, "not shown", "too few launches as asked")
    first, lowest, highest = (f"{ratio:.0f}" if ratio >= 100 else f"{ratio:.3g}" for ratio in (value, low, high))
    seen = f"{first} times the baseline's, between {lowest} and {highest}"
    return judged(claim, seen, (low, high), limit, less=True)


def _of_trade(claim: str, change: Change | None, limit: float, *, less: bool) -> Finding:
    if change is None or change.low is None or change.high is None or change.ratio is None:
        return Finding(claim, "not shown", change.words if change else "not measured")
    seen = f"{change.ratio:.3f} times the reference, between {change.low:.3f} and {change.high:.3f}"
    if change.certainty == "exact":
        seen = f"{change.ratio:.3f} times the reference"
    return judged(claim, seen, (change.low, change.high), limit, less=less)


def judged(claim: str, evidence: str, ends: tuple[float, float], limit: float, *, less: bool) -> Finding:
    """Holds if the interval lies on the claim's side of the limit, does not if it lies on the other."""
    low, high = ends
    beyond = low > limit if less else high < limit
    within = high <= limit if less else low >= limit
    return Finding(claim, "holds" if within else "does not hold" if beyond else "not shown", evidence)
