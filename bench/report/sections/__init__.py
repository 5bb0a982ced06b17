"""The parts of a report, in the order in which they are read. Each is a function of a view that gives one section, or
None where the run has nothing of the kind; a new part is a new module and a line here."""

from __future__ import annotations

from collections.abc import Callable

from bench.report.elements import Section
from bench.report.sections import (
    client,
    coldstart,
    comparison,
    distributions,
    first,
    founding,
    handover,
    headline,
    launches,
    layers,
    load,
    machine,
    nulls,
    quality,
    requests,
    resources,
    summary,
    timeline,
    trouble,
    validity,
    warmups,
)
from bench.report.view import View

SECTIONS: tuple[Callable[[View], Section | None], ...] = (
    headline.section,
    summary.section,
    first.section,
    requests.section,
    distributions.section,
    load.section,
    layers.section,
    comparison.section,
    quality.section,
    launches.section,
    coldstart.section,
    handover.section,
    warmups.section,
    founding.section,
    resources.section,
    timeline.section,
    validity.section,
    trouble.section,
    client.section,
    nulls.section,
    machine.section,
)

# Of a run of which no launch counts.
REASONS = (headline.section, trouble.section, validity.section, nulls.section, machine.section)


def order(view: View) -> tuple[Callable[[View], Section | None], ...]:
    """The parts of this run's report: where no launch counts, the reasons, and nothing that would draw figures."""
    return (
        SECTIONS
        if view.measured
        else (headline.section, trouble.section, validity.section, nulls.section, machine.section)
    )
