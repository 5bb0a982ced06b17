"""Whether a published claim holds on this machine: by the whole interval of what was measured, never by its middle."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Holds = Literal["holds", "does not hold", "not shown"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence of a claim, whether it holds, and what was seen."""

    claim: str
    holds: Holds
    evidence: str


def judged(claim: str, evidence: str, low: float, high: float, limit: float, *, less: bool) -> Finding:
    """Holds if the interval lies on the claim's side of the limit, does not if it lies on the other."""
    beyond = low > limit if less else high < limit
    within = high <= limit if less else low >= limit
    return Finding(claim, "holds" if within else "does not hold" if beyond else "not shown", evidence)
