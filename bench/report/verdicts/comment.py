"""A gate's verdict as Markdown, for a job summary or a comment on a pull request."""

from __future__ import annotations

from bench.judge.compare import Comparison
from bench.judge.decide import Verdict
from bench.judge.gate import Gate
from bench.report.verdicts.sentences import COLUMNS, behind, cells, name, reasons

MARKS = {Verdict.PASS: "🟢", Verdict.FAIL: "🔴", Verdict.INCONCLUSIVE: "🟡", Verdict.INVALID: "⚪"}
# Finds our own comment again, so that it is updated and not repeated.
MARKER = "<!-- firsttoken gate -->"


def render(gate: Gate) -> str:
    """The whole verdict."""
    lines = [
        MARKER,
        f"### {MARKS[gate.verdict] if gate.verdict else MARKS[Verdict.INVALID]} {escape(gate.headline)}",
        "",
        escape(gate.promise),
    ]
    if gate.advisory:
        lines += ["", f"> **Advisory.** {escape(gate.advisory)}"]
    lines += [f"> {escape(note)}" for note in gate.notes]
    for comparison in gate.comparisons:
        lines += ["", *compared(comparison)]
    return "\n".join(lines)


def compared(comparison: Comparison) -> list[str]:
    """One comparison: a table, and the reasons folded under it."""
    mark = f"{MARKS[comparison.verdict]} " if comparison.verdict else ""
    lines = [f"**{mark}{escape(name(comparison))}** — {behind(comparison)}", ""]
    if comparison.results:
        lines += [row(COLUMNS), row(["---", *["---:"] * (len(COLUMNS) - 2), "---"])]
        lines += [row([escape(cell) for cell in cells(result)]) for result in comparison.results]
        lines.append("")
    why = [*comparison.notes, *reasons(comparison)]
    if why:
        lines += ["<details><summary>why</summary>", "", *(f"- {escape(line)}" for line in why), "", "</details>"]
    return lines


def row(cells: list[str] | tuple[str, ...]) -> str:
    """A table row."""
    return "| " + " | ".join(cells) + " |"


def escape(text: str) -> str:
    """Text that stays text: no table breaks, no tags, no emphasis from what an engine's log said."""
    for mark in "\\|<>*_`[]":
        text = text.replace(mark, f"\\{mark}")
    return " ".join(text.splitlines())
