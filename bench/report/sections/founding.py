"""The founding article, measured: what each trick does to the first request and costs before it; its other claims."""

from __future__ import annotations

import pandas as pd

from bench.analyse.founding import table
from bench.report.claims import ARTICLE_FIRST_MS, ARTICLE_REDUCTION, claimed, of_the_article
from bench.report.elements import Block, Cell, Heading, Prose, Section, Table
from bench.report.numbers import count, duration, number
from bench.report.reach import of_the_way
from bench.report.view import View


def section(view: View) -> Section | None:
    """Nothing for a run to which none of the article's claims applies."""
    baseline = view.baseline
    tricks = of_the_article(view.run, baseline) if baseline is not None else ()
    way = of_the_way(view.run)
    blocks: list[Block] = []
    if baseline is not None and tricks:
        stated = " → ".join(f"{ms:.0f}" for ms in ARTICLE_FIRST_MS)
        caption = (
            f"“{stated} ms, {ARTICLE_REDUCTION:.1%} lower first-token latency”: against {baseline} on this machine"
        )
        blocks = [_figures(view, baseline), claimed(tricks, caption), Prose((METHOD,))]
    if way:
        blocks.append(claimed(way, "Of reaching a server: a claim holds if its whole 95 % interval does"))
    return Section("founding", "What holds of the founding article", tuple(blocks)) if blocks else None


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
