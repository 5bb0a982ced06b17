"""The report as one HTML file: no network, no fonts to fetch, every text escaped."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from itertools import count
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from bench.analyse.run import Run
from bench.record.documents import keep_text
from bench.report.content import document
from bench.report.drawing import SPACE
from bench.report.elements import Block, Fold, Page, Timeline

# Nothing may be fetched, framed or sent: answers and logs in the page are someone else's words.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:"


def render(runs: Sequence[Run]) -> str:
    """One page for one run or several; the first gives the title."""
    documents = [document(run) for run in runs]
    return pages(documents, _links(runs, [document.title for document in documents]))


def pages(documents: Sequence[Page], links: Sequence[str]) -> str:
    """One file for pages of any kind; `links` name them in the bar where there are several."""
    numbers = count(1)
    timelines = any(_holds(section.blocks, Timeline) for document in documents for section in document.sections)
    return (
        _environment()
        .get_template("page.html")
        .render(
            documents=documents,
            links=links,
            policy=POLICY,
            style=_asset("page.css") + (_asset("vendor/uPlot-1.6.32.min.css") if timelines else ""),
            script=_asset("page.js"),
            plot=_asset("vendor/uPlot-1.6.32.min.js") if timelines else None,
            licence=_asset("vendor/uPlot.LICENSE") if timelines else None,
            timeline=_asset("timeline.js") if timelines else None,
            # Drawings are made here, by matplotlib, whose text is escaped already.
            drawing=lambda make: _drawing(make, f"g{next(numbers)}-"),
            kind=lambda block: type(block).__name__,
        )
    )


def _links(runs: Sequence[Run], titles: Sequence[str]) -> list[str]:
    """What the runs are called in the bar: by title, and where that repeats also by the time of day they began."""
    return [
        f"{title} {(run.manifest.created or '')[11:16]}".rstrip() if titles.count(title) > 1 else title
        for run, title in zip(runs, titles, strict=True)
    ]


def write(runs: Run | Sequence[Run], path: Path) -> Path:
    """Write the page; the path is returned."""
    return keep_text(path, render([runs] if isinstance(runs, Run) else runs))


def write_page(page: Page, path: Path) -> Path:
    """The same of a page that is of more than one run."""
    return keep_text(path, pages([page], [page.title]))


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("bench.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"data": _data, "zip": zip, "code": _code}
    return environment


def _drawing(make: Callable[[], str], space: str) -> Markup:
    """A drawing with ids of its own. Matplotlib escapes its texts itself."""
    try:
        return Markup(make().replace(SPACE, space))
    except Exception as error:
        # The run may have taken hours: one figure that cannot be drawn does not cost its reader the rest of the page.
        return Markup("<p>This figure could not be drawn: {}: {}</p>").format(type(error).__name__, error)


def _code(text: str) -> Markup:
    """Escaped text in which `what stands between backticks` is code."""
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _data(value: Any) -> Markup:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)


def _asset(name: str) -> Markup:
    return Markup(files("bench.report").joinpath("assets", name).read_text(encoding="utf-8"))


def _holds(content: tuple[Block, ...], kind: type) -> bool:
    return any(isinstance(block, kind) or (isinstance(block, Fold) and _holds(block.blocks, kind)) for block in content)
