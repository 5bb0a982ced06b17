"""The live view on a terminal: a line per endpoint, its six figures and their states."""

from __future__ import annotations

from datetime import datetime
from time import time

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from bench.service.states import FIGURES, State
from bench.service.watch import Watch

_STYLE: dict[State, str] = {"ok": "green", "warning": "yellow", "alarm": "bold red", "unknown": ""}
# figure → the table's heading and format, and how a line says it
_COLUMNS = {
    "latency": ("warm ms", "{:.1f}", "first token {:.1f} ms"),
    "first_after_idle": ("idle ms", "{:.1f}", "after a pause {:.1f} ms"),
    "throughput": ("tok/s", "{:.1f}", "{:.1f} tok/s"),
    "memory": ("MiB", "{:.0f}", "{:.0f} MiB"),
    "processor": ("cores", "{:.2f}", "{:.2f} cores"),
    "availability": ("answered", "{:.0%}", "answered {:.0%}"),
}


def table(watches: list[Watch], title: str) -> RenderableType:
    """All endpoints as they are now. What a server said is shown as text, whatever it holds."""
    made = Table(title=Text(title), box=None, title_justify="left", pad_edge=False, expand=True)
    made.add_column("endpoint", no_wrap=True, min_width=8)
    for figure in FIGURES:
        made.add_column(heading := _COLUMNS[figure][0], justify="right", no_wrap=True, min_width=len(heading))
    # What is left of the line.
    made.add_column("last canary", overflow="ellipsis", no_wrap=True, ratio=1)
    for watch in watches:
        cells = []
        for figure in FIGURES:
            value, state = watch.vitals.now[figure].value, watch.judges[figure].state
            cells.append(Text("–" if value is None else _COLUMNS[figure][1].format(value), style=_STYLE[state]))
        made.add_row(Text(watch.name), *cells, last(watch))
    return made


def last(watch: Watch) -> Text:
    """What became of the last canary, and what was skipped."""
    if watch.last is None:
        return Text("none yet", style="dim")
    skipped = ", ".join(f"{number} skipped ({why})" for why, number in watch.skipped.items() if number)
    if watch.last.ok:
        learning = f"learning {watch.detector.seen}" if watch.detector.learning else "ok"
        return Text(", ".join(part for part in (learning, skipped) if part), style="dim")
    said = " ".join(str(watch.last.row["error"] or "").split())
    return Text(f"{watch.last.result}: {said}" + (f", {skipped}" if skipped else ""), style="red")


def line(watch: Watch, now: float | None = None) -> str:
    """The same on a plain line, for a log."""
    known = [
        _COLUMNS[figure][2].format(value) for figure in FIGURES if (value := watch.vitals.now[figure].value) is not None
    ]
    clock = datetime.fromtimestamp(now or time()).astimezone().strftime("%H:%M:%S")
    return f"{clock}  {watch.name}  {'  '.join(known) or last(watch).plain}"
