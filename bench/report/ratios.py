"""Figures of comparisons: ratios with their margins, and the pairs of launches that they come from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bench.judge.compare import Comparison
from bench.judge.result import Result
from bench.phrases import listed
from bench.report.drawing import BAD, INK, MUTED, NARROW, colour, figure
from bench.report.elements import Figure
from bench.report.numbers import change, count
from bench.report.view import View

# Metrics that a candidate can have in the figure, and which come first.
METRICS = 7
FOREST = ("ttft.p50", "tpot.p50", "output_throughput", "first_ttft", "cold_ttft", "memory.peak", "energy.per_token")
TICKS = (0.1, 0.2, 0.5, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0)


def forest(view: View, compared: Sequence[Comparison]) -> Figure:
    """Ratios to the baseline with their intervals; the shaded side is worse, ticks are the margins."""
    shown = {comparison.b.label: _shown(comparison) for comparison in compared}
    lines = sum(len(results) + 1.3 for results in shown.values())

    def paint(drawing: Drawing, width: int) -> None:
        axes = drawing.subplots()
        place, labels = 0.0, []
        for label, results in shown.items():
            axes.annotate(
                label,
                (0, place),
                xycoords=("axes fraction", "data"),
                fontweight="bold",
                va="center",
                annotation_clip=False,
                color=INK,
            ).set_in_layout(False)
            for result in results:
                place += 1
                _row(axes, place, result, colour(view.colour(label)))
                labels.append((place, result.metric.title))
            place += 1.3
        axes.axvline(1, color=MUTED, linewidth=1)
        _ratio_axis(axes, [result.ratio for results in shown.values() for result in results if result.ratio])
        axes.set_ylim(place - 0.6, -0.7)
        axes.set_yticks([at for at, _ in labels], [text for _, text in labels])
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("change against the baseline")

    height = int(60 + 21 * lines)
    return figure(
        paint,
        (height, height),
        "Change of each metric with its 90 % interval. A red tick is the margin: an interval wholly beyond it "
        "fails, one wholly short of it passes, one that crosses it decides nothing. Right is more: worse for times "
        "and memory, better for throughput.",
        "Ratios to the baseline: " + listed(_spoken(label, results) for label, results in shown.items()),
    )


def _shown(comparison: Comparison) -> list[Result]:
    """The gated metrics, and of the others those that most is asked about."""
    known = {result.metric.id: result for result in comparison.results if result.bounds}
    wanted = [*(result.metric.id for result in comparison.gated), *FOREST, *known]
    return [known[name] for name in dict.fromkeys(wanted) if name in known][:METRICS]


def _row(axes: Axes, place: float, result: Result, tint: str) -> None:
    assert result.bounds is not None
    assert result.ratio is not None
    axes.plot(result.bounds, [place, place], color=tint, linewidth=2.2, solid_capstyle="butt")
    axes.plot([result.ratio], [place], "o", color=tint, markersize=6)
    if result.limit is not None:
        axes.plot([result.limit] * 2, [place - 0.36, place + 0.36], color=BAD, linewidth=1.6)


def _ratio_axis(axes: Axes, ratios: Sequence[float]) -> None:
    """Equal distances for equal ratios; an interval that says next to nothing may run out of the picture."""
    low, high = axes.get_xlim()
    low = max(min(low, 0.95), min(0.2, *ratios) / 1.1)
    high = min(max(high, 1.05), 1.1 * max(5.0, *ratios))
    axes.set_xscale("log")
    axes.set_xlim(low, high)
    # As many ticks as have room beside each other, the unchanged one first.
    apart = math.log(high / low) / 9
    ticks = [1.0]
    for tick in (tick for tick in TICKS if low <= tick <= high):
        if all(abs(math.log(tick / other)) >= apart for other in ticks):
            ticks.append(tick)
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _percent(value)))


def _percent(ratio: float) -> str:
    return "same" if ratio == 1 else f"{ratio - 1:+.0%}".replace("-", "−") if ratio < 3 else f"×{ratio:.3g}"


def _spoken(label: str, results: Sequence[Result]) -> str:
    return f"{label} " + ", ".join(f"{result.metric.title} {change(result.ratio)}" for result in results[:3])


def pairs(view: View, compared: Sequence[Comparison]) -> Figure:
    """The launches behind the ratios: each line is a block, from the baseline's launch to the candidate's."""
    chosen = [(comparison, result) for comparison in compared if (result := _paired(comparison))]

    def paint(drawing: Drawing, width: int) -> None:
        across = min(len(chosen), 2 if width == NARROW else 4)
        grid = drawing.subplots(math.ceil(len(chosen) / across), across, squeeze=False, sharey=True)
        for axes, (comparison, result) in zip(grid.flat, chosen, strict=False):
            for pair in result.pairs:
                worse = (pair.b > pair.a) == (result.metric.direction != "higher")
                axes.plot([0, 1], [pair.a, pair.b], color=MUTED, linewidth=1.2, linestyle="-" if worse else (0, (4, 2)))
                axes.plot([0], [pair.a], "o", color=colour(view.colour(comparison.a.label)), markersize=5)
                axes.plot([1], [pair.b], "o", color=colour(view.colour(comparison.b.label)), markersize=5)
            axes.set_xlim(-0.25, 1.25)
            axes.set_xticks([0, 1], ["baseline", "variant"])
            axes.grid(axis="x", visible=False)
            axes.set_title(comparison.b.label, fontsize=11)
        for axes in grid.flat[len(chosen) :]:
            axes.set_visible(False)
        for axes in grid[:, 0]:
            axes.set_ylabel(f"{chosen[0][1].metric.title}, {chosen[0][1].metric.unit}")

    blocks = sum(len(result.pairs) for _, result in chosen)
    return figure(
        paint,
        (60 + 190 * math.ceil(len(chosen) / 4), 60 + 190 * math.ceil(len(chosen) / 2)),
        "Each line is one block: the baseline's launch and the variant's launch beside it. Full lines got worse, "
        "dashed ones better; lines that run alike mean a difference that does not hang on one launch.",
        f"{chosen[0][1].metric.title} by block: {count(blocks, 'pair')} of launches",
    )


def _paired(comparison: Comparison) -> Result | None:
    ordered: Iterator[Result] = iter((*comparison.gated, *comparison.results))
    wanted = [result for result in ordered if result.pairs]
    return next((result for result in wanted if result.metric.id == "ttft.p50"), wanted[0] if wanted else None)
