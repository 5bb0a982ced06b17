"""The manifest of a fleet run: states that follow one another, and a file that is whole whatever happens."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.errors import InternalError, RecordError, UsageError
from bench.fleet import ledger
from bench.fleet.ledger import AFTER, STATES, Fate, Ledger, Member


def _ledger(*states: str) -> Ledger:
    members = [Member(f"board-{number}", state) for number, state in enumerate(states, start=1)]
    return Ledger("shelf", "20260101-000000-abcdef", ledger.now(), {"quick": "d1"}, members, 8, 1, 8)


def test_a_run_that_may_be_alive_is_never_begun_again() -> None:
    assert {state for state in STATES if "running" in AFTER[state] and state not in ledger.STARTABLE} == {
        "running",
        "lost",
    }
    for alive in ledger.ALIVE:
        assert alive not in ledger.STARTABLE


@pytest.mark.parametrize("over", ledger.OVER)
def test_what_is_over_stays_over(over: str) -> None:
    found = _ledger(over)

    for state in STATES:
        with pytest.raises(InternalError, match="cannot become"):
            found.move("board-1", state)


def test_every_change_of_state_is_kept_with_its_reason() -> None:
    found = _ledger("waiting")
    found.move("board-1", "running")
    found.move("board-1", "lost", "the link was cut")
    found.move("board-1", "lost", "the link was cut")
    found.move("board-1", "finished")
    member = found.member("board-1")

    said = [(entry["state"], entry["reason"]) for entry in member.history]
    assert said == [("running", None), ("lost", "the link was cut"), ("finished", None)]
    assert member.began is not None
    assert member.ended is not None


def test_a_ledger_comes_back_as_it_was_kept(tmp_path: Path) -> None:
    found = _ledger("finished", "lost")
    found.members[0].outcomes = [Fate("quick", "d1", 0, "quick/20260101", 6, 6, 0)]
    ledger.save(tmp_path, found)

    assert ledger.load(tmp_path) == found
    assert [path.name for path in tmp_path.iterdir()] == ["fleet.json"]


def test_a_ledger_of_another_version_or_damaged_is_refused_in_words(tmp_path: Path) -> None:
    (tmp_path / "fleet.json").write_text('{"schema_version": 2}')
    with pytest.raises(RecordError, match="version 2"):
        ledger.load(tmp_path)
    (tmp_path / "fleet.json").write_text('{"schema')
    with pytest.raises(RecordError, match="damaged"):
        ledger.load(tmp_path)
    with pytest.raises(RecordError, match="no fleet run"):
        ledger.load(tmp_path / "elsewhere")


def test_only_an_unfinished_run_of_the_same_scenarios_is_gone_on_with(tmp_path: Path) -> None:
    place = ledger.folder_of(tmp_path, "shelf") / "20260101-000000-abcdef"
    ledger.save(place, _ledger("finished", "broken"))

    assert ledger.unfinished(tmp_path, "shelf", {"quick": "d1"}) == place
    with pytest.raises(RecordError, match="other scenarios"):
        ledger.unfinished(tmp_path, "shelf", {"quick": "d2"})
    ledger.save(place, _ledger("finished", "invalid"))
    with pytest.raises(RecordError, match="is over"):
        ledger.unfinished(tmp_path, "shelf", {"quick": "d1"})


def test_two_controllers_of_one_fleet_refuse_one_another(tmp_path: Path) -> None:
    with ledger.held(tmp_path / "private"):
        second = ledger.held(tmp_path / "private")
        with pytest.raises(UsageError, match="another command"):
            second.__enter__()
    with ledger.held(tmp_path / "private"):
        assert (tmp_path / "private").stat().st_mode & 0o777 == 0o700


def test_the_kept_file_is_json_that_others_can_read(tmp_path: Path) -> None:
    ledger.save(tmp_path, _ledger("refused"))

    assert json.loads((tmp_path / "fleet.json").read_text())["members"][0]["state"] == "refused"
