"""Does a forked engine compute what an executed one does? Its first token, and how likely it held that to be.

Both answered one fixed question without chance. The reference is a launch by exec of the variant that differs in
nothing but its start: of the same run, else as recorded on that machine by an earlier one. Without a reference nothing
is shown to be equal, and the launch does not count.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from bench.record.schema import Check, CheckStatus, LaunchRecord
from bench.scenario.variant import but_for_start

NAME = "oracle.state"
# Nats. Both engines print the same float of the same arithmetic; this only forgives its last decimals.
WITHIN = 1e-4
LIMIT = f"first token equal to that of a start by exec, its log-probability within {WITHIN:g} nats"
NONE = "add `exec` to `start`: the variant's own launch by exec is the reference"
DIFFERS = "do not serve from this fork: what it computes is not what a new process computes"


def check(record: LaunchRecord, others: Iterable[LaunchRecord]) -> Check | None:
    """A forked launch against its reference; None for a launch that was not forked. Fails closed."""
    if record.start.get("mode") != "forked":
        return None
    own = record.start.get("oracle") or {}
    if not answered(own):
        return _found("violated", f"not asked to its end: {own.get('reason') or record.reason or 'no answer'}", NONE)
    source, reference = _reference(record, others)
    if reference is None:
        return _found("violated", "there is no launch by exec of this variant to compare with", NONE)
    apart = abs(own["logprob"] - reference["logprob"])
    words = (
        f"{own['token']} at {own['logprob']:.6f}, {source} {reference['token']} at {reference['logprob']:.6f} "
        f"({apart:.2g} nats apart)"
    )
    if own["token"] != reference["token"] or not apart <= WITHIN:
        return _found("violated", words, DIFFERS)
    return _found("ok", words, None)


def answered(oracle: Mapping[str, Any]) -> bool:
    """Whether it holds a token and a finite log-probability."""
    logprob = oracle.get("logprob")
    return isinstance(oracle.get("token"), str) and isinstance(logprob, int | float) and math.isfinite(logprob)


def _reference(record: LaunchRecord, others: Iterable[LaunchRecord]) -> tuple[str, Mapping[str, Any] | None]:
    """The latest sound launch by exec of the same factors but for `start`, else what was recorded before this run."""
    alike = but_for_start(record.factors)
    for one in sorted(others, key=lambda one: (one.block, one.position, one.attempt), reverse=True):
        asked = one.start.get("mode") == "exec" and one.start.get("asked") == "exec" and one.status in ("ok", "invalid")
        if asked and but_for_start(one.factors) == alike and answered(one.start.get("oracle") or {}):
            return f"by exec in {one.launch_id}", one.start["oracle"]
    kept = record.start.get("reference") or {}
    return f"by exec in an earlier run ({kept.get('when')})", kept if answered(kept) else None


def _found(status: CheckStatus, words: str, remedy: str | None) -> Check:
    return Check(NAME, status, words, LIMIT, remedy)
