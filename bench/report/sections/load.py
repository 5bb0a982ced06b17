"""What the load did to TTFT: the opening wave of a closed loop, and the wait for `max_in_flight` of an open one."""

from __future__ import annotations

from statistics import median

from bench.analyse import waves
from bench.report.elements import Block, Cell, Heading, Prose, Section, Table
from bench.report.numbers import decimals, number
from bench.report.view import View

CAP = ("ttft.p50", "ttft_scheduled.p50", "ttft_scheduled.p99", "cap_delay.p50", "cap_delay.p99", "client_delay.p99")
TITLES = ("TTFT p50", "scheduled TTFT p50", "scheduled TTFT p99", "wait for the cap p50", "p99", "client delay p99")


def section(view: View) -> Section | None:
    """None where the load had neither."""
    blocks = [block for block in (_waves(view), _cap(view)) if block is not None]
    if not blocks:
        return None
    words = (
        "A closed loop begins with one request of every stream at the same moment, after the engine has drained: these "
        "wait for each other as no later ones do. Both rows are in every figure above. Where a cap held requests back, "
        "TTFT counts from the sending and scheduled TTFT from the time that was intended: the latter is what a user "
        "would have waited."
    )
    return Section("load", "The load", (*blocks, Prose((words,))))


def _waves(view: View) -> Table | None:
    rows = []
    for variant in view.measured:
        found = [waves.opening(launch.requests().to_pandas()) for launch in view.valid(variant)]
        seen = [one for one in found if one is not None]
        if not seen:
            continue
        values = [median(one.ttft_ms for one in seen), median(one.later_ms for one in seen)]
        places = decimals(values)
        counts = f"{sum(one.requests for one in seen)} and {sum(one.later for one in seen)} requests"
        shown = [*(number(value, places) for value in values), number(values[0] / values[1], 2) if values[1] else "–"]
        rows.append((Cell(variant, counts, colour=view.colour(variant)), *(Cell(text) for text in shown)))
    head = (
        Heading("variant"),
        Heading("opening wave", "ms, TTFT p50", numeric=True),
        Heading("later requests", "ms, TTFT p50", numeric=True),
        Heading("ratio", numeric=True),
    )
    return Table(head, tuple(rows), "The first request of each stream, and those after it") if rows else None


def _cap(view: View) -> Block | None:
    capped = [variant for variant in view.measured if view.value(variant, "cap_delay.p50") is not None]
    kept = [pair for pair in zip(CAP, TITLES, strict=True) if any(view.value(v, pair[0]) is not None for v in capped)]
    if not capped:
        return None
    columns = [[view.value(variant, name) for variant in capped] for name, _ in kept]
    rows = tuple(
        (
            Cell(variant, colour=view.colour(variant)),
            *(Cell(number(column[place], decimals(column))) for column in columns),
        )
        for place, variant in enumerate(capped)
    )
    head = (Heading("variant"), *(Heading(title, "ms", numeric=True) for _, title in kept))
    return Table(head, rows, "An open load under a cap on open requests")
