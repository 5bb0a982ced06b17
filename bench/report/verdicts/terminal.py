"""A gate's verdict as plain text: the word first, then the figures, then why."""

from __future__ import annotations

from bench.judge.compare import Comparison
from bench.judge.gate import Judgement
from bench.report.verdicts.sentences import COLUMNS, behind, cells, columns, name, reasons


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
