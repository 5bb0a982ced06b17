"""Every variant against the baseline: the verdict in words first, then the ratios, then the pairs they come from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bench.analyse.metrics import metric
from bench.errors import BenchError
from bench.judge.compare import Comparison
from bench.judge.decide import Verdict
from bench.judge.gate import comparisons, policy
from bench.phrases import listed
from bench.report.elements import Block, Cell, Fold, Heading, Note, Notes, Prose, Section, Table, Tone
from bench.report.numbers import allowed, decimals, detectable, moved, number, span
from bench.report.ratios import forest, pairs
from bench.report.verdicts.sentences import behind, losses
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
CANDIDATES, PANELS = 8, 8
# What the words name, where it differs.
TOLD = ("ttft.p50", "output_throughput", "cold_ttft", "memory.peak", "energy.per_token")


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
                f"{metric(name).title} {allowed(margin, points=metric(name).by_difference, page=True)}"
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
    changed = {result.metric.id: result for result in comparison.results if result.reason in ("worse", "better")}
    told = [changed[name] for name in TOLD if name in changed] or list(changed.values())[:3]
    words = listed(f"{result.metric.title} {moved(result, page=True)} ({span(result, page=True)})" for result in told)
    blank = "no difference found" if comparison.results else "nothing in common to compare"
    rest = f" From {behind(comparison)}." + (f" {'; '.join(lost)}." if lost else "")
    return Note(f"{name}:", f"{words or blank}.{rest}")


def table(view: View, compared: Sequence[Comparison], *, gated_only: bool = False) -> Table:
    """One row per candidate and metric; only those with a margin, if so asked."""
    head = (
        Heading("variant"),
        Heading("metric"),
        Heading("baseline", "median", numeric=True),
        Heading("variant", "median", numeric=True),
        Heading("change", "90 % interval", numeric=True),
        Heading("margin", numeric=True),
        Heading("detectable", "with 80 %", numeric=True),
        Heading("says"),
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
                    Cell(moved(result, page=True), span(result, page=True)),
                    Cell(allowed(result.margin, points=result.metric.by_difference, page=True)),
                    Cell(detectable(result, page=True)),
                    verdict,
                )
            )
    return Table(head, tuple(rows))
