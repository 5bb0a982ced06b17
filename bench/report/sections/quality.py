"""The trade: what quantization does to the answers, beside what it does to speed, memory and energy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure as Drawing

from bench.analyse import answers
from bench.analyse.divergence import Divergence, perplexity
from bench.analyse.estimate import Estimate
from bench.analyse.metrics import metric
from bench.judge.gate import limits as limits_of
from bench.judge.trade import Trade, trades
from bench.phrases import listed
from bench.record.launches import FactValue
from bench.report.claims import claimed, of_awq
from bench.report.drawing import MARKERS, colour, figure
from bench.report.elements import Block, Cell, Figure, Fold, Heading, Note, Notes, Prose, Section, Table
from bench.report.numbers import change, changes, decimals, duration, interval, number
from bench.report.sections.comparison import TONES
from bench.report.sections.summary import measured
from bench.report.view import View

SPEED = ("output_throughput", "cold_ttft", "memory.peak", "energy.per_token")
CLAIM = "“4-bit AWQ: 280 MB instead of 600, 12 % faster, quality nearly lossless”"


def section(view: View) -> Section | None:
    """Nothing where the scenario asks for no quality."""
    if view.reference is None or view.reference not in view.variants:
        return None
    found = trades(view.run)
    blocks: list[Block] = [Notes(tuple(_words(trade) for trade in found)), table(view, found)]
    if (drawn := pareto(view, found)) is not None:
        blocks.append(drawn)
    if limits := limits_of(view.run):
        rows = tuple((Cell(one.variant), Cell(one.verdict.value, one.reason, TONES[one.verdict])) for one in limits)
        blocks.append(Table((Heading("variant"), Heading("limit on the divergence")), rows))
    blocks += [
        claimed(sentences, f"{CLAIM}: {trade.variant} on this machine")
        for trade in found
        if (sentences := of_awq(view.run, trade))
    ]
    blocks += [Prose((METHOD, *_effort(view))), *(fold for trade in found for fold in _answers(trade.quality))]
    return Section("quality", f"The trade, against {view.reference}", tuple(blocks))


def _words(trade: Trade) -> Note:
    told = trade.sentence.removeprefix(f"{trade.variant}: ")
    return Note(f"{trade.variant}:", f"{told}.", "" if trade.status == "ok" else "warn")


def _effort(view: View) -> tuple[str, ...]:
    """What asking the questions took."""
    took = [seconds for launch in view.run.all if (seconds := answers.seconds(launch)) is not None]
    if not took:
        return ()
    each = f"{duration(min(took))} to {duration(max(took))}" if len(took) > 1 else duration(took[0])
    return (f"The questions are asked once per variant, after the measurement, and took {each} each.",)


METHOD = (
    "KL divergence is from the reference's next-token probabilities to the variant's, in nats per token over the "
    "evaluation texts; perplexity is over the same texts; agreement counts greedy answers that are the same to the "
    "end. Intervals are 95 %, of speed and memory over blocks, of quality over documents. Answers of a model with "
    "random weights say nothing about quality, and none is given for one."
)


def table(view: View, found: Sequence[Trade]) -> Table:
    """Speed, memory, energy and quality in one row, each with its interval; below it the ratio to the reference."""
    assert view.reference is not None
    ttft = [f"{name}.p50" for name in view.all_lengths()] or ["ttft.p50"]
    names = [name for name in (*ttft, *SPEED) if view.known(name)]
    places = {name: decimals(view.value(variant, name) for variant in view.measured) for name in names}
    head = (
        Heading("variant", "ratio to the reference"),
        *(Heading(metric(name).title, metric(name).unit, numeric=True) for name in names),
        Heading("weights", "MiB on disk", numeric=True),
        Heading("KL", "nats per token", numeric=True),
        Heading("perplexity", numeric=True),
        Heading("same answers", numeric=True),
    )
    theirs = answers.of_variant(view.run, view.reference)
    own = perplexity(theirs) if theirs.texts else Estimate.null(theirs.reason or "no text was read")
    itself = Cell("–", "itself", "muted")
    rows = [
        (
            Cell(view.reference, "the reference", colour=view.colour(view.reference)),
            *(measured(view.row(view.reference, name), name, places[name]) for name in names),
            _weights(view, view.reference),
            itself,
            _estimate(own, 2),
            itself,
        )
    ]
    for trade in found:
        rows += _rows(view, trade, names, places)
    return Table(head, tuple(rows))


def _rows(view: View, trade: Trade, names: Sequence[str], places: Mapping[str, int]) -> list[tuple[Cell, ...]]:
    """A variant's figures and, below them, their ratios to the reference; or why it does not run here."""
    variant, quality = trade.variant, trade.quality
    name = Cell(variant, colour=view.colour(variant))
    if trade.status != "ok":
        return [(name, Cell(trade.status, trade.reason or "", "bad"), *(Cell("–", tone="muted"),) * (len(names) + 3))]
    share = quality.agreement.share if quality.agreement else Estimate.null(quality.agreement_reason or "")
    figures = (
        name,
        *(measured(view.row(variant, of), of, places[of]) for of in names),
        _weights(view, variant),
        _estimate(quality.kl, 4, quality.kl_kind or ""),
        _estimate(quality.perplexity, 2),
        _estimate(share, 0, scale=100, unit=" %"),
    )
    blank = Cell("")
    ratios = (blank, *(_ratio(trade, of) for of in (*names, "weights")), blank, _ratio(trade, "perplexity"), blank)
    return [figures, ratios]


def _ratio(trade: Trade, name: str) -> Cell:
    """The change against the reference, and how sure it is."""
    found = trade[name]
    if found is None or found.ratio is None:
        return Cell("–", found.reason if found else "", "muted")
    if found.certainty == "exact":
        return Cell(change(found.ratio))
    bounds = None if found.low is None or found.high is None else (found.low, found.high)
    return Cell(change(found.ratio), changes(bounds), "" if found.certainty == "sure" else "muted")


def _weights(view: View, variant: str) -> Cell:
    """Size on disk, and in memory as the engine says; null where neither is told."""
    facts: Mapping[str, FactValue] = next(
        (launch.record.facts for launch in view.valid(variant) if launch.record.facts), {}
    )
    disk, loaded = facts.get("checkpoint_bytes"), facts.get("weight_bytes")
    return Cell(_mib(disk), f"{_mib(loaded)} in memory" if loaded else "")


def _mib(size: object) -> str:
    return number(size / 2**20 if isinstance(size, int | float) else None, 0)


def _estimate(estimate: Estimate, places: int, kind: str = "", scale: float = 1.0, unit: str = "") -> Cell:
    if estimate.value is None:
        return Cell("–", estimate.reason or "", "muted")
    low, high = (None if end is None else scale * end for end in (estimate.low, estimate.high))
    note = " ".join(part for part in (interval(low, high, places), kind if kind != "exact" else "") if part)
    return Cell(number(scale * estimate.value, places) + unit, note)


def pareto(view: View, found: Sequence[Trade]) -> Figure | None:
    """Throughput against divergence: what is up and left of another is better in both."""
    assert view.reference is not None
    divergences = {view.reference: 0.0} | {
        trade.variant: trade.quality.kl.value for trade in found if trade.quality.kl.value is not None
    }
    paces = {variant: view.value(variant, "output_throughput") for variant in divergences}
    drawn = [(variant, pace, divergences[variant]) for variant, pace in paces.items() if pace is not None]
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


def _answers(quality: Divergence) -> list[Block]:
    """The founding use cases, both answers side by side."""
    if not quality.agreement or not quality.agreement.founding:
        return []
    rows = []
    for pair in quality.agreement.founding:
        question = pair.label.removeprefix("founding:").replace("-", " ")
        alike = (
            Cell("the same") if pair.equal else Cell(f"{pair.agreed} of {pair.length}", f"{pair.units} until they part")
        )
        rows.append(
            (
                Cell(question, f"turn {pair.turn + 1}" if pair.turn else ""),
                Cell(pair.reference),
                Cell(pair.answer),
                alike,
            )
        )
    head = (Heading("question"), Heading(quality.against), Heading(quality.variant), Heading("agree"))
    title = f"Answers of {quality.variant} beside those of {quality.against}"
    return [Fold(title, (Table(head, tuple(rows)),))]
