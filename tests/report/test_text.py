"""The terminal's summary: everything at any width, plain where nobody looks, and JSON for machines."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from bench.analyse.run import Run
from bench.report import text
from tests.runs import Behaviour, synthetic_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    variants = {
        "quick": Behaviour(jitter=0.1),
        "slow[bold]": Behaviour(ttft=200, status={1: ("invalid", "steal", "9 %")}),
    }
    return Run.open(synthetic_run(tmp_path_factory.mktemp("results"), variants, requests=30))


def shown(run: Run, width: int, *, terminal: bool = False) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal)
    console.print(text.summary(run))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [50, 80, 200])
def test_every_metric_is_shown_at_any_width_and_no_line_is_too_long(run: Run, width: int) -> None:
    lines = shown(run, width).splitlines()
    assert all(len(line) <= width for line in lines)
    assert all(
        any(title in line for line in lines) for title in ("TTFT p50", "cold TTFT", "output throughput", "memory peak")
    )
    assert not any("…" in line for line in lines)


def test_names_are_shown_as_they_are_and_not_taken_for_markup(run: Run) -> None:
    assert "slow[bold]" in shown(run, 120)


def test_there_are_no_colours_where_nobody_looks(run: Run) -> None:
    assert "\x1b" not in shown(run, 80)
    assert "\x1b" in shown(run, 80, terminal=True)


def test_what_must_be_known_stands_below_the_table(run: Run) -> None:
    assert "! 1 of 6 launches does not count" in shown(run, 200)


def test_json_has_what_a_machine_needs_and_no_nulls_dressed_as_values(run: Run) -> None:
    document = json.loads(text.as_json(run, Path("page.html")))
    assert document["launches"] == {"invalid": 1, "ok": 5}
    assert document["report"] == "page.html"
    rows = {(row["variant"], row["metric"]): row for row in document["summary"]}
    assert rows["slow[bold]", "ttft.p50"]["value"] == pytest.approx(200)
    assert ("quick", "ttft.p99") not in rows
    assert all(row["value"] is not None for row in document["summary"])


def test_an_emulated_run_is_announced_before_its_figures(tmp_path: Path) -> None:
    emulated = Run.open(synthetic_run(tmp_path, {"a": Behaviour()}, blocks=1, requests=2, emulated="orin-nx"))
    assert shown(emulated, 80).startswith("EMULATED: orin-nx")


def test_a_run_in_which_nothing_counts_still_says_so(tmp_path: Path) -> None:
    failed = Behaviour(status={0: ("failed", "port", "taken")})
    run = Run.open(synthetic_run(tmp_path, {"a": failed}, blocks=1, requests=2))
    assert "1 of 1 launch does not count" in shown(run, 100)
