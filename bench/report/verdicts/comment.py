"""A gate's verdict as Markdown, for a job summary or a comment on a pull request."""

from __future__ import annotations

from bench.judge.compare import Comparison
from bench.judge.decide import Verdict
from bench.judge.gate import Judgement
from bench.phrases import escaped
from bench.report.verdicts.sentences import COLUMNS, behind, cells, name, reasons

MARKS = {Verdict.PASS: "🟢", Verdict.FAIL: "🔴", Verdict.INCONCLUSIVE: "🟡", Verdict.INVALID: "⚪"}
# Finds our own comment again, so that it is updated and not repeated.
MARKER = "<!-- firsttoken gate -->"


def render(gate: Judgement) -> str:
    """The whole verdict."""
    lines = [
        MARKER,
        f"### {MARKS[gate.verdict] if gate.verdict else MARKS[Verdict.INVALID]} {escaped(gate.headline)}",
        "",
        escaped(gate.promise),
    ]
    if gate.advisory:
        lines += ["", f"> **Advice only.** {escaped(gate.advisory)}"]
    lines += [f"> {escaped(note)}" for note in gate.notes]
    for comparison in gate.comparisons:
        lines += ["", *compared(comparison)]
    return "\n".join(lines)


def compared(comparison: Comparison) -> list[str]:
    """One comparison: a table, and the reasons folded under it."""
    mark = f"{MARKS[comparison.verdict]} " if comparison.verdict else ""
    lines = [f"**{mark}{escaped(name(comparison))}** — {behind(comparison)}", ""]
    if comparison.results:
        lines += [row(COLUMNS), row(["---", *["---:"] * (len(COLUMNS) - 2), "---"])]
        lines += [row([escaped(cell) for cell in cells(result)]) for result in comparison.results]
        lines.append("")
    why = [*comparison.notes, *reasons(comparison)]
    if why:
        lines += ["<details><summary>why</summary>", "", *(f"- {escaped(line)}" for line in why), "", "</details>"]
    return lines


def row(cells: list[str] | tuple[str, ...]) -> str:
    """A table row."""
    return "| " + " | ".join(cells) + " |"
