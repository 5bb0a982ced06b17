"""A fleet run's page, from its ledger and the runs that came back."""

from __future__ import annotations

from pathlib import Path

from bench.analyse.run import Run
from bench.fleet.ledger import Ledger, Member
from bench.record.store import RunFolder
from bench.report import html
from bench.report.shelf import Shelf, ShelfRow, page


def write(folder: Path, ledger: Ledger, reports: Path) -> Path:
    """Write the page of a fleet run; its path."""
    return html.write_page(page(shelf_of(folder, ledger)), reports / f"fleet-{ledger.fleet}-{ledger.id}.html")


def shelf_of(folder: Path, ledger: Ledger) -> Shelf:
    """A fleet run as its page sees it: only what finished has figures."""
    runs = {scenario: dict(_runs(folder, ledger, scenario)) for scenario in ledger.scenarios}
    return Shelf(
        name=ledger.fleet,
        id=ledger.id,
        places=[_place(member) for member in ledger.members],
        runs={scenario: found for scenario, found in runs.items() if found},
        notes=ledger.notes,
        emulated=next((run.manifest.emulated for found in runs.values() for run in found.values()), ledger.emulated),
    )


def _runs(folder: Path, ledger: Ledger, scenario: str) -> list[tuple[str, Run]]:
    return [
        (member.alias, Run(RunFolder.open(folder / "boards" / member.alias / outcome.run)))
        for member in ledger.of("finished")
        for outcome in member.outcomes
        if outcome.scenario == scenario and outcome.run is not None
    ]


def _place(member: Member) -> ShelfRow:
    planned = [outcome.planned for outcome in member.outcomes if outcome.planned is not None]
    recorded = [outcome.recorded for outcome in member.outcomes if outcome.recorded is not None]
    return ShelfRow(
        member.alias,
        member.state,
        member.reason,
        member.host_class,
        member.clock_offset_s,
        sum(planned) if planned else None,
        sum(recorded) if recorded else None,
    )
