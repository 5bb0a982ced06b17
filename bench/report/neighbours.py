"""What must be said of other programs on the processors, before any figure."""

from __future__ import annotations

from collections.abc import Iterator

from bench.analyse.crowd import Crowd, crowd
from bench.report.elements import Note
from bench.report.view import View


def of(view: View) -> Crowd:
    """The run's launches by what neighbours did to them."""
    return crowd(launch.record for launch in view.run.all)


def contended(view: View) -> str | None:
    """The report's first sentence where engines had to wait for other programs; None where none had."""
    words = of(view).contended
    return f"Contended: {words}, so these figures are not the engine's alone." if words else None


def notes(view: View) -> Iterator[Note]:
    """Others that ran beside the engine, and launches of which nobody knows."""
    found = of(view)
    if found.accompanied:
        shared = "The engine hardly waited for them; caches, memory and clocks were shared all the same."
        yield Note(f"{found.accompanied[0].upper()}{found.accompanied[1:]}.", shared, "warn")
    if found.unknown:
        yield Note(f"{found.unknown[0].upper()}{found.unknown[1:]}.", tone="warn")


def crowded_variants(view: View) -> frozenset[str]:
    """The variants with a launch that had to wait for others."""
    return frozenset(record.variant for record in of(view).waited)
