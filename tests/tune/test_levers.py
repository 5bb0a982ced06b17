from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import UsageError
from bench.tune.levers import Levers
from tests.tune.fields import field, scenario


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


def test_many_combinations_are_not_raced_but_screened(tmp_path: Path) -> None:
    found = field(tmp_path, {"ttft_ms": [5, 6, 7], "itl_ms": [2, 3, 4]})
    assert not found.every
    assert len(found.candidates) == 4 * 4 - 1


LEVERS = """{levers: {
  warmup: [requests], page_cache: [prefetch], start: [forked], env.SOME_MODE: ["2"],
  both: {quick: {args: {ttft_ms: 5}, warmup: [often], env: {SOME_MODE: "1"}}, slow: {args: {ttft_ms: 60}}}}}"""


def levers(folder: Path) -> Levers:
    more = {"warmups": "{often: [{strategy: requests, n: 7}]}", "tune": LEVERS}
    asked = scenario(folder, **more)
    return Levers.of(asked.model, asked.variants[0])


def test_levers_are_variables_warm_ups_page_cache_start_and_named_parts_of_a_variant(tmp_path: Path) -> None:
    found = levers(tmp_path)
    assert list(found.turns) == ["warmup", "page_cache", "start", "env.SOME_MODE", "both"]
    all_of_them = found.at((1, 1, 1, 1, 1))
    variant = all_of_them.variant
    assert variant.id == "requests-prefetch-forked-some-mode-2-both-quick"
    assert (variant.start, variant.page_cache) == ("forked", "prefetch")
    # Laid over in order: the later lever has the last word on a variable, and on a step of the same strategy.
    assert variant.engine.env == {"SOME_MODE": "1"}
    assert [(step.strategy, step.options) for step in variant.warmup] == [("requests", {"n": 7})]
    assert variant.factors["start"] == "forked"
    assert variant.factors["warmup"] == "requests+often"
    assert variant.factors["env.SOME_MODE"] == "1"
    assert found.start.variant.factors["env.SOME_MODE"] == "default"
    assert (found.start.variant.factors["start"], found.start.variant.factors["args.ttft_ms"]) == ("exec", "20")


def test_combinations_that_come_to_the_same_are_one(tmp_path: Path) -> None:
    grid = levers(tmp_path).grid()
    # `quick` overrides env.SOME_MODE and the requests of `warmup`: 2⁴ · 3 places, 16 with quick are but 4.
    assert len(grid.candidates) == 16 * 2 + 4 - 1
    assert len({one.id for one in grid.candidates}) == len(grid.candidates)


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
