"""Does a forked or restored engine compute what an executed one does? Its first token, and how likely it was to it.

Both answered one fixed question without chance. The reference is a launch by exec of the variant that differs in
nothing but its start: of the same run, else as recorded on that machine by an earlier one. Without a reference nothing
is shown to be equal, and the launch does not count.
"""

from __future__ import annotations

import math

from bench.judge.evidence import Evidence, Said, rule
from bench.record.launches import OracleAnswer
from bench.scenario.variant import but_for_start

# Nats. Both engines print the same float of the same arithmetic; this only forgives its last decimals.
WITHIN = 1e-4


@rule(
    name="oracle.state",
    limit=f"first token equal to that of a start by exec, its log-probability within {WITHIN:g} nats",
    remedy="add `exec` to `start`, whose launch is the reference; where the two differ, do not serve from this one",
)
def oracle(e: Evidence) -> Said | None:
    """A forked or restored launch against its reference. Fails closed."""
    start = e.record.start
    if not start.copied:
        return None
    own = _answered(start.oracle)
    if own is None:
        why = (start.oracle and start.oracle.reason) or e.record.reason or "no answer"
        return "violated", f"not asked to its end: {why}"
    found = _reference(e)
    if found is None:
        return "violated", "there is no launch by exec of this variant to compare with"
    source, reference = found
    apart = abs(own[1] - reference[1])
    words = f"{own[0]} at {own[1]:.6f}, {source} {reference[0]} at {reference[1]:.6f} ({apart:.2g} nats apart)"
    return ("ok" if own[0] == reference[0] and apart <= WITHIN else "violated"), words


def _answered(answer: OracleAnswer | None) -> tuple[str, float] | None:
    """Its token and its log-probability; None without a token or a finite log-probability."""
    if answer is None or answer.token is None or answer.logprob is None or not math.isfinite(answer.logprob):
        return None
    return answer.token, answer.logprob


def _reference(e: Evidence) -> tuple[str, tuple[str, float]] | None:
    """The latest sound launch by exec of the same factors but for `start`, else the answer kept from before it."""
    alike = but_for_start(e.record.factors)
    for one in sorted(e.others, key=lambda one: (one.block, one.position, one.attempt), reverse=True):
        by_exec = (one.start.asked, one.start.mode) == ("exec", "exec") and one.status in ("ok", "invalid")
        answer = _answered(one.start.oracle)
        if by_exec and answer is not None and but_for_start(one.factors) == alike:
            return f"by exec in {one.launch_id}", answer
    kept = e.record.start.reference
    answer = _answered(kept)
    return None if kept is None or answer is None else (f"by exec as kept from {kept.when}", answer)
