"""What the report says of a client: its own error, and of one on another host the way from there."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from bench.analyse.run import Run
from bench.record.launches import RemoteClient, RoundTrips
from bench.report import text
from bench.report.elements import Table
from bench.report.sections import client, headline, summary
from bench.report.view import View
from tests.runs import Behaviour, synthetic_run


def host(name: str, us: int) -> RemoteClient:
    trips = RoundTrips([us] * 180 + [us + 500] * 10)
    doubts = {"offset_ns": 5, "doubt_ns": 300_000, "moved_ns": 2_000_000, "doubt_after_ns": 300_000, "apart_s": 100.0}
    return RemoteClient(name, before=trips, after=trips, resent=1, stopped=False, **doubts)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    remotes = (host("desk", 2000), host("shelf", 6000))
    folder = synthetic_run(tmp_path_factory.mktemp("results"), {"only": Behaviour(ttft=100, remotes=remotes)}, blocks=2)
    return View(Run.open(folder))


def test_ttft_stands_with_and_without_the_way_in_table_and_terminal(view: View) -> None:
    names = summary.columns(view)
    assert names[:3] == ("ttft.p50", "ttft_near.p50", "round_trip.p50")
    # Half of the requests came by each way.
    assert [view.value("only", name) for name in names[:3]] == [100.0, 96.0, 4.0]
    console = Console(file=io.StringIO(), width=200)
    console.print(text.summary(view.run))
    assert isinstance(console.file, io.StringIO)
    shown = " ".join(console.file.getvalue().split())
    assert "TTFT less round trip p50" in shown
    assert "The load came from desk and shelf: every TTFT has a round trip of 4.00 ms in it (median)." in shown


def test_every_host_has_its_own_row(view: View) -> None:
    section = client.section(view)
    assert section is not None
    (table,) = [
        block for block in section.blocks if isinstance(block, Table) and "other hosts" in (block.caption or "")
    ]
    rows = [[cell.text for cell in row] for row in table.rows]
    # Least, median and p99 of the way; TTFT with it and without; delay; clock; drift; packets sent again.
    assert rows[0] == ["desk", "2.00", "2.00", "2.50", "100.00", "98.00", rows[0][6], "2.30", "20.00", "2"]
    assert rows[1][:6] == ["shelf", "6.00", "6.00", "6.50", "100.00", "94.00"]


def test_of_a_client_on_this_machine_nothing_of_the_kind_is_said(tmp_path: Path) -> None:
    here = View(Run.open(synthetic_run(tmp_path, {"only": Behaviour()}, blocks=1)))
    assert not list(client.notes(here))
    assert "ttft_near.p50" not in summary.columns(here)
    assert not [note for note in headline.limits(here) if "load came from" in note.text]


def test_a_self_check_of_several_hosts_names_them(tmp_path: Path) -> None:
    reading = {"load": {"name": "one stream", "ttft_ms": 50, "itl_ms": 5}, "error_p50_ms": 0.04}
    folder = synthetic_run(tmp_path, {"only": Behaviour()}, blocks=1)
    run = Run.open(folder)
    run.manifest.fingerprint["client"] = {"hosts": {"desk": [reading], "shelf": [reading]}}
    section = client.section(View(run))
    assert section is not None
    (table,) = [
        block for block in section.blocks if isinstance(block, Table) and "bytes leave" in (block.caption or "")
    ]
    assert [row[0].text for row in table.rows] == ["one stream, on desk", "one stream, on shelf"]
    assert "on its own host before the run" in (table.caption or "")
