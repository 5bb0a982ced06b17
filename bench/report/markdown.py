"""The report as Markdown, for job summaries and pull requests: everything but the drawings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from bench.analyse.run import Run
from bench.report.content import document
from bench.report.elements import Block, Cell, Facts, Figure, Fold, Notes, Page, Printed, Prose, Table, Timeline


def render(runs: Sequence[Run]) -> str:
    """One run's report after the other."""
    return "\n".join(_document(document(run)) for run in runs)


def _document(content: Page) -> str:
    """One report; headings, tables and code fences of GitHub's dialect."""
    lines = [f"# {escape(content.title)}", "", escape(content.subtitle)]
    if content.banner:
        lines += ["", f"> **EMULATED** {escape(content.banner)}"]
    for section in content.sections:
        lines += ["", f"## {escape(section.title)}"]
        for block in section.blocks:
            lines += ["", *_block(block)]
    return "\n".join([*lines, "", escape(content.foot), ""])


def escape(text: str) -> str:
    """Text that Markdown and the HTML inside it leave alone, on one line."""
    flat = " ".join(text.split())
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", flat).replace("&", "&amp;")


def _block(block: Block) -> Iterator[str]:
    match block:
        case Prose(paragraphs):
            yield "\n\n".join(escape(paragraph) for paragraph in paragraphs)
        case Notes(items):
            for note in items:
                yield f"- **{escape(note.text)}** {escape(note.detail)}".rstrip()
        case Table():
            yield from _table(block)
        case Facts(pairs, title):
            if title:
                yield f"**{escape(title)}**"
                yield ""
            for name, value in pairs:
                yield f"- {escape(name)}: {escape(value)}"
        case Figure(alt=alt):
            yield f"*{escape(alt)}*"
        case Printed(lines):
            # A fence longer than any run of backticks inside cannot be closed from within.
            fence = "`" * max(3, 1 + max((len(run) for line in lines for run in re.findall("`+", line)), default=0))
            yield from (fence, *lines, fence)
        case Fold(title, inner):
            yield f"<details><summary>{escape(title)}</summary>"
            for item in inner:
                yield ""
                yield from _block(item)
            yield ""
            yield "</details>"
        case Timeline():
            yield "*The timeline is in the HTML report.*"


def _table(table: Table) -> Iterator[str]:
    if table.caption:
        yield escape(table.caption)
        yield ""
    titles = (f"{column.title} ({column.note})" if column.note else column.title for column in table.columns)
    yield "| " + " | ".join(escape(title) for title in titles) + " |"
    yield "|" + "|".join("---:" if column.numeric else "---" for column in table.columns) + "|"
    for row in table.rows:
        yield "| " + " | ".join(_cell(cell) for cell in row) + " |"


def _cell(cell: Cell) -> str:
    return f"{escape(cell.text)} ({escape(cell.note)})" if cell.note else escape(cell.text)
