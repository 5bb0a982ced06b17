"""Distributions of the steady requests: every value, not a bell that was never there."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from bench.analyse.metrics import FAMILIES, Values
from bench.phrases import listed
from bench.report.drawing import INK, NARROW, colour, figure, milliseconds
from bench.report.elements import Figure, Section
from bench.report.numbers import quantity
from bench.report.view import COLOURS, View

# Corners per curve: more than a screen has pixels to show.
POINTS = 240
SHOWN = (("ttft", "TTFT, ms"), ("itl", "ITL, ms"))
DASHES = ("-", "--", ":", "-.")


def section(view: View) -> Section | None:
    """Cumulative distributions of TTFT and of the gaps between tokens."""
    families = [(name, label) for name, label in SHOWN if any(len(_pool(view, v, name)) > 1 for v in view.measured)]
    return Section("distributions", "Distributions", (cumulative(view, families),)) if families else None


def cumulative(view: View, families: list[tuple[str, str]]) -> Figure:
    """Empirical distribution functions, variants laid over each other."""
    variants = [variant for variant in view.measured if any(len(_pool(view, variant, name)) for name, _ in families)]

    def paint(drawing: Drawing, width: int) -> None:
        narrow = width == NARROW
        shape = (len(families), 1) if narrow else (1, len(families))
        for axes, (name, label) in zip(drawing.subplots(*shape, squeeze=False).flat, families, strict=True):
            _curves(axes, view, variants, name)
            axes.set_xlabel(label)
            axes.set_ylabel("share of requests" if FAMILIES[name].column else "share of gaps")
        lines = axes.get_lines()[: len(variants)]
        drawing.legend(
            lines, variants, loc="outside upper left", ncols=1 if narrow else min(3, len(variants)), labelcolor=INK
        )

    legend = 22 * len(variants)
    medians = [f"{variant} {quantity(view.value(variant, 'ttft.p50'), 'ms')}" for variant in variants]
    return figure(
        paint,
        (290 + 22 * (1 + len(variants) // 3), 240 * len(families) + legend),
        "Share of values at or below each point, over the steady requests of all valid launches. Long right ends "
        "are tails; steps or bends are mixtures, such as prompts of several lengths.",
        "Distribution of TTFT, medians: " + listed(medians),
    )


def _curves(axes: Axes, view: View, variants: list[str], family: str) -> None:
    ends = []
    for variant in variants:
        values = np.sort(_pool(view, variant, family))
        if len(values) == 0:
            axes.plot([], [])
            continue
        shares = np.arange(1, len(values) + 1) / len(values)
        if len(values) > POINTS:
            # Finer towards the tail, where the corners are far apart.
            chosen = np.unique(
                np.concatenate([np.linspace(0, len(values) - 1, POINTS), len(values) - 1 - np.arange(20)]).astype(int)
            )
            values, shares = values[chosen], shares[chosen]
        place = view.variants.index(variant)
        axes.step(values, shares, where="post", color=colour(place), linestyle=DASHES[place // COLOURS % len(DASHES)])
        ends += [values[0], values[-1]]
    axes.set_ylim(0, 1.01)
    axes.set_yticks([0, 0.5, 0.9, 1], ["0", "50 %", "90 %", "100 %"])
    if ends and min(ends) > 0 and max(ends) > 6 * min(ends):
        axes.set_xscale("log")
        milliseconds(axes)


def _pool(view: View, variant: str, family: str) -> Values:
    return view.run.reduction.pooled.get(variant, {}).get(family, np.empty(0))
