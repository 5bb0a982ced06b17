"""On a board: every scenario once, in the process that measures, whatever ended the one before."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import pytest

from bench.errors import Exit, RecordError
from bench.fleet import parcel, work
from bench.fleet.parcel import digested
from bench.fleet.work import Chore, Errand
from bench.record.store import RunFolder
from tests.runs import Behaviour, synthetic_run

Call = Callable[[Sequence[str]], int]


@pytest.fixture
def job(tmp_path: Path) -> Path:
    folder = tmp_path / "jobs" / "j1"
    folder.mkdir(parents=True)
    tasks = [Chore("first", "sha256:0", "scenarios/00/first.yaml"), Chore("second", "sha256:0", "scenarios/01/s.yaml")]
    (folder / "order.json").write_text(json.dumps(asdict(Errand("j1", "shelf", tasks, emulate="orin-nx"))))
    return folder


def _runs(job: Path, asked: list[str], codes: Sequence[int] = (0, 0)) -> Call:
    """A `bench run` that writes a run by the real store, and ends with these codes."""

    def call(words: Sequence[str]) -> int:
        name = "first" if "first.yaml" in words[1] else "second"
        asked.append(name)
        code = codes[len(asked) - 1]
        if code in (Exit.PASS, Exit.INVALID):
            synthetic_run(job / "results", {"a": Behaviour()}, scenario=name, blocks=1, requests=2)
        return code

    return call


def _refusing(note: Callable[[Sequence[str]], None]) -> Call:
    """A `bench run` that notes what it was called with and refuses."""

    def call(words: Sequence[str]) -> int:
        note(words)
        return 4

    return call


def _status(job: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((job / "status.json").read_text())
    return found


def test_every_scenario_is_run_once_in_order_and_the_results_are_packed(job: Path) -> None:
    asked: list[str] = []
    assert work.work(job, _runs(job, asked)) == Exit.PASS

    status = _status(job)
    assert asked == ["first", "second"]
    assert status["ended"] is True
    told = status["parcel"]
    assert isinstance(told, dict)
    assert digested(job / "parcel.tar") == (told["sha256"], told["size_bytes"])
    assert parcel.unpack(job / "parcel.tar", job / "out", parcel.Allowance(10**8, 1000)) == told["files"]


def test_the_words_to_bench_run_resume_and_never_retry(job: Path) -> None:
    said: list[Sequence[str]] = []
    work.work(job, _refusing(said.append))

    assert said[0] == [
        *("run", str(job / "scenarios/00/first.yaml"), "--results", str(job / "results")),
        *("--resume-if-any", "--no-report", "--emulate", "orin-nx"),
    ]
    assert len(said) == 2


def test_a_second_start_of_what_is_finished_runs_nothing(job: Path) -> None:
    asked: list[str] = []
    work.work(job, _runs(job, asked))
    work.work(job, _runs(job, asked))

    assert asked == ["first", "second"]


def test_a_run_that_was_complete_when_its_process_was_killed_is_not_run_again(job: Path) -> None:
    asked: list[str] = []
    (job / "results").mkdir()
    # Killed between the end of `bench run` and the note of it.
    synthetic_run(job / "results", {"a": Behaviour()}, scenario="first", blocks=1, requests=2)
    work.work(job, _runs(job, asked))

    assert asked == ["second"]
    done = _status(job)["done"]
    assert isinstance(done, list)
    assert [one["exit"] for one in done] == [0, 0]


def test_a_complete_run_of_no_valid_launch_is_told_as_bench_run_tells_it(job: Path) -> None:
    (job / "results").mkdir()
    failed = Behaviour(status={0: ("failed", "crash", "it crashed")})
    synthetic_run(job / "results", {"a": failed}, scenario="first", blocks=1, requests=2)
    work.work(job, _runs(job, []))

    done = _status(job)["done"]
    assert isinstance(done, list)
    assert done[0]["exit"] == Exit.INVALID


def test_an_interrupted_scenario_is_left_to_resume(job: Path) -> None:
    asked: list[str] = []
    assert work.work(job, _runs(job, asked, (130, 0))) == Exit.INTERRUPTED
    assert _status(job)["ended"] is False
    assert not (job / "parcel.tar").exists()

    assert work.work(job, _runs(job, asked, (130, 0, 0))) == Exit.PASS
    assert asked == ["first", "first", "second"]


def test_a_refused_scenario_says_why_and_costs_the_others_nothing(job: Path) -> None:
    (job / "work.log").write_text("· preparing\nbench: this is not the machine that the scenario asks for\n  → look\n")
    asked: list[str] = []
    assert work.work(job, _runs(job, asked, (4, 0))) == Exit.PASS

    done = _status(job)["done"]
    assert isinstance(done, list)
    assert done[0]["words"] == "this is not the machine that the scenario asks for\n  → look"
    assert done[1]["exit"] == 0


def test_another_fleet_on_the_board_is_told_and_nothing_is_begun(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "PATIENCE_S", 0.0)
    busy = job.parents[1] / "busy"
    handle = os.open(busy, os.O_RDWR | os.O_CREAT)
    os.write(handle, b"20260101-other")
    fcntl.flock(handle, fcntl.LOCK_EX)
    asked: list[str] = []
    try:
        assert work.work(job, _runs(job, asked)) == Exit.USAGE
    finally:
        os.close(handle)

    assert asked == []
    assert json.loads((job / "begun").read_text()) == {"refused": "20260101-other"}
    assert not (job / "status.json").exists()


def test_variables_come_from_a_file_and_not_from_a_command_line(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLEET_SECRET", raising=False)
    (job / "environment.json").write_text('{"FLEET_SECRET": "s3cret"}')
    seen: list[str | None] = []
    work.work(job, _refusing(lambda _: seen.append(os.environ.get("FLEET_SECRET"))))
    monkeypatch.delenv("FLEET_SECRET")

    assert seen == ["s3cret", "s3cret"]
    assert "s3cret" not in (job / "status.json").read_text()


def test_a_full_disk_leaves_a_board_that_can_be_gone_on_with(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(work, "pack", full)
        assert work.work(job, _runs(job, [])) == Exit.USAGE
    assert _status(job)["ended"] is False

    asked: list[str] = []
    assert work.work(job, _runs(job, asked)) == Exit.PASS
    assert asked == []


def test_what_a_full_disk_refused_is_run_once_there_is_room(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    asked: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(work, "pack", full)
        work.work(job, _runs(job, asked, (0, 4)))
    assert work.work(job, _runs(job, asked, (0, 4, 0))) == Exit.PASS

    assert asked == ["first", "second", "second"]
    done = _status(job)["done"]
    assert isinstance(done, list)
    assert [(one["exit"], one["words"]) for one in done] == [(0, None), (0, None)]


def test_a_damaged_order_is_refused_in_words(job: Path) -> None:
    (job / "order.json").write_text("{")
    with pytest.raises(RecordError, match="damaged"):
        work.work(job, lambda words: 0)


def test_the_run_folders_are_ordinary_ones(job: Path) -> None:
    work.work(job, _runs(job, []))
    (folder,) = (job / "results" / "first").iterdir()

    assert RunFolder.open(folder).manifest.state == "complete"
