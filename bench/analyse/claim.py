"""What holds, on this machine, of the claim that started it: "4-bit AWQ: 280 MB instead of 600, 12 % faster, quality
nearly lossless".
"""

from __future__ import annotations

from bench.analyse.claims import Finding, judged
from bench.judge.trade import Change, Trade

SMALLER, FASTER = 280 / 600, 1.12
# "Nearly lossless" names no figure; this is ours: the text is at most two hundredths more surprising.
LOSSLESS = 1.02


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
    if change is None or change.low is None or change.high is None or change.ratio is None:
        return Finding(claim, "not shown", change.words if change else "not measured")
    seen = f"{change.ratio:.3f} times the reference, between {change.low:.3f} and {change.high:.3f}"
    if change.certainty == "exact":
        seen = f"{change.ratio:.3f} times the reference"
    return judged(claim, seen, change.low, change.high, limit, less=less)
