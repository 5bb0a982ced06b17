from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from bench.judge.compare import Terms, compare
from bench.judge.stopping import half_width, precise, stop_rule, verdict_reached
from bench.scenario.load import Scenario
from tests.runs import Behaviour, synthetic_run


def launches(variant: str, factor: float, blocks: int = 5, sd: float = 0.01) -> pd.DataFrame:
    values = 100 * factor * np.exp(np.random.default_rng(len(variant)).normal(0, sd, blocks))
    return pd.DataFrame({"block": range(blocks), "status": "ok", "variant": variant, "ttft.p50": values})


def test_a_look_that_finds_all_passed_ends_the_run() -> None:
    compared = compare(launches("a", 1.0), launches("bb", 1.0), Terms({"ttft.p50": 0.05}))
    assert verdict_reached([compared], 5) == "after 5 blocks every gated metric has passed"


def test_a_look_that_finds_a_failure_ends_the_run_and_says_which() -> None:
    compared = compare(launches("a", 1.0), launches("bb", 1.3), Terms({"ttft.p50": 0.05}))
    reason = verdict_reached([compared], 5)
    assert reason is not None
    assert reason.startswith("after 5 blocks b is worse in TTFT p50")


def test_an_open_question_goes_on() -> None:
    compared = compare(launches("a", 1.0), launches("bb", 1.05), Terms({"ttft.p50": 0.05}))
    assert verdict_reached([compared], 5) is None
    assert verdict_reached([], 5) is None


def test_precision_is_every_variants_and_every_metrics() -> None:
    narrow, wide = launches("a", 1.0, sd=0.005), launches("bb", 1.0, sd=0.1)
    assert precise(narrow, ["ttft"], 0.03) is not None
    assert precise(pd.concat([narrow, wide]), ["ttft.p50"], 0.03) is None


def test_what_is_not_measured_here_does_not_hold_a_run_up() -> None:
    rows = launches("a", 1.0, sd=0.005).assign(startup=np.nan)
    assert precise(rows, ["ttft.p50", "startup"], 0.03) is not None
    assert precise(rows, ["startup"], 0.03) is None


def test_half_width_of_the_log_mean() -> None:
    assert half_width(np.array([100.0])) is None
    assert half_width(np.array([100.0, 100.0, 100.0])) == 0.0
    values = np.exp(np.array([0.0, 0.1, 0.2]))
    assert half_width(values) == pytest.approx(np.expm1(2.919986 * 0.1 / np.sqrt(3)))


SEQUENTIAL = """\
scenario: synthetic
engines: {server: {engine: simulated}}
matrix: {args.slowdown: [1.0, 1.2]}
workload: {prompts: {kind: random, tokens: 8}, output_tokens: 4, requests: 6}
design: {blocks: 16, sequential: true}
measure: [ttft]
gate: {baseline: {args.slowdown: 1.0}, metrics: {ttft.p50: 5%}}
"""


@pytest.mark.parametrize(("blocks", "stops"), [(4, False), (5, True), (6, False)])
def test_a_sequential_plan_stops_at_its_looks_only(tmp_path: Path, blocks: int, stops: bool) -> None:
    scenario = Scenario.parse(SEQUENTIAL)
    old, new = scenario.variants
    variants = {
        old.id: Behaviour(launch_sd=0.01, factors=old.factors),
        new.id: Behaviour(ttft=130, launch_sd=0.01, factors=new.factors),
    }
    run = synthetic_run(tmp_path, variants, blocks=blocks, requests=4, samples=False, scenario_text=SEQUENTIAL)
    rule = stop_rule(scenario)
    assert rule is not None
    reason = rule(run)
    assert (reason is not None) is stops
    if reason:
        assert f"{new.id} is worse in TTFT p50" in reason


def test_without_a_wish_to_stop_there_is_no_rule() -> None:
    assert stop_rule(Scenario.parse(SEQUENTIAL.replace(", sequential: true", ""))) is None


def test_a_precise_run_stops_from_five_blocks_on(tmp_path: Path) -> None:
    scenario = Scenario.parse(SEQUENTIAL.replace("sequential: true", "precision: 0.05"))
    variants = {one.id: Behaviour(launch_sd=0.01, factors=one.factors) for one in scenario.variants}
    rule = stop_rule(scenario)
    assert rule is not None
    for blocks, stops in ((4, False), (5, True)):
        run = synthetic_run(tmp_path / str(blocks), variants, blocks=blocks, requests=4, samples=False)
        assert (rule(run) is not None) is stops
