"""What holds, on this machine, of the claim that started it: "4-bit AWQ: 280 MB instead of 600, 12 % faster, quality
nearly lossless".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bench.quality.trade import Change, Trade

Holds = Literal["holds", "does not hold", "not shown"]
SMALLER, FASTER = 280 / 600, 1.12
# "Nearly lossless" names no figure; this is ours: the text is at most two hundredths more surprising.
LOSSLESS = 1.02


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence of the claim, whether it holds, and what was seen."""

    claim: str
    holds: Holds
    evidence: str


def findings(trade: Trade) -> tuple[Finding, ...]:
    """The claim taken apart; empty for a variant that could not run."""
    if trade.status != "ok":
        return ()
    first = next((change for change in trade.changes if change.metric.startswith("ttft")), None)
    return (
        _judge("weights shrink to 280/600", trade["weights"], SMALLER * 1.05, less=True),
        _judge("the first token comes 12 % sooner", first, 1 / FASTER, less=True),
        _judge("12 % more tokens a second", trade["output_throughput"], FASTER, less=False),
        _judge("memory in use shrinks", trade["memory.peak"], 1.0, less=True),
        _judge("quality is nearly lossless (perplexity at most 2 % up)", trade["perplexity"], LOSSLESS, less=True),
    )


def _judge(claim: str, change: Change | None, limit: float, *, less: bool) -> Finding:
    """Holds if the whole interval lies on the claim's side of the limit, does not if it lies on the other."""
    if change is None or change.low is None or change.high is None or change.ratio is None:
        return Finding(claim, "not shown", change.words if change else "not measured")
    seen = f"{change.ratio:.3f} times the reference, between {change.low:.3f} and {change.high:.3f}"
    if change.certainty == "exact":
        seen = f"{change.ratio:.3f} times the reference"
    beyond = change.low > limit if less else change.high < limit
    within = change.high <= limit if less else change.low >= limit
    return Finding(claim, "holds" if within else "does not hold" if beyond else "not shown", seen)
