"""TTFT by request index: warm-up, first and steady requests as they came, nothing thrown away."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import MaxNLocator

from bench.analyse import steady
from bench.phrases import listed
from bench.report.drawing import GRID, MUTED, NARROW, PAPER, colour, edge_marks, figure, milliseconds
from bench.report.elements import Block, Cell, Figure, Heading, Section, Table
from bench.report.numbers import change, count, quantity
from bench.report.view import View

# Panels that a figure can hold, and single launches that a panel can.
PANELS, LINES = 12, 12


def section(view: View) -> Section | None:
    """One panel per variant, all on one scale."""
    requests = view.run.requests
    if requests.empty or not requests["ttft_ms"].notna().any():
        return None
    statuses = {launch.id: launch.record.status for launch in view.run.all}
    requests = requests[requests["launch"].map(statuses).isin(["ok", "invalid"]) & requests["stage"].ne("quality")]
    requests = requests.assign(index=_index(requests))
    variants = [variant for variant in view.variants if (requests["variant"] == variant).any()]
    if not variants:
        return None
    blocks: list[Block] = [by_index(view, requests, variants[:PANELS])]
    if (table := steadiness(view)) is not None:
        blocks.append(table)
    return Section("requests", "Request by request", tuple(blocks))


def by_index(view: View, requests: pd.DataFrame, variants: list[str]) -> Figure:
    """TTFT against the request's place; 1 is the first request of the workload, below it lies the warm-up."""
    values = requests["ttft_ms"].to_numpy(dtype=float)
    known = values[np.isfinite(values) & (values > 0)]
    logarithmic = known.max() > 4 * known.min()

    def paint(drawing: Drawing, width: int) -> None:
        across = 1 if width == NARROW or len(variants) == 1 else 2
        grid = drawing.subplots(math.ceil(len(variants) / across), across, sharey=True, squeeze=False)
        for axes, variant in zip(grid.flat, variants, strict=False):
            _panel(axes, requests[requests["variant"] == variant], colour(view.colour(variant)))
            axes.set_title(variant)
            if logarithmic:
                axes.set_yscale("log")
                axes.set_ylim(known.min() / 1.25, known.max() * 1.25)
                milliseconds(axes, "y")
            else:
                axes.set_ylim(0, known.max() * 1.08)
        for axes in grid.flat[len(variants) :]:
            axes.set_visible(False)
        for axes in grid[:, 0]:
            axes.set_ylabel("TTFT, ms")
        for column in range(across):
            bottom = max((row for row in range(len(grid)) if grid[row, column].get_visible()), default=0)
            grid[bottom, column].set_xlabel("request")

    rows = (math.ceil(len(variants) / (1 if len(variants) == 1 else 2)), len(variants))
    firsts = [
        f"{variant}: first {quantity(view.value(variant, 'first_ttft'), 'ms')}, "
        f"then {quantity(view.value(variant, 'ttft.p50'), 'ms')}"
        for variant in variants
    ]
    return figure(
        paint,
        (30 + 200 * rows[0], 30 + 180 * rows[1]),
        "Each faint line is one launch, the strong one their median. The ringed point is the workload's first "
        "request; what lies left of it, shaded, is warm-up and is never measured. Crosses on the upper edge are "
        "failed requests.",
        "TTFT by request: " + listed(firsts),
    )


def steadiness(view: View) -> Table | None:
    """Whether the launches settled, and from which request on; nothing where all are too short to tell."""
    found = steady.by_launch(view.run)
    if found.empty or (found["kind"] == "too short").all():
        return None
    rows = []
    for variant in view.variants:
        mine = found[found["variant"] == variant]
        if mine.empty:
            continue
        kinds = mine["kind"].value_counts()
        words = listed(f"{amount} {kind}" if len(kinds) > 1 else str(kind) for kind, amount in kinds.items())
        firsts = mine["first"].dropna().astype(float) + 1
        spread = f"{firsts.min():.0f}–{firsts.max():.0f}" if len(firsts) > 1 else ""
        bad = {"slowdown", "not steady"} & set(kinds.index)
        rows.append(
            (
                Cell(variant, count(len(mine), "launch"), colour=view.colour(variant)),
                Cell(words, tone="warn" if bad else ""),
                Cell(f"{firsts.median():.0f}" if len(firsts) else "–", spread),
                *(_share(mine[name]) for name in ("change", "drift")),
            )
        )
    head = (
        Heading("variant"),
        Heading("course"),
        Heading("steady from request", "median, range", numeric=True),
        Heading("last level against first", numeric=True),
        Heading("drift once steady", numeric=True),
    )
    return Table(head, tuple(rows), "Did the launches settle? By segmentation and trend of TTFT within each launch")


def _share(values: pd.Series) -> Cell:
    known = values.dropna().astype(float)
    return Cell(change(1 + float(known.median())) if len(known) else "–")


def _panel(axes: Axes, requests: pd.DataFrame, tint: str) -> None:
    launches = [part for _, part in requests.groupby("launch", observed=True, sort=False)]
    # Many launches would be a smear and a megabyte: an evenly spaced choice of them is drawn, the median is over all.
    for part in launches[:: max(1, math.ceil(len(launches) / LINES))]:
        axes.plot(part["index"], part["ttft_ms"], color=tint, alpha=0.35, linewidth=1)
    median = requests.groupby("index")["ttft_ms"].median()
    axes.plot(median.index, median, color=tint)
    if median.index.min() < 1:
        axes.axvspan(median.index.min() - 0.5, 0.5, color=GRID, alpha=0.45, linewidth=0, zorder=0)
    if 1 in median.index:
        axes.plot(1, median.loc[1], "o", color=PAPER, markeredgecolor=tint, markersize=8, markeredgewidth=2, zorder=4)
    failed = requests.loc[~requests["ok"], "index"].unique()
    edge_marks(axes, failed, 0.97)
    axes.tick_params(colors=MUTED)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _index(requests: pd.DataFrame) -> pd.Series:
    """The request's place within its launch: 1 for the first of the workload, 0 and below for the warm-up."""
    place = requests.groupby("launch", observed=True).cumcount()
    before = (requests["stage"] == "warmup").groupby(requests["launch"], observed=True).transform("sum")
    return place - before + 1
