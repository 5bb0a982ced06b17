"""Stored sessions: what may join them, what a damaged file says, and how a new session is held against them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.analyse.run import Run
from bench.errors import IncomparableError, RecordError, UsageError
from bench.judge import baseline, predict
from bench.judge.baseline import Baseline, Session
from bench.judge.decide import Verdict
from bench.judge.gate import judge_stored
from tests.runs import Behaviour, synthetic_run

METRIC = "ttft.p50"


def session_run(root: Path, ttft: float = 100.0, *, number: int = 0, variants: int = 1) -> Run:
    made = {f"v{index}": Behaviour(ttft=ttft, factors={"build": f"v{index}"}) for index in range(variants)}
    path = synthetic_run(
        root,
        made,
        blocks=2,
        requests=4,
        samples=False,
        run_id=f"day-{number:02d}",
        scenario_text="scenario: synthetic\n",
    )
    return Run.open(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return session_run(tmp_path_factory.mktemp("sessions"), variants=2)


def stored(run: Run, count: int, sd: float = 0.02, *, reference: bool = False) -> Baseline:
    noise = np.random.default_rng(3).normal(0, sd, count)
    noise -= noise.mean()
    empty = baseline.start(run, "v0", reference="v1" if reference else None, margins={METRIC: 0.05})
    sessions = tuple(
        Session(f"old-{index}", "2026-01-01", 2, {METRIC: 100 * float(np.exp(x))}, {METRIC: 50 * float(np.exp(x))})
        for index, x in enumerate(noise)
    )
    return replace(empty, sessions=sessions)


def test_a_session_is_the_median_over_launches(run: Run) -> None:
    one = baseline.add(baseline.start(run, "v0"), run).sessions[0]
    assert one.values[METRIC] == pytest.approx(100)
    assert (one.run, one.launches) == ("day-00", 2)


def test_a_file_comes_back_as_it_was(run: Run, tmp_path: Path) -> None:
    there = stored(run, 12)
    assert baseline.load(baseline.save(there, tmp_path)) == there


def test_a_file_is_small_enough_to_be_read_by_people(run: Run, tmp_path: Path) -> None:
    path = baseline.save(stored(run, 30), tmp_path)
    assert path.stat().st_size < 20_000


def test_the_same_run_is_not_counted_twice(run: Run) -> None:
    once = baseline.add(baseline.start(run, "v0"), run)
    with pytest.raises(UsageError, match="already"):
        baseline.add(once, run)


def test_another_machine_or_scenario_does_not_join(run: Run) -> None:
    there = baseline.start(run, "v0")
    other = replace(there, machine=dict(there.machine) | {"jetson.power_mode": "15W"}, scenario_digest="sha256:1")
    with pytest.raises(IncomparableError) as caught:
        baseline.add(other, run)
    assert "jetson.power_mode: 15W and unknown" in str(caught.value)
    assert "asks for something else" in str(caught.value)


def test_an_unfinished_run_does_not_join(tmp_path: Path) -> None:
    unfinished = session_run(tmp_path)
    unfinished.manifest.state = "interrupted"
    with pytest.raises(UsageError, match="is interrupted"):
        baseline.add(baseline.start(unfinished, "v0"), unfinished)


def test_prune_keeps_the_newest_and_knows_its_sessions(run: Run) -> None:
    there = stored(run, 12)
    assert [one.run for one in baseline.prune(there, keep=2).sessions] == ["old-10", "old-11"]
    assert len(baseline.prune(there, runs=["old-3"]).sessions) == 11
    with pytest.raises(UsageError, match="no session nope"):
        baseline.prune(there, runs=["nope"])


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda text: text[:100], "is damaged"),
        (lambda text: text.replace('"schema_version": 1', '"schema_version": 9'), "schema version 9, this firsttoken"),
        (lambda text: "[]", "schema version None"),
        (lambda text: text.replace('"variant"', '"variety"'), "is damaged"),
        (lambda text: text.replace('"ttft.p50": 100', '"ttft.p50": -100'), "ttft.p50 is -100"),
        (lambda text: text.replace('"ttft.p50": 100', '"ttft.p50": NaN'), "ttft.p50 is nan"),
    ],
)
def test_a_damaged_file_says_so(run: Run, tmp_path: Path, damage: object, says: str) -> None:
    there = replace(
        baseline.start(run, "v0", margins={METRIC: 0.05}), sessions=(Session("old", "2026-01-01", 2, {METRIC: 100}),)
    )
    path = baseline.save(there, tmp_path)
    assert callable(damage)
    path.write_text(damage(path.read_text()))
    with pytest.raises(RecordError, match=says):
        baseline.load(path)


def test_a_missing_baseline_says_how_to_make_one(run: Run, tmp_path: Path) -> None:
    with pytest.raises(RecordError, match="no baseline of"):
        judge_stored(run, baselines=tmp_path)


@pytest.mark.parametrize(
    ("level", "verdict"), [(97.0, Verdict.PASS), (120.0, Verdict.FAIL), (107.0, Verdict.INCONCLUSIVE)]
)
def test_a_new_session_is_judged_by_the_spread_of_the_old(tmp_path: Path, level: float, verdict: Verdict) -> None:
    new = session_run(tmp_path / "run", level)
    baseline.save(stored(new, 12), tmp_path / "kept")
    assert judge_stored(new, baselines=tmp_path / "kept", enforce=True).verdict is verdict


def test_nine_sessions_are_too_few(tmp_path: Path) -> None:
    new = session_run(tmp_path / "run", 150)
    baseline.save(stored(new, 9), tmp_path / "kept")
    gate = judge_stored(new, baselines=tmp_path / "kept", enforce=True)
    assert gate.verdict is Verdict.INCONCLUSIVE
    assert gate.comparisons[0].results[0].reason == "9 stored sessions; a verdict needs 10"


def test_another_host_class_gets_a_report_and_no_verdict(tmp_path: Path) -> None:
    new = session_run(tmp_path / "run", 150)
    baseline.save(replace(stored(new, 12), host_class="jetson-orin-nx-16gb"), tmp_path / "kept")
    gate = judge_stored(new, baselines=tmp_path / "kept", enforce=True)
    assert gate.verdict is None
    assert int(gate.exit_code) == 3
    result = gate.comparisons[0].results[0]
    assert result.reason == "unknown is not jetson-orin-nx-16gb: a report, never a verdict"
    assert result.ratio == pytest.approx(1.5, rel=0.02)


def test_a_bad_day_that_the_reference_felt_too_is_no_regression(tmp_path: Path) -> None:
    new = session_run(tmp_path / "run", 110, variants=2)
    there = stored(new, 12, 0.03, reference=True)
    # The reference was 50 on a day when the variant was 100: at 110 it felt 20 % and not 10.
    there = replace(there, sessions=tuple(_scaled(one) for one in there.sessions))
    baseline.save(there, tmp_path / "kept")
    result = judge_stored(new, variant="v0", baselines=tmp_path / "kept", enforce=True).comparisons[0].results[0]
    assert result.verdict is Verdict.PASS
    assert "reference workload taken into account" in result.reason


def _scaled(one: Session) -> Session:
    return replace(one, reference={METRIC: one.values[METRIC]})


def test_a_reference_that_tells_nothing_is_not_used() -> None:
    draw = np.random.default_rng(1)
    y, r = draw.normal(0, 0.02, 12), draw.normal(0, 0.02, 12)
    assert not predict.predict(y, r, 0.5).used_reference
    assert predict.predict(y, y + draw.normal(0, 0.002, 12), 0.0).used_reference


def test_the_prediction_is_the_textbook_one() -> None:
    from scipy import stats

    draw = np.random.default_rng(2)
    r = draw.normal(0, 0.03, 15)
    y = 1 + 0.8 * r + draw.normal(0, 0.005, 15)
    made = predict.predict(y, r, 0.02)
    line = stats.linregress(r, y)
    residual = y - line.intercept - line.slope * r
    scale = np.sqrt((residual**2).sum() / 13)
    spread = ((r - r.mean()) ** 2).sum()
    assert made.expected == pytest.approx(line.intercept + line.slope * 0.02)
    assert made.error == pytest.approx(scale * np.sqrt(1 + 1 / 15 + (0.02 - r.mean()) ** 2 / spread))
    assert made.df == 13


def test_the_file_is_json_with_the_recipe_in_it(run: Run, tmp_path: Path) -> None:
    document = json.loads(baseline.save(stored(run, 1), tmp_path).read_text())
    assert document["recipe"] == "scenario: synthetic\n"
