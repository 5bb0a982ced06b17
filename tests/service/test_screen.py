"""The live view: every figure in its column on a terminal of 80, and no server can write outside its line."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from bench.service import screen
from bench.service.canary import Outcome
from bench.service.vitals import Vital
from bench.service.watch import Watch
from bench.service.watchlist import WatchedEndpoint


def watched() -> Watch:
    endpoint = WatchedEndpoint(url="http://127.0.0.1:1")
    made = Watch("orin", endpoint, None, lambda _: None, lambda *_: None, lambda _: None)
    for figure, value in (("latency", 123.44), ("throughput", 55.5), ("memory", 2048.0), ("availability", 0.95)):
        made.vitals.now[figure] = Vital(value)
    made.vitals.now["processor"] = Vital(reason="not to be seen from outside")
    return made


def shown(watch: Watch, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    console.print(screen.table([watch], "results"))
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 160])
def test_all_headings_and_figures_fit(width: int) -> None:
    _, heading, row = shown(watched(), width)
    for word in ("endpoint", "warm ms", "idle ms", "tok/s", "MiB", "cores", "answered", "last canary"):
        assert word in heading
    assert row.split()[:7] == ["orin", "123.4", "–", "55.5", "2048", "–", "95%"]


def test_what_a_server_said_stays_on_its_line_and_is_no_markup() -> None:
    watch = watched()
    watch.last = Outcome("warm", "http", {"error": "[bold]x[/bold]\n\nsecond \x07 line"}, 0, 0.1)
    lines = shown(watch, 160)
    assert len(lines) == 3
    assert "http: [bold]x[/bold] second" in lines[2]


def test_a_plain_line_says_what_is_known() -> None:
    said = screen.line(watched(), 0.0)
    assert said.endswith("orin  first token 123.4 ms  55.5 tok/s  2048 MiB  answered 95%")
