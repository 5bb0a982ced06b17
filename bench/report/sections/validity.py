"""The validity panel: every rule, its limit, and what was seen, variant by variant."""

from __future__ import annotations

from bench.analyse.run import Launch
from bench.record.launches import Check
from bench.report.elements import Block, Cell, Fold, Heading, Section, Table, Tone
from bench.report.numbers import count
from bench.report.view import View

# The gravest first: a variant's cell shows the worst that any of its launches saw.
ORDER = ("violated", "warning", "unknown", "ok")
TONES: dict[str, Tone] = {"violated": "bad", "warning": "warn", "unknown": "muted", "ok": "good"}


def section(view: View) -> Section | None:
    """One row per rule."""
    launches = {
        variant: [la for la in view.run.all if la.record.variant == variant and la.record.checks]
        for variant in view.variants
    }
    launches = {variant: found for variant, found in launches.items() if found}
    if not launches:
        return None
    rules: dict[str, Check] = {}
    for found in launches.values():
        for launch in found:
            for check in launch.record.checks:
                rules.setdefault(check.name, check)
    rows = [
        (
            Cell(_words(name), f"limit: {check.limit}" if check.limit else ""),
            *(_cell(found, name) for found in launches.values()),
        )
        for name, check in sorted(
            rules.items(), key=lambda item: _worst([la for f in launches.values() for la in f], item[0])
        )
    ]
    blocks: list[Block] = [Table((Heading("rule"), *(Heading(variant) for variant in launches)), tuple(rows))]
    if details := _details(view):
        blocks.append(Fold(f"{count(len(details.rows), 'finding')}, launch by launch, with remedies", (details,)))
    return Section("validity", "Is it a measurement?", tuple(blocks))


def _checks(launches: list[Launch], name: str) -> list[Check]:
    return [check for launch in launches for check in launch.record.checks if check.name == name]


def _worst(launches: list[Launch], name: str) -> int:
    return min((ORDER.index(check.status) for check in _checks(launches, name)), default=len(ORDER))


def _cell(launches: list[Launch], name: str) -> Cell:
    checks = _checks(launches, name)
    if not checks:
        return Cell("–", tone="muted")
    status = ORDER[_worst(launches, name)]
    shown = [check for check in checks if check.status == status]
    part = "" if len(shown) == len(launches) else f" in {len(shown)} of {len(launches)}"
    return Cell(f"{status}{part}", shown[0].evidence, TONES[status])


def _details(view: View) -> Table | None:
    rows = [
        (
            Cell(launch.id),
            Cell(_words(check.name)),
            Cell(check.status, tone=TONES[check.status]),
            Cell(check.evidence, check.remedy or ""),
        )
        for launch in view.run.all
        for check in launch.record.checks
        if check.status in ("violated", "warning")
    ]
    head = (Heading("launch"), Heading("rule"), Heading("finding"), Heading("evidence", "and remedy"))
    return Table(head, tuple(rows[:200])) if rows else None


def _words(name: str) -> str:
    return name.replace("_", " ").replace(".", ": ")
