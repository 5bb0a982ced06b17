"""The table that people came for: every variant with its intervals."""

from __future__ import annotations

from bench.analyse.measured import asked
from bench.analyse.metrics import METRICS, STATISTICS, metric
from bench.report.elements import Cell, Fold, Heading, Prose, Section, Table
from bench.report.numbers import count, decimals, interval, number
from bench.report.sections import pace
from bench.report.view import SummaryRow, View, crowded_variants

TAILS = ("p99", "p95", "p90")


def section(view: View) -> Section | None:
    """One row per variant, and behind a fold every metric that the run has; None where nothing counts."""
    if not view.measured:
        return None
    return Section(
        "summary",
        "Summary",
        (
            table(view, columns(view)),
            Prose(
                (
                    "Below each value is its interval. For figures over requests it is the 95 % order-statistic "
                    "interval of the pooled steady requests; for figures with one value per launch it is the 95 % "
                    "interval of the median, or, with fewer than six launches, simply the range that was seen. A "
                    "tail is shown only where the sample carries it (p90 needs 36 requests, p95 72, p99 368). "
                    "Requests of one launch resemble each other: to judge a difference between two variants, "
                    "compare their launches block by block (bench compare), not these intervals.",
                )
            ),
            Fold("Every metric", (everything(view),)),
        ),
    )


def columns(view: View) -> tuple[str, ...]:
    """The metrics of the summary table: what was to be measured, the same for all variants; left out where no variant
    has a value, or a reason for having none that people must know."""
    dashes = pace.dashes(view)
    ttft = [f"{name}.p50" for name in view.all_lengths()] or ["ttft.p50"]
    wanted = [
        *ttft,
        # Where the client was elsewhere, the way to it stands beside what it is part of.
        "ttft_near.p50",
        "round_trip.p50",
        tail(view, "ttft"),
        "first_ttft",
        "cold_ttft",
        # Where answers call tools, their marks are these two.
        "ttfr.p50" if view.known("ttfa.p50") else None,
        "ttfa.p50",
        "tpot.p50",
        "output_throughput",
        "goodput",
        "slo_attainment",
        "memory.peak",
        "energy.per_token",
    ]
    return asked(view.run, (name for name in wanted if name and (view.known(name) or name in dashes)))


def tail(view: View, family: str) -> str | None:
    """The farthest tail that every measured variant carries."""
    return next(
        (
            f"{family}.{name}"
            for name in TAILS
            if view.measured and all(view.value(variant, f"{family}.{name}") is not None for variant in view.measured)
        ),
        None,
    )


def table(view: View, names: tuple[str, ...]) -> Table:
    """Variants down, metrics across."""
    places = {name: decimals(view.value(variant, name) for variant in view.variants) for name in names}
    head = [
        Heading("variant"),
        *(Heading(metric(name).title, metric(name).unit or "%", numeric=True) for name in names),
    ]
    contended = crowded_variants(view)
    rows = [
        (
            Cell(variant, _behind(view, variant) + ", contended" * (variant in contended), colour=view.colour(variant)),
            *(measured(view.row(variant, name), name, places[name]) for name in names),
        )
        for variant in view.variants
    ]
    return Table(tuple(head), tuple(rows))


def everything(view: View) -> Table:
    """Metrics down, variants across: all that the run has."""
    by_length = [f"{name}.{statistic}" for name in view.all_lengths() for statistic in STATISTICS]
    names = [name for name in (*METRICS, *by_length) if view.known(name)]
    head = (Heading("metric"), Heading("unit"), *(Heading(variant, numeric=True) for variant in view.variants))
    rows = []
    for name in names:
        places = decimals(view.value(variant, name) for variant in view.variants)
        cells = (measured(view.row(variant, name), name, places) for variant in view.variants)
        rows.append((Cell(metric(name).title, metric(name).doc), Cell(metric(name).unit or "%"), *cells))
    return Table(head, tuple(rows))


def measured(row: SummaryRow | None, name: str, places: int) -> Cell:
    """A summary's value over its interval; a dash and the reason where there is none."""
    if row is None or row.value is None:
        return Cell(number(None), (row.reason or "") if row and row.launches else "", "muted")
    scale, places = (100, 1) if not metric(name).unit and metric(name).kind == "launch" else (1, places)
    low, high = (None if end is None else scale * end for end in (row.low, row.high))
    return Cell(number(scale * row.value, places), interval(low, high, places))


def _behind(view: View, variant: str) -> str:
    """How many launches and requests stand behind a row."""
    valid, planned = len(view.valid(variant)), sum(launch.record.variant == variant for launch in view.run.all)
    row = view.row(variant, "ttft.p50")
    launches = f"{valid} of {planned} launches" if valid != planned else f"{count(valid, 'launch')}"
    return f"{launches}, {count(row.n, 'request')}" if row and row.n else launches
