"""The report as Markdown, for job summaries and pull requests: everything but the drawings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from bench.analyse.run import Run
from bench.phrases import escaped
from bench.report.content import document
from bench.report.elements import Block, Cell, Facts, Figure, Fold, Notes, Page, Printed, Prose, Table, Timeline


def render(runs: Sequence[Run]) -> str:
    """One run's report after the other."""
    return "\n".join(_document(document(run)) for run in runs)


def _document(content: Page) -> str:
    """One report; headings, tables and code fences of GitHub's dialect."""
    lines = [f"# {escaped(content.title)}", "", escaped(content.subtitle)]
    if content.banner:
        lines += ["", f"> **EMULATED** {escaped(content.banner)}"]
    for section in content.sections:
        lines += ["", f"## {escaped(section.title)}"]
        for block in section.blocks:
            lines += ["", *_block(block)]
    return "\n".join([*lines, "", escaped(content.foot), ""])


def _block(block: Block) -> Iterator[str]:
    match block:
        case Prose(paragraphs):
            yield "\n\n".join(escaped(paragraph) for paragraph in paragraphs)
        case Notes(items):
            for note in items:
                yield f"- **{escaped(note.text)}** {escaped(note.detail)}".rstrip()
        case Table():
            yield from _table(block)
        case Facts(pairs, title):
            if title:
                yield f"**{escaped(title)}**"
                yield ""
            for name, value in pairs:
                yield f"- {escaped(name)}: {escaped(value)}"
        case Figure(alt=alt):
            yield f"*{escaped(alt)}*"
        case Printed(lines):
            # A fence longer than any run of backticks inside cannot be closed from within.
            fence = "`" * max(3, 1 + max((len(run) for line in lines for run in re.findall("`+", line)), default=0))
            yield from (fence, *lines, fence)
        case Fold(title, inner):
            yield f"<details><summary>{escaped(title)}</summary>"
            for item in inner:
                yield ""
                yield from _block(item)
            yield ""
            yield "</details>"
        case Timeline():
            yield "*The timeline is in the HTML report.*"


def _table(table: Table) -> Iterator[str]:
    if table.caption:
        yield escaped(table.caption)
        yield ""
    titles = (f"{column.title} ({column.note})" if column.note else column.title for column in table.columns)
    yield "| " + " | ".join(escaped(title) for title in titles) + " |"
    yield "|" + "|".join("---:" if column.numeric else "---" for column in table.columns) + "|"
    for row in table.rows:
        yield "| " + " | ".join(_cell(cell) for cell in row) + " |"


def _cell(cell: Cell) -> str:
    return f"{escaped(cell.text)} ({escaped(cell.note)})" if cell.note else escaped(cell.text)
