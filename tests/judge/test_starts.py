"""A forked launch counts only beside an equal answer by exec; whatever is missing or differs makes it invalid."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.analyse.series import Samples
from bench.judge.evidence import Evidence
from bench.judge.starts import WITHIN, oracle
from bench.judge.validity import judge_folder
from bench.record.launches import Check, LaunchRecord, OracleAnswer, StartAccount
from bench.record.schema import StartMode
from bench.record.store import RunFolder
from bench.record.tables import from_rows
from tests.runs import Behaviour, synthetic_run

TOLD = OracleAnswer("token_id:260", -3.25)


def launch(start: StartMode, block: int = 0, position: int = 0, engine: str = "v", **changes: Any) -> LaunchRecord:
    factors = {"engine": engine, "warmup": "none", "start": start}
    record = LaunchRecord(f"{block}-{position}-{start}", f"{engine}-{start}", factors, block, position)
    record.start = dataclasses.replace(StartAccount(start, start, oracle=TOLD), **changes)
    return record


def check(own: LaunchRecord, others: Sequence[LaunchRecord]) -> Check | None:
    return oracle.check(Evidence(own, from_rows("requests", []), Samples(from_rows("samples", [])), {}, {}, others))


def verdict(own: LaunchRecord, *others: LaunchRecord) -> tuple[str, str]:
    found = check(own, others)
    assert found is not None
    assert found.name == "oracle.state"
    return found.status, found.evidence


def test_the_same_token_and_log_probability_are_accepted_with_their_source() -> None:
    status, words = verdict(launch("forked"), launch("exec", 2))
    assert status == "ok"
    assert words == "token_id:260 at -3.250000, by exec in 2-0-exec token_id:260 at -3.250000 (0 nats apart)"


@pytest.mark.parametrize(
    "own",
    [
        OracleAnswer("token_id:261", -3.25),
        OracleAnswer("token_id:260", -3.25 - 2 * WITHIN),
        OracleAnswer("token_id:260", float("nan")),
        OracleAnswer("token_id:260", None),
        OracleAnswer(None, -3.25),
        OracleAnswer(reason="the engine answers 500: dead"),
        OracleAnswer(),
        None,
    ],
)
def test_another_answer_or_none_is_invalid(own: OracleAnswer | None) -> None:
    assert verdict(launch("forked", oracle=own), launch("exec"))[0] == "violated"


def test_the_last_decimals_of_a_float_are_forgiven() -> None:
    own = OracleAnswer("token_id:260", -3.25 - WITHIN / 2)
    assert verdict(launch("forked", oracle=own), launch("exec"))[0] == "ok"


def test_without_a_reference_nothing_is_shown_to_be_equal() -> None:
    strangers = [
        launch("exec", engine="another"),
        launch("forked", 1),
        # Asked to be forked and started by exec: it bears another variant's name.
        launch("exec", 1, asked="forked"),
        launch("exec", 1, oracle=OracleAnswer(reason="the engine gives no log-probabilities")),
    ]
    status, words = verdict(launch("forked"), *strangers)
    assert (status, "no launch by exec" in words) == ("violated", True)


def test_a_launch_that_failed_is_no_reference() -> None:
    failed = launch("exec")
    failed.status = "failed"
    assert verdict(launch("forked"), failed)[0] == "violated"


def test_the_latest_launch_of_the_same_run_is_believed_before_an_earlier_runs() -> None:
    other = OracleAnswer("token_id:9", -1.0)
    own = launch("forked", reference=dataclasses.replace(other, when="2026-01-01T00:00:00+00:00"))
    assert verdict(own, launch("exec", 0, oracle=other), launch("exec", 3))[0] == "ok"
    status, words = verdict(own)
    assert status == "violated"
    assert "by exec as kept from 2026-01-01T00:00:00+00:00" in words


def test_what_an_earlier_run_recorded_serves_where_this_run_has_none() -> None:
    assert verdict(launch("forked", reference=dataclasses.replace(TOLD, when="2026-01-01")))[0] == "ok"


def test_a_restored_launch_is_held_against_its_reference_as_a_forked_one_is() -> None:
    assert verdict(launch("restored"), launch("exec"))[0] == "ok"
    assert verdict(launch("restored", oracle=OracleAnswer("token_id:1", -3.25)), launch("exec"))[0] == "violated"
    assert verdict(launch("restored"))[0] == "violated"


def test_launches_that_were_not_forked_are_not_concerned() -> None:
    assert check(launch("exec"), [launch("exec", 1)]) is None
    assert check(LaunchRecord("0", "v", {}, 0, 0), []) is None


def test_it_is_judged_from_the_folders_of_a_run(tmp_path: Path) -> None:
    forked, executed = ({"engine": "v", "start": start} for start in ("forked", "exec"))
    path = synthetic_run(tmp_path, {"f": Behaviour(factors=forked), "e": Behaviour(factors=executed)}, blocks=1)
    with RunFolder.open(path) as folder:
        records = {record.variant: record for record in folder.finished().values()}
        places = {name: folder.launch_path(record.launch_id) for name, record in records.items()}
        modes: dict[str, StartMode] = {"f": "forked", "e": "exec"}
        for name, mode in modes.items():
            records[name].start = StartAccount(mode, mode, oracle=TOLD)
            folder.amend(records[name])
        found = {
            name: [one for one in judge_folder(place) if one.name == "oracle.state"] for name, place in places.items()
        }
        assert [one.status for one in found["f"]] == ["ok"]
        assert found["e"] == []
        records["e"].start = StartAccount("exec", "exec", oracle=OracleAnswer("token_id:1", -3.25))
        folder.amend(records["e"])
        assert [one.status for one in judge_folder(places["f"]) if one.name == "oracle.state"] == ["violated"]
