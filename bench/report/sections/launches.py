"""The launches in order of time: what drifted, what was repeated, what does not count."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import MaxNLocator

from bench.report.drawing import GRID, INK, MARKERS, MUTED, NARROW, PAPER, colour, edge_marks, figure
from bench.report.elements import Figure, Section
from bench.report.numbers import count
from bench.report.view import View

SHOWN = (("ttft.p50", "TTFT p50, ms"), ("cold_ttft", "cold TTFT, s"))


def section(view: View) -> Section | None:
    """A strip per metric, one point per launch."""
    frame = view.per_launch
    strips = [(name, label) for name, label in SHOWN if frame[name].notna().any()]
    return Section("launches", "Launch by launch", (strip(view, frame, strips),)) if strips else None


def strip(view: View, frame: pd.DataFrame, strips: list[tuple[str, str]]) -> Figure:
    """Launches along the axis in the order in which they ran; blocks are set apart by lines."""

    def paint(drawing: Drawing, width: int) -> None:
        grid = drawing.subplots(len(strips), 1, sharex=True, squeeze=False)
        for axes, (name, label) in zip(grid.flat, strips, strict=True):
            _strip(axes, view, frame, name)
            axes.set_ylabel(label)
        grid.flat[-1].set_xlabel("launch, in order of time; lines part the blocks")
        handles = [
            axes.plot([], [], MARKERS[view.colour(v)], color=colour(view.colour(v)), markersize=7, label=v)[0]
            for v in view.variants
        ]
        columns = 1 if width == NARROW else min(3, len(view.variants))
        drawing.legend(handles=handles, loc="outside upper left", ncols=columns, labelcolor=INK)

    states = frame["status"].value_counts()
    counted = ", ".join(f"{number} {state}" for state, number in states.items())
    legend = 22 * (1 + len(view.variants) // 3), 22 * len(view.variants)
    return figure(
        paint,
        (180 * len(strips) + 40 + legend[0], 180 * len(strips) + 40 + legend[1]),
        "One point per launch. A slope over time is drift of the machine, not of a variant; the order within each "
        "block is drawn at random so that drift hits all alike. Hollow points are invalid launches, crosses on the "
        "lower edge failed or unsupported ones: neither counts.",
        f"{count(len(frame), 'launch')} in order of time: {counted}",
    )


def _strip(axes: Axes, view: View, frame: pd.DataFrame, metric: str) -> None:
    values = frame[metric].to_numpy(dtype=float)
    places = np.arange(len(frame))
    blocks = frame["block"].to_numpy()
    for edge in np.flatnonzero(np.diff(blocks)) if len(np.unique(blocks)) < 60 else ():
        axes.axvline(edge + 0.5, color=GRID, linewidth=0.8)
    size = 7 if len(frame) < 80 else 3.5
    for variant in view.variants:
        mine = (frame["variant"] == variant).to_numpy() & np.isfinite(values)
        valid = mine & (frame["status"] == "ok").to_numpy()
        tint, marker = colour(view.colour(variant)), MARKERS[view.colour(variant)]
        axes.plot(
            places[valid],
            values[valid],
            marker,
            color=tint,
            markersize=size,
            markeredgecolor=PAPER,
            markeredgewidth=0.6,
        )
        axes.plot(
            places[mine & ~valid], values[mine & ~valid], marker, color=PAPER, markeredgecolor=tint, markersize=size,
            markeredgewidth=1.4,
        )  # fmt: skip
    lost = places[frame["status"].isin(["failed", "unsupported"]).to_numpy()]
    edge_marks(axes, lost, 0.03)
    axes.grid(axis="x", visible=False)
    axes.margins(y=0.15)
    axes.set_xlim(-0.7, len(frame) - 0.3)
    axes.tick_params(colors=MUTED)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
