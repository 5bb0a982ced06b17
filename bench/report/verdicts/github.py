"""A gate's verdict as GitHub workflow commands: annotations on the run and on the scenario file."""

from __future__ import annotations

from bench.judge.decide import Verdict
from bench.judge.gate import Judgement
from bench.report.numbers import moved
from bench.report.verdicts.sentences import name, reasons

LEVELS = {
    Verdict.PASS: "notice",
    Verdict.FAIL: "error",
    Verdict.INCONCLUSIVE: "warning",
    Verdict.INVALID: "error",
}


def render(gate: Judgement, file: str | None = None) -> str:
    """One line per comparison; an advisory gate only warns. `file` puts them on the scenario."""
    lines = []
    for comparison in gate.comparisons:
        verdict = comparison.verdict or Verdict.INVALID
        level = LEVELS[verdict]
        if gate.advisory and verdict is Verdict.FAIL:
            level = "warning"
        changes = ", ".join(f"{result.metric.title} {moved(result)}" for result in comparison.results if result.margin)
        body = "\n".join(
            filter(None, [changes, *reasons(comparison), gate.advisory and f"Advice only: {gate.advisory}"])
        )
        where = f"file={_property(file)}," if file else ""
        word = f"ADVISORY {verdict}" if gate.advisory else verdict
        title = _property(f"firsttoken {word}: {name(comparison)}")
        lines.append(f"::{level} {where}title={title}::{_data(body)}")
    return "\n".join(lines)


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
