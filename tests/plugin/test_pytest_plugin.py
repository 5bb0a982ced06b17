"""Scenarios as pytest items, on a recorded run: the items, pytest-benchmark's own options on them, and the gate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.runs import Behaviour, synthetic_run

pytest_plugins = ["pytester"]

SCENARIO = """\
scenario: synthetic
model: {source: "dummy:tiny-llama"}
engines: {simulated: {engine: simulated}}
matrix: {args.ttft_ms: [100, 130]}
workload: {prompts: {kind: random, tokens: 8}, output_tokens: 4, requests: 6}
design: {blocks: 5, max_steal: 1.0, max_contention: 1.0}
measure: [ttft, throughput]
gate: {baseline: {args.ttft_ms: 100}, metrics: {ttft.p50: 5%}}
"""


@pytest.fixture(autouse=True)
def _not_a_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """An inner pytest is none of the outer one's processes, for which pytest-benchmark writes nothing."""
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)


@pytest.fixture
def scenario_file(pytester: pytest.Pytester) -> Path:
    path = pytester.path / "speed.yaml"
    path.write_text(SCENARIO)
    return path


def recorded(root: Path, slow: float = 130.0, name: str = "run") -> Path:
    variants = {
        f"ttft-ms-{ttft}": Behaviour(ttft=value, launch_sd=0.01, factors={"args.ttft_ms": str(ttft)})
        for ttft, value in ((100, 100.0), (130, slow))
    }
    return synthetic_run(
        root / name, variants, blocks=5, requests=6, samples=False, scenario_text=SCENARIO, run_id=name
    )


def test_only_a_named_scenario_is_collected(pytester: pytest.Pytester, scenario_file: Path) -> None:
    named = pytester.runpytest_subprocess("--collect-only", "-q", "speed.yaml")
    named.stdout.fnmatch_lines(["*ttft-ms-100?ttft.p50?*", "*ttft-ms-130?ttft.p50?*", "*gate*"])
    assert "speed.yaml" not in pytester.runpytest_subprocess("--collect-only", "-q").stdout.str()
    assert "speed.yaml" in pytester.runpytest_subprocess("--collect-only", "-q", "--scenarios", ".").stdout.str()


@pytest.mark.slow
def test_a_wrong_scenario_says_where(pytester: pytest.Pytester, scenario_file: Path) -> None:
    scenario_file.write_text(SCENARIO.replace("blocks", "blokcs"))
    result = pytester.runpytest_subprocess("speed.yaml")
    result.stdout.fnmatch_lines(["*speed.yaml:6:*blokcs*"])
    assert "Traceback" not in result.stdout.str()


def test_each_launch_is_a_round_in_benchmarks_own_json(pytester: pytest.Pytester, scenario_file: Path) -> None:
    run = recorded(pytester.path)
    result = pytester.runpytest_subprocess("speed.yaml", f"--scenario-run={run}", "--benchmark-json=out.json")
    # The gate says FAIL, and no A/A study stands behind it.
    result.assert_outcomes(passed=3, warnings=1)
    result.stdout.fnmatch_lines(["*AdvisoryFail: ADVISORY FAIL: a regression in synthetic*"])
    found = json.loads((pytester.path / "out.json").read_text())["benchmarks"]
    assert [one["stats"]["rounds"] for one in found] == [5, 5]
    assert found[0]["stats"]["median"] == pytest.approx(0.1, rel=0.03)
    assert found[1]["stats"]["median"] == pytest.approx(0.13, rel=0.03)
    assert found[0]["group"] == "synthetic ttft.p50"
    assert found[0]["extra_info"]["output_throughput"] > 0


def test_without_pytest_benchmark_the_gate_works_and_the_times_say_what_is_missing(
    pytester: pytest.Pytester, scenario_file: Path
) -> None:
    run = recorded(pytester.path)
    result = pytester.runpytest_subprocess("speed.yaml", f"--scenario-run={run}", "-p", "no:benchmark", "-rs")
    result.assert_outcomes(passed=1, skipped=2, warnings=1)
    result.stdout.fnmatch_lines(["*pip install 'firsttoken?pytest?'*"])


@pytest.mark.slow
def test_benchmarks_own_compare_fail_works_on_a_scenario(pytester: pytest.Pytester, scenario_file: Path) -> None:
    before, same, worse = (recorded(pytester.path, slow, name) for slow, name in ((100, "a"), (100, "b"), (120, "c")))
    limit = ("--benchmark-compare=0001", "--benchmark-compare-fail=median:5%", "-k", "130")
    assert pytester.runpytest_subprocess("speed.yaml", f"--scenario-run={before}", "--benchmark-autosave").ret == 0
    assert pytester.runpytest_subprocess("speed.yaml", f"--scenario-run={same}", *limit).ret == 0
    failing = pytester.runpytest_subprocess("speed.yaml", f"--scenario-run={worse}", *limit)
    assert failing.ret != 0
    assert "Performance has regressed" in failing.stdout.str() + failing.stderr.str()


@pytest.mark.slow
def test_the_gate_is_an_item_that_fails_when_it_binds(pytester: pytest.Pytester, scenario_file: Path) -> None:
    run = recorded(pytester.path)
    binding = pytester.runpytest_subprocess(
        "speed.yaml", f"--scenario-run={run}", "--scenario-enforce", "-k", "gate", "--benchmark-disable"
    )
    binding.assert_outcomes(failed=1, deselected=2)
    binding.stdout.fnmatch_lines(["*FAIL: a regression in synthetic*"])


@pytest.mark.slow
def test_a_run_that_cannot_be_had_fails_in_words(pytester: pytest.Pytester, scenario_file: Path) -> None:
    result = pytester.runpytest_subprocess("speed.yaml", "--scenario-run=nowhere", "--tb=short")
    result.stdout.fnmatch_lines(["*nowhere does not exist*"])
    assert "Traceback" not in result.stdout.str()


def test_the_fixtures_are_about_the_marked_scenario(pytester: pytest.Pytester, scenario_file: Path) -> None:
    run = recorded(pytester.path)
    pytester.makepyfile(
        """
        import pytest

        @pytest.mark.scenario("speed.yaml")
        def test_mine(scenario, run):
            assert scenario.name == "synthetic"
            assert len(run.per_launch) == 10

        def test_unmarked(scenario):
            pass
        """
    )
    result = pytester.runpytest_subprocess(f"--scenario-run={run}")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*mark the test with @pytest.mark.scenario*"])
