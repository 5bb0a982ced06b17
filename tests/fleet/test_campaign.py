"""A fleet run over boards that answer as told: every state is reached, and nothing is begun twice.

The same road with real ssh to real hosts is tests/end_to_end/test_fleet.py.
"""

from __future__ import annotations

import json
import shutil
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bench.fleet import ledger
from bench.fleet.campaign import Campaign, boards_of, members_of
from bench.fleet.inventory import FleetBoard
from bench.fleet.ledger import Ledger, Member
from bench.fleet.order import Order
from bench.fleet.parcel import pack
from bench.fleet.plays import PlayAnswer
from bench.fleet.work import Done, Status
from tests.fleet.test_order import order
from tests.runs import Behaviour, synthetic_run

DOCTOR = json.dumps({"host_class": "jetson-orin-nx-16gb"})
FLEET = "fleet: shelf\ninventory: hosts.ini\nscenarios: [tiny.yaml]\npoll_s: 60\npatience_minutes: 30\n"


@dataclass
class Bench:
    """Boards that answer by a script: alias → play → what comes next; without a word of it, all is well.

    `began` is how often each was told to begin. Time passes when somebody sleeps.
    """

    folder: Path
    digest: str
    script: dict[str, dict[str, list[PlayAnswer]]] = field(default_factory=dict)
    began: dict[str, int] = field(default_factory=dict)
    offset_s: dict[str, float] = field(default_factory=dict)
    now: float = 1_800_000_000.0
    job: str = ""

    def play(self, name: str, boards: Sequence[FleetBoard], variables: Mapping[str, Any]) -> dict[str, PlayAnswer]:
        self.job = variables["fleet_job"]
        if name == "start":
            with tarfile.open(variables["fleet_order"]) as packed:
                assert {"./order.json", "./scenarios/00/tiny.yaml"} <= set(packed.getnames())
        return {board.alias: self._answer(name, board.alias, variables) for board in boards}

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def _answer(self, name: str, alias: str, variables: Mapping[str, Any]) -> PlayAnswer:
        if name == "start":
            self.began[alias] = self.began.get(alias, 0) + 1
        if queue := self.script.get(alias, {}).get(name):
            return queue.pop(0)
        if name == "look":
            room = f"{self.now + self.offset_s.get(alias, 0.0)}\n5000000\n/home/nv/x\nfree\n"
            return _ok(room=room, doctor=DOCTOR)
        if name == "start":
            return _ok(begin='{"pid": 7}\n')
        file = self._parcel(alias)
        if name == "fetch":
            shutil.copy(file, Path(variables["fleet_into"]) / f"{alias}.tar")
            return _ok(parcel="")
        return self.over(alias)

    def over(self, alias: str) -> PlayAnswer:
        """What a board says that is done."""
        file = self._parcel(alias)
        parcel = pack(file.parent / "results", file)
        status = Status(self.job, [Done("tiny", self.digest, 0, "tiny/r")], ended=True, parcel=parcel)
        return _ok(state=f"free\n{self.job}\n5000000\n{json.dumps(asdict(status))}")

    def _parcel(self, alias: str) -> Path:
        """What a board would send, made by the real store."""
        folder = self.folder / alias
        if not folder.exists():
            run = synthetic_run(folder / "results", {"a": Behaviour()}, scenario="tiny", blocks=2, requests=2)
            manifest = json.loads((run / "manifest.json").read_text())
            manifest["scenario_digest"] = self.digest
            (run / "manifest.json").write_text(json.dumps(manifest))
        return folder / "parcel.tar"


def _ok(**said: str) -> PlayAnswer:
    return PlayAnswer("ok", dict(said), None)


def _gone(task: str | None = None) -> PlayAnswer:
    return PlayAnswer("unreachable", {}, "no answer", task=task)


def _alive(job: str = "") -> PlayAnswer:
    done = json.dumps(asdict(Status(job, [Done("tiny", "d")])))
    return _ok(state=f"busy\n{job}\n5000000\n{done}")


def _free(free_kb: int = 5_000_000) -> PlayAnswer:
    return _ok(state=f"free\nj\n{free_kb}\n{json.dumps(asdict(Status('j', [Done('tiny', 'd')])))}")


class Setup:
    """A campaign over some boards, and what it left in its ledger."""

    def __init__(self, tmp_path: Path, boards: int, text: str = FLEET) -> None:
        self.order: Order = order(tmp_path, text)
        self.digest = self.order.digests()["tiny"]
        self.bench = Bench(tmp_path / "there", self.digest)
        self.boards = tuple(FleetBoard(f"board-{n}", f"lab-{n}", private=(f"lab-{n}",)) for n in range(1, boards + 1))
        model = self.order.model
        self.ledger = Ledger(
            *("shelf", "job-1", ledger.now(), self.order.digests(), members_of(self.boards)),
            serial=self.order.boards(model.serial, boards),
            quorum=self.order.boards(model.quorum, boards),
            failures=self.order.boards(model.failures, boards),
        )
        self.folder = tmp_path / "results" / "job-1"
        self.said: list[str] = []
        ledger.save(self.folder, self.ledger)

    def run(self) -> list[Member]:
        """A controller's whole life: it knows what is in the file and nothing else."""
        found = ledger.load(self.folder)
        bench = self.bench
        Campaign(
            *(self.order, boards_of(found, self.boards), bench, self.folder, found),
            tell=self.said.append,
            sleep=bench.sleep,
            clock=lambda: bench.now,
        ).run()
        kept = ledger.load(self.folder)
        assert kept == found
        return kept.members


@pytest.fixture
def setup(tmp_path: Path) -> Setup:
    return Setup(tmp_path, 3)


def _states(members: Sequence[Member]) -> list[str]:
    return [member.state for member in members]


def test_every_board_is_begun_once_and_its_results_come_back(setup: Setup) -> None:
    members = setup.run()

    assert _states(members) == ["finished"] * 3
    assert setup.bench.began == {"board-1": 1, "board-2": 1, "board-3": 1}
    for member in members:
        (outcome,) = member.outcomes
        assert outcome.run is not None
        assert (setup.folder / "boards" / member.alias / outcome.run / "manifest.json").exists()
        assert member.sha256 is not None


def test_a_board_without_a_link_is_unreachable_and_begun_by_resume(setup: Setup) -> None:
    setup.bench.script["board-2"] = {"look": [_gone()]}
    setup.ledger.quorum = 2
    ledger.save(setup.folder, setup.ledger)

    assert _states(setup.run()) == ["finished", "unreachable", "finished"]
    assert _states(setup.run()) == ["finished"] * 3
    assert setup.bench.began == {"board-1": 1, "board-2": 1, "board-3": 1}


def test_too_few_fit_boards_and_none_is_begun(setup: Setup) -> None:
    setup.bench.script["board-2"] = {"look": [_gone()]}

    assert _states(setup.run()) == ["waiting", "unreachable", "waiting"]
    assert setup.bench.began == {}
    assert ledger.load(setup.folder).notes == ["2 boards fit to measure, 3 are asked for: none was begun"]


def test_a_link_that_comes_back_finds_its_run_going_on(setup: Setup) -> None:
    setup.bench.script["board-1"] = {"poll": [_alive("job-1"), _gone("state"), _gone("state"), _alive("job-1")]}
    members = setup.run()

    assert _states(members) == ["finished"] * 3
    assert setup.bench.began["board-1"] == 1
    assert [entry["state"] for entry in members[0].history] == [
        "running",
        "running",
        "lost",
        "running",
        "running",
        "finished",
    ]


def test_a_link_that_stays_away_is_waited_for_and_then_lost_but_never_begun_again(setup: Setup) -> None:
    setup.bench.script["board-1"] = {"poll": [_gone("state")] * 200}
    begun_at = setup.bench.now
    members = setup.run()

    assert _states(members) == ["lost", "finished", "finished"]
    assert members[0].reason == "no answer; its run goes on by itself"
    assert 30 * 60 <= setup.bench.now - begun_at <= 32 * 60

    setup.bench.script["board-1"] = {}
    assert _states(setup.run()) == ["finished"] * 3
    assert setup.bench.began["board-1"] == 1


def test_a_run_that_was_broken_off_waits_for_resume(setup: Setup) -> None:
    setup.bench.script["board-1"] = {"poll": [_free()]}
    members = setup.run()

    assert _states(members) == ["broken", "finished", "finished"]
    assert members[0].reason is not None
    assert "--resume" in members[0].reason
    assert setup.bench.began["board-1"] == 1

    assert _states(setup.run()) == ["finished"] * 3
    assert setup.bench.began == {"board-1": 2, "board-2": 1, "board-3": 1}


def test_a_full_disk_is_named_as_the_cause(setup: Setup) -> None:
    setup.bench.script["board-1"] = {"poll": [_free(free_kb=3)]}

    assert "its disk is full" in str(setup.run()[0].reason)


def test_an_order_that_may_have_gone_over_is_looked_at_and_not_given_again(setup: Setup) -> None:
    setup.bench.script["board-1"] = {"start": [_gone("begin")]}
    members = setup.run()

    assert members[0].state == "finished"
    assert setup.bench.began["board-1"] == 1
    assert members[0].history[0]["reason"] == "no answer while it was begun: it may be running"


def test_an_order_that_did_not_go_over_is_seen_and_left_to_resume(setup: Setup) -> None:
    nothing = _ok(state="free\n\n5000000\nnull")
    setup.bench.script["board-1"] = {"start": [_gone("begin")], "poll": [nothing]}
    members = setup.run()

    assert members[0].state == "waiting"
    assert members[0].reason == "it was not begun: `--resume` begins it"
    assert _states(setup.run()) == ["finished"] * 3


def test_refusals_say_what_is_wrong_with_a_board(tmp_path: Path) -> None:
    setup = Setup(tmp_path, 5, FLEET + "classes: [jetson-orin-nx]\nquorum: 1\n")
    now = setup.bench.now
    setup.bench.script = {
        "board-1": {"look": [_ok(room=f"{now}\n5000000\n/x\nbusy\nother-fleet", doctor=DOCTOR)]},
        "board-2": {"look": [_ok(room=f"{now}\n9000\n/x\nfree", doctor=DOCTOR)]},
        "board-3": {"look": [_ok(room=f"{now}\n5000000\n/x\nfree", doctor='{"host_class": "jetson-agx-orin-64gb"}')]},
        "board-4": {
            "look": [
                PlayAnswer(
                    "failed", {"room": f"{now}\n5000000\n/x\nfree", "doctor": "sh: 1: bench: not found on lab-4"}, "x"
                )
            ]
        },
        "board-5": {"look": [PlayAnswer("unreachable", {}, "its host key is not the one that is known", refusal=True)]},
    }
    members = setup.run()

    assert _states(members) == ["refused"] * 5
    assert [member.reason for member in members] == [
        "it measures for another fleet run (other-fleet)",
        "9 MB of disk are free; 200 are needed",
        "it is jetson-agx-orin-64gb; `classes` has jetson-orin-nx",
        "`bench doctor` does not run there: sh: 1: bench: not found on board-4",
        "its host key is not the one that is known",
    ]
    assert setup.bench.began == {}


def test_a_clock_that_is_off_is_measured_and_keeps_nobody_from_measuring(setup: Setup) -> None:
    setup.bench.offset_s = {"board-2": -420.0}
    members = setup.run()

    assert _states(members) == ["finished"] * 3
    assert [member.clock_offset_s for member in members] == [0.0, -420.0, 0.0]


def test_boards_measure_in_batches_and_the_failure_limit_holds_the_next_one_back(tmp_path: Path) -> None:
    setup = Setup(tmp_path, 4, FLEET + "serial: 1\nquorum: 1\nfailures: 0\n")
    setup.bench.script["board-2"] = {"poll": [_free()]}
    members = setup.run()

    assert _states(members) == ["finished", "broken", "waiting", "waiting"]
    assert setup.bench.began == {"board-1": 1, "board-2": 1}
    assert ledger.load(setup.folder).notes == ["more than 0 boards failed: board-3 and board-4 not begun"]


def test_results_that_are_not_what_was_packed_do_not_count(setup: Setup) -> None:
    said = setup.bench.over("board-1")
    document = json.loads(said.said["state"].split("\n", 3)[3])
    document["parcel"]["sha256"] = "0" * 64
    said.said["state"] = f"free\njob-1\n5000000\n{json.dumps(document)}"
    setup.bench.script["board-1"] = {"poll": [said]}
    members = setup.run()

    assert _states(members) == ["invalid", "finished", "finished"]
    assert "digest differs" in str(members[0].reason)
    assert not (setup.folder / "boards" / "board-1").exists()


def test_results_of_another_scenario_do_not_count(setup: Setup) -> None:
    there = setup.bench._parcel("board-1").parent
    (manifest,) = there.rglob("manifest.json")
    manifest.write_text(manifest.read_text().replace(setup.digest, "f" * 64))
    members = setup.run()

    assert members[0].state == "invalid"
    assert members[0].reason == "tiny: its run is of another scenario"


def test_results_larger_than_allowed_are_not_even_fetched(tmp_path: Path) -> None:
    setup = Setup(tmp_path, 1, FLEET + "limits: {megabytes: 1}\n")
    said = setup.bench.over("board-1")
    document = json.loads(said.said["state"].split("\n", 3)[3])
    document["parcel"]["size_bytes"] = 3_000_000
    said.said["state"] = f"free\njob-1\n5000000\n{json.dumps(document)}"
    setup.bench.script["board-1"] = {"poll": [said], "fetch": [PlayAnswer("failed", {}, "nobody should ask")]}

    assert setup.run()[0].reason == "its results are 3 MB; `limits` allows less"


@pytest.mark.parametrize(
    "document", ["[]", '{"id": 7, "done": "x"}', "{", '{"id": "job-1", "ended": true, "parcel": {"sha256": 1}}', ""]
)
def test_a_status_that_a_run_would_not_write_is_not_believed(setup: Setup, document: str) -> None:
    setup.bench.script["board-1"] = {"poll": [_ok(state=f"free\njob-1\n5000000\n{document}")]}
    members = setup.run()

    assert _states(members) == ["broken", "finished", "finished"]
    assert members[0].reason == "its status file is damaged"


def test_a_damaged_record_does_not_count_and_costs_the_others_nothing(setup: Setup) -> None:
    there = setup.bench._parcel("board-1").parent
    (manifest,) = there.rglob("manifest.json")
    manifest.write_text(manifest.read_text().replace('"plan": []', '"plan": [{"block": "x"}]'))
    members = setup.run()

    assert _states(members) == ["invalid", "finished", "finished"]


def test_the_ledger_and_what_is_told_name_no_host(setup: Setup) -> None:
    setup.bench.script["board-2"] = {"look": [_gone()]}
    setup.run()

    assert "lab-" not in (setup.folder / "fleet.json").read_text()
    assert "lab-" not in "\n".join(setup.said)
