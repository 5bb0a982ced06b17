"""The trade: what quantization does to the answers, beside what it does to speed, memory and energy."""

from __future__ import annotations

from matplotlib.figure import Figure as Drawing

from bench.analyse.metrics import metric
from bench.quality import answers, divergence
from bench.quality.divergence import Quality
from bench.quality.estimate import Estimate
from bench.report.blocks import Block, Cell, Column, Figure, Fold, Prose, Section, Table
from bench.report.drawing import MARKERS, colour, figure
from bench.report.numbers import decimals, interval, listed, number
from bench.report.sections.summary import measured
from bench.report.view import View

SPEED = ("output_throughput", "cold_ttft", "memory.peak", "energy.per_token")


def section(view: View) -> Section | None:
    """Nothing where the scenario asks for no quality."""
    if not isinstance(view.run.scenario.get("quality"), dict) or view.reference is None:
        return None
    reference = answers.of_variant(view.run, view.reference)
    found = {variant: divergence.compare(reference, answers.of_variant(view.run, variant)) for variant in view.measured}
    blocks: list[Block] = [trade(view, found)]
    if (drawn := pareto(view, found)) is not None:
        blocks.append(drawn)
    blocks += [Prose((METHOD,)), *_answers(found)]
    return Section("quality", f"The trade, against {view.reference}", tuple(blocks))


METHOD = (
    "KL divergence is from the reference's next-token probabilities to the variant's, in nats per token over the "
    "evaluation texts; perplexity is over the same texts; agreement counts greedy answers that are the same to the "
    "end. Intervals are 95 %, over documents. Answers of a model with random weights say nothing about quality, and "
    "none is given for one."
)


def trade(view: View, found: dict[str, Quality]) -> Table:
    """Speed, memory, energy and quality of each variant in one row."""
    ttft = [f"{name}.p50" for name in view.all_lengths()] or ["ttft.p50"]
    names = [name for name in (*ttft, *SPEED) if view.known(name)]
    places = {name: decimals(view.value(variant, name) for variant in view.measured) for name in names}
    head = (
        Column("variant"),
        *(Column(metric(name).title, metric(name).unit, numeric=True) for name in names),
        Column("KL", "nats per token", numeric=True),
        Column("perplexity", numeric=True),
        Column("same answers", numeric=True),
    )
    rows = []
    for variant, quality in found.items():
        share = quality.agreement.share if quality.agreement else Estimate.null(quality.agreement_reason or "")
        rows.append(
            (
                Cell(variant, colour=view.colour(variant)),
                *(measured(view.row(variant, name), name, places[name]) for name in names),
                Cell("reference", tone="muted")
                if variant == quality.against
                else _estimate(quality.kl, 4, quality.kl_kind or ""),
                _estimate(quality.perplexity, 2),
                Cell("reference", tone="muted")
                if variant == quality.against
                else _estimate(share, 0, scale=100, unit=" %"),
            )
        )
    return Table(head, tuple(rows))


def _estimate(estimate: Estimate, places: int, kind: str = "", scale: float = 1.0, unit: str = "") -> Cell:
    if estimate.value is None:
        return Cell("–", estimate.reason or "", "muted")
    low, high = (None if end is None else scale * end for end in (estimate.low, estimate.high))
    note = " ".join(part for part in (interval(low, high, places), kind if kind != "exact" else "") if part)
    return Cell(number(scale * estimate.value, places) + unit, note)


def pareto(view: View, found: dict[str, Quality]) -> Figure | None:
    """Throughput against divergence: what is up and left of another is better in both."""
    points = [
        (variant, pace, quality.kl.value if variant != quality.against else 0.0)
        for variant, quality in found.items()
        if (pace := view.value(variant, "output_throughput")) is not None
    ]
    drawn = [(variant, pace, kl) for variant, pace, kl in points if kl is not None]
    if len(drawn) < 2:
        return None

    def paint(drawing: Drawing, width: int) -> None:
        axes = drawing.subplots()
        for variant, pace, kl in drawn:
            tint = view.colour(variant)
            axes.plot(kl, pace, MARKERS[tint], color=colour(tint), markersize=9)
            axes.annotate(variant, (kl, pace), (9, 0), textcoords="offset points", va="center", fontsize=11)
        axes.margins(x=0.25, y=0.2)
        axes.set_xlim(left=-0.04 * max(kl for _, _, kl in drawn))
        axes.set_ylim(bottom=0)
        axes.set_xlabel("KL divergence from the reference, nats per token")
        axes.set_ylabel("output, tok/s")

    return figure(
        paint,
        (280, 280),
        "Speed against divergence. The reference lies at zero; what is higher and further left is better in both.",
        "Speed and divergence: "
        + listed(f"{variant} {number(pace)} tok/s at {number(kl, 4)} nats" for variant, pace, kl in drawn),
    )


def _answers(found: dict[str, Quality]) -> list[Block]:
    """The founding use cases, both answers side by side."""
    folds: list[Block] = []
    for variant, quality in found.items():
        if variant == quality.against or not quality.agreement or not quality.agreement.founding:
            continue
        rows = tuple(
            (
                Cell(
                    pair.label.removeprefix("founding:").replace("-", " "), f"turn {pair.turn + 1}" if pair.turn else ""
                ),
                Cell(pair.reference),
                Cell(pair.answer),
                Cell(
                    "the same" if pair.equal else f"{pair.agreed} of {pair.length}",
                    f"{pair.units} until they part" if not pair.equal else "",
                ),
            )
            for pair in quality.agreement.founding
        )
        head = (Column("question"), Column(quality.against), Column(variant), Column("agree"))
        folds.append(Fold(f"Answers of {variant} beside those of {quality.against}", (Table(head, rows),)))
    return folds
