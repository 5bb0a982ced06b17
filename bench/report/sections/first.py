"""The first request beside the ones after it: what a launch costs before it is quick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure as Drawing

from bench.analyse.metrics import metric
from bench.phrases import listed
from bench.report.drawing import GRID, INK, MUTED, NARROW, PAPER, colour, figure, milliseconds
from bench.report.elements import Figure, Section
from bench.report.numbers import duration
from bench.report.view import View

# What is set side by side, from the slowest to the quickest.
STEPS = (("cold_ttft", "from engine start"), ("first_ttft", "first request"), ("ttft.p50", "steady median"))
MARKS: dict[str, dict[str, Any]] = {
    "cold_ttft": {"marker": "o", "markersize": 8, "markeredgecolor": PAPER, "linestyle": "none"},
    "first_ttft": {"marker": "D", "markersize": 7.5, "markeredgecolor": PAPER, "linestyle": "none"},
    "ttft.p50": {"marker": "|", "markersize": 15, "markeredgewidth": 3, "linestyle": "none"},
}


@dataclass(frozen=True, slots=True)
class Point:
    """One mark of the ladder, in seconds."""

    metric: str
    value: float
    low: float | None
    high: float | None


def section(view: View) -> Section | None:
    """Cold, first and steady TTFT of each variant on one axis."""
    shown = [variant for variant in view.measured if _points(view, variant)]
    return Section("first-token", "How long until the first token", (ladder(view, shown),)) if shown else None


def ladder(view: View, variants: list[str]) -> Figure:
    """One line per variant with up to three points on a logarithmic axis, each with its interval."""

    def paint(drawing: Drawing, width: int) -> None:
        axes = drawing.subplots()
        narrow = width == NARROW
        for place, variant in enumerate(variants):
            points = _points(view, variant)
            tint = colour(view.colour(variant))
            axes.plot([point.value for point in points], [place] * len(points), color=GRID, linewidth=2, zorder=1)
            for point in points:
                if point.low is not None and point.high is not None and point.high > point.low:
                    axes.plot([point.low, point.high], [place] * 2, color=tint, linewidth=6, alpha=0.35, zorder=2)
                axes.plot(point.value, place, color=tint, zorder=3, **MARKS[point.metric])
                # The first request may be as quick as the steady ones: its label goes below the line.
                below = point.metric == "first_ttft"
                axes.annotate(
                    duration(point.value), (point.value, place), (0, -10 if below else 10), textcoords="offset points",
                    ha="center", va="top" if below else "bottom", fontsize=11.5,
                )  # fmt: skip
            axes.annotate(
                variant, (0, place), (0, 30), xycoords=("axes fraction", "data"), textcoords="offset points",
                fontweight="bold", annotation_clip=False,
            ).set_in_layout(False)  # fmt: skip
        axes.set_xscale("log")
        axes.margins(x=0.12)
        axes.set_ylim(len(variants) - 0.5, -0.8)
        axes.set_yticks([])
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        milliseconds(axes)
        axes.set_xlabel("seconds (logarithmic)")
        handles = [axes.plot([], [], color=MUTED, label=label, **MARKS[name])[0] for name, label in reversed(STEPS)]
        drawing.legend(handles=handles, loc="outside upper left", ncols=1 if narrow else 3, labelcolor=INK)

    row = 78
    return figure(
        paint,
        (70 + row * len(variants), 120 + row * len(variants)),
        "Steady requests (median), the first request after the warm-up strategy is done, and the whole way from "
        "starting the engine to the first token of the workload. Bars are intervals, or ranges where launches are "
        "fewer than six.",
        listed(_sentence(view, variant) for variant in variants),
    )


def _points(view: View, variant: str) -> list[Point]:
    found = []
    for name, _ in STEPS:
        row = view.row(variant, name)
        if row and row.value is not None and row.value > 0:
            scale = 1e-3 if metric(name).unit == "ms" else 1.0
            low, high = (None if end is None else end * scale for end in (row.low, row.high))
            found.append(Point(name, row.value * scale, low, high))
    return found


def _sentence(view: View, variant: str) -> str:
    words = dict(STEPS)
    return f"{variant}: " + ", ".join(
        f"{words[point.metric]} {duration(point.value)}" for point in _points(view, variant)
    )
