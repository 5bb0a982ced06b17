"""Every variant against the baseline: the verdict in words first, then the ratios, then the pairs they come from."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cache

from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from bench.analyse.compare import Comparison, Result
from bench.analyse.decide import Verdict
from bench.analyse.gated import comparisons, policy
from bench.analyse.metrics import metric
from bench.errors import BenchError
from bench.gate.words import behind, losses
from bench.report.blocks import Block, Cell, Column, Figure, Fold, Note, Notes, Prose, Section, Table, Tone
from bench.report.drawing import BAD, INK, MUTED, NARROW, colour, figure
from bench.report.numbers import change, changes, count, decimals, listed, number
from bench.report.view import View

TONES: dict[Verdict | None, Tone] = {
    Verdict.PASS: "good",
    Verdict.FAIL: "bad",
    Verdict.INCONCLUSIVE: "warn",
    Verdict.INVALID: "warn",
    None: "muted",
}
SAYS = {
    Verdict.PASS: "not worse than the margins allow",
    Verdict.FAIL: "worse than the margins allow",
    Verdict.INCONCLUSIVE: "the launches do not say",
    Verdict.INVALID: "not fit to judge by",
}
# Rows and panels that a figure can hold.
CANDIDATES, METRICS, PANELS = 8, 7, 8
# What the words name, where it differs.
FOREST = ("ttft.p50", "tpot.p50", "output_throughput", "first_ttft", "cold_ttft", "memory.peak", "energy.per_token")
TOLD = ("ttft.p50", "output_throughput", "cold_ttft", "memory.peak", "energy.per_token")
TICKS = (0.1, 0.2, 0.5, 0.8, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0, 50.0)


def section(view: View) -> Section | None:
    """Nothing where there is only one variant to look at."""
    compared, remark = found(view)
    if not compared:
        return None
    drawn = [comparison for comparison in compared if _drawable(comparison)]
    blocks: list[Block] = [Notes(tuple(_notes(view, compared)))]
    if drawn:
        gated = [comparison for comparison in drawn if comparison.gated]
        blocks += [table(view, gated, gated_only=True)] if gated else []
        blocks += [forest(view, drawn[:CANDIDATES]), pairs(view, drawn[:PANELS])]
        blocks.append(Fold("Every metric compared", (table(view, drawn),)))
    return Section("comparison", f"Against {compared[0].a.label}", (*blocks, Prose((remark, METHOD))))


METHOD = (
    "Each block launched both variants once, in random order; a ratio is the geometric mean of the blocks' ratios, "
    "its interval a 90 % t interval over blocks. “Detectable” is the change for the worse that these launches would "
    "have found with 80 %."
)


def found(view: View) -> tuple[list[Comparison], str]:
    """The comparisons that the gate asks for, or without one all against the baseline; and in words which."""
    if view.baseline is None:
        return [], ""
    if isinstance(view.run.scenario.get("gate"), dict):
        try:
            asked = policy(view.run)
            margins = listed(
                f"{metric(name).title} {number(margin) if margin > 1 else f'{100 * margin:g} %'}"
                for name, margin in asked.margins.items()
            )
            return list(comparisons(view.run, asked)), f"Margins of the scenario's gate: {margins}."
        except BenchError as error:
            remark = f"The scenario's gate cannot be applied: {error.message}."
    else:
        remark = "The scenario sets no margins, so these are estimates and not verdicts."
    others = [variant for variant in view.measured if variant != view.baseline]
    made = []
    for other in others:
        try:
            made.append(Comparison.of(view.run, view.baseline, other))
        except BenchError as error:
            remark += f" {other} cannot be compared: {error.message}."
    return made, remark


def _drawable(comparison: Comparison) -> bool:
    return any(result.bounds for result in comparison.results)


def _notes(view: View, compared: Sequence[Comparison]) -> Iterator[Note]:
    """One remark per comparison; those that lack a valid launch on either side share one."""
    baseline = compared[0].a.label
    if baseline not in view.measured:
        yield Note(f"{baseline}, the baseline, has no valid launch: there is nothing to compare with.", tone="warn")
        return
    absent = [comparison.b.label for comparison in compared if comparison.b.label not in view.measured]
    yield from (_words(comparison) for comparison in compared if comparison.b.label not in absent)
    if absent:
        yield Note(f"No verdict on {listed(absent)}: no valid launch.", tone="warn")


def _words(comparison: Comparison) -> Note:
    name, verdict = comparison.b.label, comparison.verdict
    if comparison.refused:
        return Note(f"{name}: cannot be compared.", comparison.refused, "warn")
    lost = losses(comparison)
    if verdict is not None:
        reasons = [f"{result.metric.title} {result.verdict}: {result.reason}" for result in comparison.gated]
        return Note(f"{name}: {verdict}, {SAYS[verdict]}.", "; ".join([*reasons, *lost]) + ".", TONES[verdict])
    moved = {result.metric.id: result for result in comparison.results if result.reason in ("worse", "better")}
    told = [moved[name] for name in TOLD if name in moved] or list(moved.values())[:3]
    words = listed(f"{result.metric.title} {change(result.ratio)} ({changes(result.bounds)})" for result in told)
    blank = "no difference found" if comparison.results else "nothing in common to compare"
    rest = f" From {behind(comparison)}." + (f" {'; '.join(lost)}." if lost else "")
    return Note(f"{name}:", f"{words or blank}.{rest}")


def table(view: View, compared: Sequence[Comparison], *, gated_only: bool = False) -> Table:
    """One row per candidate and metric; only those with a margin, if so asked."""
    head = (
        Column("variant"),
        Column("metric"),
        Column("baseline", "median", numeric=True),
        Column("variant", "median", numeric=True),
        Column("change", "90 % interval", numeric=True),
        Column("margin", numeric=True),
        Column("detectable", "with 80 %", numeric=True),
        Column("says"),
    )
    rows = []
    for comparison in compared:
        for place, result in enumerate(comparison.gated if gated_only else comparison.results):
            unit, places = result.metric.unit, decimals((result.a, result.b))
            verdict = (
                Cell(result.verdict.value, result.reason, TONES[result.verdict])
                if result.verdict
                else Cell(result.reason, tone="muted")
            )
            rows.append(
                (
                    Cell(comparison.b.label, colour=view.colour(comparison.b.label)) if place == 0 else Cell(""),
                    Cell(result.metric.title, unit),
                    Cell(number(result.a, places)),
                    Cell(number(result.b, places)),
                    Cell(change(result.ratio), changes(result.bounds)),
                    Cell(
                        f"{result.margin:.3g}"
                        if (result.margin or 0) > 1
                        else f"{result.margin:.1%}"
                        if result.margin
                        else "–"
                    ),
                    Cell("–" if result.mde is None else f"{100 * result.mde:.1f} %"),
                    verdict,
                )
            )
    return Table(head, tuple(rows))


def _margin(result: Result) -> str:
    if result.margin is None:
        return "–"
    return number(result.margin) if result.margin > 1 else f"{100 * result.margin:g} %"


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


@cache
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
