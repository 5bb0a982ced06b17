"""What the answers did not tell, said where people read: pace that could not be seen, counts that cannot be true."""

from __future__ import annotations

from collections.abc import Iterator

from bench.analyse.pace import FIRST_EVENT, NO_COUNT, ONE_PIECE, TOOL_CALL, Gaps
from bench.report.elements import Note
from bench.report.numbers import count
from bench.report.view import View

# What is said after the number of answers, and what follows from it.
_WORDS = {
    ONE_PIECE: ("came in one piece", "Their pace could not be observed: they are in no TPOT and in no ITL."),
    FIRST_EVENT: (
        "began with an event of several tokens, and the server does not say how many",
        "They are in no TPOT; `stream_options: {continuous_usage_stats: true}` counts along where a server knows it.",
    ),
    NO_COUNT: ("came without a count of their tokens", "They have no TPOT, and their launch no token throughput."),
    TOOL_CALL: (
        "consisted of a tool call alone",
        "They have no TTFT and no TPOT; TTFA says when their arguments began.",
    ),
}


def notes(view: View) -> Iterator[Note]:
    """One remark for each thing that the steady answers of the valid launches lack."""
    gaps = _all(view)
    for reason, n in gaps.pace.most_common():
        what, follows = _WORDS[reason]
        if reason == NO_COUNT and (wrong := gaps.counts.most_common(1)):
            why, often = wrong[0]
            follows = f"{why[0].upper()}{why[1:]} ({often} of {gaps.answers}). {follows}"
        yield Note(f"{count(n, 'answer')} {what} (of {gaps.answers}).", follows, "warn")


def dashes(view: View) -> frozenset[str]:
    """Metrics that are shown as a dash where no variant has a value: their absence must be seen."""
    gaps = _all(view)
    if not gaps.pace:
        return frozenset()
    return frozenset({"tpot.p50"} | ({"output_throughput"} if gaps.pace[NO_COUNT] else set()))


def _all(view: View) -> Gaps:
    total = Gaps()
    for one in view.run.reduction.gaps.values():
        total.answers += one.answers
        total.pace += one.pace
        total.counts += one.counts
    return total
