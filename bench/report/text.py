"""A run's summary for the terminal, and the same for a machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from bench.analyse.metrics import metric
from bench.analyse.run import Run
from bench.phrases import listed
from bench.record.documents import plain
from bench.report.elements import Note
from bench.report.numbers import decimals, interval, number
from bench.report.sections.headline import limits
from bench.report.sections.summary import columns
from bench.report.view import View, contended, crowded_variants, neighbour_notes

_MARK = {"": "·", "good": "·", "muted": "·", "warn": "!", "bad": "!"}
_STYLE = {"": "dim", "good": "", "muted": "dim", "warn": "yellow", "bad": "bold red"}
GAP = 2


def summary(run: Run) -> RenderableType:
    """What others did to the run, the variants with their intervals, then what must be known beside them.

    A terminal too narrow for all metrics gets them in several tables; where the output is no terminal, rich leaves the
    colours out.
    """
    return _Summary(View(run))


class _Summary:
    def __init__(self, view: View) -> None:
        self._view = view

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        manifest = self._view.run.manifest
        if manifest.emulated:
            yield Text(
                f"EMULATED: {manifest.emulated}. No figure here is one of the board that it names.\n", "bold red"
            )
        if sentence := contended(self._view):
            yield Text(f"{sentence}\n", "bold red")
        before = list(neighbour_notes(self._view))
        for note in before:
            yield _told(note)
        if before:
            yield Text()
        variants, marked = self._view.variants, crowded_variants(self._view)
        names = [_named(variant, variant in marked) for variant in variants]
        for columns_ in _fitted(
            [_Column.of(self._view, name) for name in columns(self._view)], names, options.max_width
        ):
            table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
            table.add_column("\nvariant", no_wrap=True)
            for column in columns_:
                table.add_column(Text(f"{column.title}\n{column.unit}"), justify="right", no_wrap=True)
            for place, name in enumerate(names):
                table.add_row(name, *(column.cells[place] for column in columns_))
            yield table
            yield Text()
        for note in limits(self._view):
            if note not in before:
                yield _told(note)


def _told(note: Note) -> Text:
    return Text(f"{_MARK[note.tone]} {note.text} {note.detail}".rstrip(), _STYLE[note.tone])


@dataclass(frozen=True, slots=True)
class _Column:
    title: str
    unit: str
    cells: tuple[Text, ...]

    @classmethod
    def of(cls, view: View, name: str) -> _Column:
        share = not metric(name).unit
        scale = 100.0 if share else 1.0
        places = 1 if share else decimals(view.value(variant, name) for variant in view.variants)
        rows = [view.row(variant, name) for variant in view.variants]
        ends = [interval(_scaled(row.low, scale), _scaled(row.high, scale), places) if row else "" for row in rows]
        widest = max(map(len, ends))
        cells = []
        for row, end in zip(rows, ends, strict=True):
            cell = Text(number(_scaled(row.value, scale), places) if row else "–")
            cells.append(cell.append(f" {end:>{widest}}" if widest else "", "dim"))
        return cls(metric(name).title, metric(name).unit or "%", tuple(cells))

    @property
    def width(self) -> int:
        return max(len(self.title), len(self.unit), *(cell.cell_len for cell in self.cells)) + GAP


def _named(variant: str, contended: bool) -> Text:
    return Text(variant).append(" contended", "bold red") if contended else Text(variant)


def _fitted(columns_: list[_Column], names: list[Text], width: int) -> Iterator[list[_Column]]:
    """The columns in as many tables as it takes."""
    room = width - max((name.cell_len for name in names), default=0) - GAP
    row: list[_Column] = []
    for column in columns_:
        if row and sum(item.width for item in row) + column.width > room:
            yield row
            row = []
        row.append(column)
    if row:
        yield row


def _scaled(value: float | None, scale: float) -> float | None:
    return None if value is None else scale * value


def as_json(run: Run, page: Path | None = None) -> str:
    """The run's folder, its state and the summary, one object per variant and metric that has a value."""
    rows = run.summary().to_dict("records")
    states = [launch.record.status for launch in run.all]
    document = {
        "run": str(run.path),
        "report": None if page is None else str(page),
        "scenario": run.manifest.scenario,
        "state": run.manifest.state,
        "emulated": run.manifest.emulated,
        "launches": {state: states.count(state) for state in sorted(set(states))},
        "summary": [row for row in rows if row["value"] == row["value"] and row["value"] is not None],
    }
    return json.dumps(plain(document), indent=1, ensure_ascii=False)


def line(run: Run) -> str:
    """The run in one line, for a log: the median TTFT of each variant."""
    view = View(run)
    return listed(f"{variant} {number(view.value(variant, 'ttft.p50'))} ms" for variant in view.variants)
