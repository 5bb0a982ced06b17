"""A published claim, sentence by sentence, beside what was measured."""

from __future__ import annotations

from collections.abc import Iterable

from bench.analyse.claims import Finding
from bench.report.elements import Cell, Column, Table, Tone

HOLDS: dict[str, Tone] = {"holds": "good", "does not hold": "bad", "not shown": "muted"}


def claimed(findings: Iterable[Finding], caption: str) -> Table:
    """One row per sentence."""
    rows = tuple(
        (Cell(finding.claim), Cell(finding.holds, tone=HOLDS[finding.holds]), Cell(finding.evidence))
        for finding in findings
    )
    return Table((Column("claim"), Column("here"), Column("evidence")), rows, caption)
