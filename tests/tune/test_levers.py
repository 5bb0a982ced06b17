from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import UsageError
from tests.tune.fields import field


def test_few_levers_are_raced_in_every_combination(tmp_path: Path) -> None:
    found = field(tmp_path, {"ttft_ms": [5], "itl_ms": [2, 3]})
    assert found.every
    assert [one.id for one in found.candidates] == [
        "itl-ms-2",
        "itl-ms-3",
        "ttft-ms-5",
        "ttft-ms-5-itl-ms-2",
        "ttft-ms-5-itl-ms-3",
    ]
    assert found.candidates[-1].variant.engine.args == {"ttft_ms": 5, "itl_ms": 3}
    assert found.start.variant.engine.args == {"ttft_ms": 20, "itl_ms": 1}


def test_many_levers_are_turned_one_by_one_and_rival_their_own_kind(tmp_path: Path) -> None:
    found = field(tmp_path, {"ttft_ms": [5, 6, 7], "itl_ms": [2, 3, 4]})
    assert not found.every
    assert [len(one.changes) for one in found.candidates] == [1] * 6
    assert [rival.id for rival in found.rivals(found.candidates[0])] == ["ttft-ms-6", "ttft-ms-7"]


def test_a_level_that_the_start_has_already_is_no_candidate(tmp_path: Path) -> None:
    assert [one.id for one in field(tmp_path, {"ttft_ms": [20, 5]}).candidates] == ["ttft-ms-5"]
    with pytest.raises(UsageError, match="nothing to try"):
        field(tmp_path, {"ttft_ms": [20]})


def test_factors_say_where_every_lever_stands(tmp_path: Path) -> None:
    found = field(tmp_path, {"ttft_ms": [5], "kv_blocks": [64]})
    assert found.start.variant.factors["args.kv_blocks"] == "default"
    assert found.candidates[0].variant.factors["args.kv_blocks"] == "64"
    assert found.candidates[0].variant.factors["args.ttft_ms"] == "20"


def test_long_names_stay_names_of_folders(tmp_path: Path) -> None:
    levers = {f"a_flag_with_quite_a_long_name_{number}": [True] for number in range(3)}
    ids = [one.id for one in field(tmp_path, levers).candidates]
    assert max(map(len, ids)) <= 80
    assert len(set(ids)) == 7
