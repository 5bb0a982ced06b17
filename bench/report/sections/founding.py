"""The founding article's tricks, measured: what each does to the first request, and what it costs before it."""

from __future__ import annotations

import pandas as pd

from bench.analyse.founding import table
from bench.report.claims import ARTICLE_FIRST_MS, ARTICLE_REDUCTION, claimed, of_the_article
from bench.report.elements import Cell, Heading, Prose, Section, Table
from bench.report.numbers import count, duration, number
from bench.report.view import View


def section(view: View) -> Section | None:
    """Nothing for a run that has not tried each of the tricks and all of them together."""
    baseline = view.baseline
    if baseline is None or not (found := of_the_article(view.run, baseline)):
        return None
    stated = " → ".join(f"{ms:.0f}" for ms in ARTICLE_FIRST_MS)
    caption = f"“{stated} ms, {ARTICLE_REDUCTION:.1%} lower first-token latency”: against {baseline} on this machine"
    return Section(
        "founding",
        "What holds of the founding article",
        (_figures(view, baseline), claimed(found, caption), Prose((METHOD,))),
    )


METHOD = (
    "The first request is the first of the workload after the engine is ready and its warm-up is over. What a warm-up "
    "saves there it has spent before: “until warm” counts from the engine's start to the end of the warm-up, and the "
    "cold TTFT from the start to that first token. A claim holds if the whole 95 % interval of its ratio does."
)


def _reduction(share: float) -> str:
    """A reduction in percent; what took longer, as a multiple where percent would run into the thousands."""
    return f"{100 * share:.1f} %".replace("-", "−") if share >= -1 else f"× {1 - share:.3g}"


def _figures(view: View, baseline: str) -> Table:
    head = (
        Heading("variant"),
        Heading("first request TTFT", "ms", numeric=True),
        Heading("reduction", numeric=True),
        Heading("p99 TTFT", "ms", numeric=True),
        Heading("peak memory", "MiB", numeric=True),
        Heading("until warm", "s", numeric=True),
        Heading("more than the baseline", "s", numeric=True),
        Heading("cold TTFT", numeric=True),
    )
    rows = []
    for row in table(view.run, baseline).to_dict("records"):
        variant = str(row["variant"])
        tail = row["p99_ms"]
        rows.append(
            (
                Cell(variant, f"{count(row['launches'], 'launch')}, {row['state']}", colour=view.colour(variant)),
                Cell(number(row["first_ttft_ms"], 0)),
                Cell("–" if variant == baseline else _reduction(row["reduction"])),
                Cell("–", str(row["p99_reason"] or ""), "muted") if pd.isna(tail) else Cell(number(tail, 0)),
                Cell(number(row["memory_mib"], 0)),
                Cell(number(row["before_s"], 1)),
                Cell("–" if variant == baseline else number(row["extra_s"], 1)),
                Cell(duration(row["cold_ttft_s"])),
            )
        )
    return Table(head, tuple(rows), "Each trick alone and all together; medians over launches")
