"""What a report of a run holds, before it takes a form: the sections that the run has content for, in order."""

from __future__ import annotations

from bench import __version__
from bench.analyse.run import Run
from bench.report.blocks import Document
from bench.report.numbers import count
from bench.report.sections import SECTIONS
from bench.report.view import View


def document(run: Run) -> Document:
    """The content of one run's report."""
    view, manifest = View(run), run.manifest
    sections = tuple(section for make in SECTIONS if (section := make(view)) is not None)
    description = " ".join(str(run.scenario.get("description") or "").split())
    what = f"{count(len(run.variants), 'variant')}, {count(len(run.all), 'launch')}"
    when = (manifest.created or "").replace("T", " ")[:16]
    return Document(
        title=manifest.scenario,
        subtitle=" · ".join(part for part in (description, what, when) if part),
        sections=sections,
        variants=run.variants,
        banner=manifest.emulated,
        foot=f"firsttoken {__version__}, from the records of run {manifest.run_id}; `bench report` makes it again.",
    )
