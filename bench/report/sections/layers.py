"""What stands between a client and the engine, and what each of it adds: the ways of a run beside the straight one."""

from __future__ import annotations

from matplotlib.figure import Figure as Drawing
from rich.console import Group, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from bench.analyse.metrics import metric
from bench.analyse.run import Run
from bench.judge.added import MEASURES, STRAIGHT, Added, added, chunks_per_read, ways
from bench.phrases import listed
from bench.report.drawing import MUTED, colour, figure
from bench.report.elements import Cell, Figure, Heading, Prose, Section, Table
from bench.report.numbers import NULL, decimals, interval, number
from bench.report.view import View

TITLES = {"ttft.p50": "to the first token", "tpot.p50": "between tokens", "e2el.p50": "to the whole answer"}
METHOD = (
    "Each block asks every way the same prompts, in random order. What a way adds is its launch's median less that of "
    f"the way called {STRAIGHT} in the same block; the mean over blocks has a 95 % t interval. Chunks per read are the "
    "pieces of an answer that came together: 1 where each token is passed on at once, more where somebody collects. "
    "Where an answer comes in one piece there is no time between its tokens."
)


def section(view: View) -> Section | None:
    """Nothing for a run without a straight way and another."""
    shown = ways(view.run)
    if not shown:
        return None
    found = added(view.run)
    told = {(one.way, one.measure): one for one in found}
    firsts = [one for one in found if one.measure == MEASURES[0] and one.interval is not None]
    blocks = (*((_figure(view, firsts),) if firsts else ()), _table(view, told), Prose((METHOD,)))
    return Section("layers", "What stands in front of the engine", blocks)


def printed(run: Run) -> RenderableType:
    """The section's table for a terminal, and below it why a figure is missing."""
    view, found = View(run), added(run)
    table = _table(view, {(one.way, one.measure): one for one in found})
    grid = Grid(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in table.columns:
        grid.add_column(f"{heading.title}\n{heading.note}", justify="right" if heading.numeric else "left")
    for row in table.rows:
        grid.add_row(*(Text(cell.text).append(f" {cell.note}" * (cell.tone == ""), "dim") for cell in row))
    why = dict.fromkeys(f"! {one.way}, {TITLES[one.measure]}: {one.reason}" for one in found if one.reason)
    return Group(grid, *(Text(line, "yellow") for line in why))


def _table(view: View, told: dict[tuple[str, str], Added]) -> Table:
    per_read = chunks_per_read(view.run)
    head = (
        Heading("way"),
        *(Heading(f"added {TITLES[name]}", "ms", numeric=True) for name in MEASURES),
        Heading("chunks per read", numeric=True),
    )
    straight = [view.value(STRAIGHT, name) for name in MEASURES]
    rows = [
        (
            Cell(STRAIGHT, "takes", colour=view.colour(STRAIGHT)),
            *(Cell(number(value), "in all", "muted") for value in straight),
            Cell(number(per_read.get(STRAIGHT), 2)),
        )
    ]
    for way in ways(view.run):
        cells = (_cell(told[way, name]) for name in MEASURES)
        rows.append((Cell(way, colour=view.colour(way)), *cells, Cell(number(per_read.get(way), 2))))
    return Table(head, tuple(rows), "Added to the way straight to the server, with 95 % intervals over blocks")


def _cell(one: Added) -> Cell:
    if one.interval is None:
        return Cell(NULL, one.reason, "muted")
    places = decimals([one.interval.estimate, one.interval.low, one.interval.high], 2)
    return Cell(f"{'+' * (one.interval.estimate > 0)}{number(one.interval.estimate, places)}", _ends(one, places))


def _ends(one: Added, places: int) -> str:
    assert one.interval is not None
    return interval(one.interval.low, one.interval.high, places)


def sentences(told: tuple[Added, ...]) -> list[str]:
    """One line a way, for terminals and for those who cannot see a figure."""
    lines = []
    for way in dict.fromkeys(one.way for one in told):
        parts = []
        for one in (one for one in told if one.way == way):
            cell = _cell(one)
            words = f"{cell.text} ms ({cell.note})" if one.interval else f"– ({one.reason})"
            parts.append(f"{TITLES[one.measure]} {words}")
        lines.append(f"{way}: {'; '.join(parts)}")
    return lines


def _figure(view: View, firsts: list[Added]) -> Figure:
    def paint(drawing: Drawing, width: int) -> None:
        axes = drawing.subplots()
        for place, one in enumerate(firsts):
            assert one.interval is not None
            tint = colour(view.colour(one.way))
            axes.barh(place, one.interval.estimate, height=0.5, color=tint, alpha=0.35)
            axes.plot([one.interval.low, one.interval.high], [place, place], color=tint, linewidth=2.5)
            axes.plot(one.interval.estimate, place, "o", color=tint, markersize=6)
        axes.axvline(0, color=MUTED, linewidth=1)
        axes.set_ylim(len(firsts) - 0.4, -0.6)
        axes.set_yticks(range(len(firsts)), [one.way for one in firsts])
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", visible=False)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("ms added to the first token")

    height = 90 + 44 * len(firsts)
    title = metric(MEASURES[0]).title
    return figure(
        paint,
        (height, height),
        f"What each way adds to {title}, with its 95 % interval over blocks.",
        listed(sentences(tuple(firsts))),
    )
