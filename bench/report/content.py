"""What a report of a run holds, before it takes a form: the sections that the run has content for, in order."""

from __future__ import annotations

from collections.abc import Callable

from bench import __version__
from bench.analyse.run import Run
from bench.errors import BenchError
from bench.report.elements import Note, Notes, Page, Section
from bench.report.numbers import count
from bench.report.sections import order
from bench.report.view import View


def document(run: Run) -> Page:
    """The content of one run's report."""
    view, manifest = View(run), run.manifest
    sections = tuple(section for make in order(view) if (section := _made(make, view)) is not None)
    description = " ".join(str(run.scenario.get("description") or "").split())
    what = f"{count(len(run.variants), 'variant')}, {count(len(run.all), 'launch')}"
    when = (manifest.created or "").replace("T", " ")[:16]
    return Page(
        title=manifest.scenario,
        subtitle=" · ".join(part for part in (description, what, when) if part),
        sections=sections,
        variants=run.variants,
        banner=manifest.emulated,
        foot=f"firsttoken {__version__}, from the records of run {manifest.run_id}; `bench report` makes it again.",
    )


def _made(make: Callable[[View], Section | None], view: View) -> Section | None:
    """A section; one that our own fault keeps from being made says so, and the others are there all the same."""
    try:
        return make(view)
    except BenchError as error:
        said = error.message
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
    name = make.__module__.rpartition(".")[2]
    note = Note(
        "This part of the report could not be made.", f"{said}. The records are whole; please report this.", "bad"
    )
    return Section(name, name.capitalize(), (Notes((note,)),))
