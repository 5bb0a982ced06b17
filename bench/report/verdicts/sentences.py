"""Comparisons and figures as words, the same for every renderer."""

from __future__ import annotations

from collections.abc import Sequence

from bench.judge.compare import Comparison
from bench.judge.gate import Judgement
from bench.judge.result import Result
from bench.phrases import counted
from bench.report.numbers import allowed, detectable, moved, span

COLUMNS = ("metric", "baseline", "candidate", "change", "interval", "margin", "verdict")


def name(comparison: Comparison) -> str:
    """A comparison in two words."""
    return f"{comparison.a.label} → {comparison.b.label}"


def losses(comparison: Comparison) -> list[str]:
    """Launches that are missing, side by side, by name."""
    return [
        f"{side.label}: {kind} in {why}"
        for side in (comparison.a, comparison.b)
        for kind, names in (("failed", side.failed), ("invalid", side.invalid))
        for why in names
    ]


def figure(value: float | None) -> str:
    """Four digits, or a dash where there is nothing."""
    if value is None:
        return "–"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def cells(result: Result) -> tuple[str, ...]:
    """A result as a row of COLUMNS; a metric without margin shows its remark instead of a verdict."""
    unit = f" [{result.metric.unit}]" if result.metric.unit else ""
    return (
        f"{result.metric.title}{unit}",
        figure(result.a),
        figure(result.b),
        moved(result),
        span(result),
        allowed(result.margin, points=result.metric.by_difference),
        result.verdict.value if result.verdict else result.reason,
    )


def behind(comparison: Comparison) -> str:
    """What a comparison rests on."""
    blocks = max((result.decision.blocks for result in comparison.results), default=0)
    launches = comparison.a.ok + comparison.b.ok
    requests = comparison.a.requests + comparison.b.requests
    unit = comparison.unit.removesuffix("s")
    return f"{counted(blocks, unit)}, {counted(launches, 'launch')}, {counted(requests, 'request')}"


def reasons(comparison: Comparison) -> list[str]:
    """Why each gated metric got its verdict, and what else must be known to trust it."""
    if comparison.refused:
        return [comparison.refused]
    lines = []
    for result in comparison.gated:
        lines.append(f"{result.metric.title}: {result.reason}{found(result)}")
        lines += [f"{result.metric.title}: {note}" for note in result.notes]
    return [*lines, *losses(comparison)]


def found(result: Result) -> str:
    """What these data would have found, where they found nothing."""
    if result.mde is None or result.verdict is None or result.verdict.value not in {"PASS", "INCONCLUSIVE"}:
        return ""
    return f" (a change of {detectable(result)} would be found with 80 %)"


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as aligned lines: the first column to the left, figures to the right, the last to the left again."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    last = len(widths) - 1
    return [
        "  ".join(
            cell.ljust(width) if column in {0, last} else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]


def render(gate: Judgement) -> str:
    """The whole verdict."""
    lines = [gate.headline, f"  {gate.promise}"]
    if gate.advisory:
        lines.append(f"  advice only, exit 0: {gate.advisory}")
    lines += [f"  note: {note}" for note in gate.notes]
    for comparison in gate.comparisons:
        lines += ["", *compared(comparison)]
    return "\n".join(lines)


def compared(comparison: Comparison) -> list[str]:
    """One comparison: a table, and the reasons under it."""
    word = f"{comparison.verdict}: " if comparison.verdict else ""
    title = f"{word}{name(comparison)}"
    if comparison.refused:
        return [title, *(f"  {line}" for line in comparison.refused.splitlines())]
    shown = [title + f"   ({behind(comparison)})"]
    if comparison.results:
        shown += [f"  {line}" for line in columns([COLUMNS, *(cells(result) for result in comparison.results)])]
    return [*shown, *(f"  · {line}" for line in [*comparison.notes, *reasons(comparison)])]
