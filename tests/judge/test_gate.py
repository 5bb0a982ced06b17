"""A gate over recorded runs: red on a slowdown, green without, yellow when the data are too few."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from bench.analyse.run import Run
from bench.errors import Exit, UsageError
from bench.judge import aa
from bench.judge.decide import Verdict
from bench.judge.gate import Judgement, judge
from bench.report.verdicts import comment, data, github, junit, sentences
from tests.runs import Behaviour, synthetic_run

TEXT = """\
scenario: synthetic
design: {blocks: 8}
gate: {baseline: {build: old}, metrics: {ttft.p50: 5%, output_throughput: 3%}}
"""


def gated(root: Path, ttft: float = 100.0, *, blocks: int = 6, text: str = TEXT, **more: Behaviour) -> Run:
    variants = {
        "old": Behaviour(ttft=100, launch_sd=0.01, factors={"build": "old"}),
        "new": Behaviour(ttft=ttft, launch_sd=0.01, factors={"build": "new"}),
        **more,
    }
    return Run.open(synthetic_run(root, variants, blocks=blocks, requests=6, samples=False, scenario_text=text))


@pytest.fixture(scope="module")
def red(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return gated(tmp_path_factory.mktemp("red"), 120.0)


@pytest.fixture(scope="module")
def green(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return gated(tmp_path_factory.mktemp("green"))


def calibrated(run: Run, folder: Path, sessions: int = 30, fails: int = 0) -> Path:
    margins = {"ttft.p50": 0.05}
    found = [
        aa.Trial(number, Verdict.FAIL if number < fails else Verdict.PASS, {}, {"ttft.p50": 1.0}, {"ttft.p50": 0.5})
        for number in range(sessions)
    ]
    aa.save(aa.aa_record(run, found, 5, margins, "old"), folder)
    return folder


def test_red_on_a_slowdown(red: Run) -> None:
    gate = judge(red, enforce=True)
    assert gate.verdict is Verdict.FAIL
    assert gate.exit_code is Exit.REGRESSION
    assert gate.headline.startswith("FAIL: a regression in synthetic")


def test_green_without(green: Run) -> None:
    gate = judge(green, enforce=True)
    assert gate.verdict is Verdict.PASS
    assert gate.exit_code is Exit.PASS


def test_yellow_when_the_data_are_too_few(tmp_path: Path) -> None:
    gate = judge(gated(tmp_path, 120.0, blocks=2), enforce=True)
    assert gate.verdict is Verdict.INCONCLUSIVE
    assert gate.exit_code is Exit.INCONCLUSIVE
    assert "at least 3" in sentences.render(gate)


def test_grey_when_nothing_can_be_judged(tmp_path: Path) -> None:
    broken = Behaviour(status=dict.fromkeys(range(6), ("failed", "crash_at_start", "it died")), factors={"build": "x"})
    run = gated(tmp_path, text=TEXT.replace("old", "x"), bad=broken)
    gate = judge(run)
    assert gate.verdict is Verdict.INVALID
    assert gate.exit_code is Exit.INVALID
    assert "no valid launch of bad: block 1: it died" in sentences.render(gate)


def test_without_an_aa_study_its_word_is_advice(red: Run, tmp_path: Path) -> None:
    gate = judge(red, baselines=tmp_path)
    assert gate.verdict is Verdict.FAIL
    assert gate.exit_code is Exit.PASS
    first, *rest = sentences.render(gate).splitlines()
    assert first.startswith("ADVISORY FAIL: a regression in synthetic")
    assert rest[1].startswith("  advice only, exit 0: no A/A study of this machine")
    assert "ADVISORY FAIL: a regression" in comment.render(gate)
    assert "title=firsttoken ADVISORY FAIL%3A old → new" in github.render(gate)
    assert data.render(gate)["exit_code"] == 0


def test_an_invalid_measurement_is_never_advice(tmp_path: Path) -> None:
    broken = Behaviour(status=dict.fromkeys(range(6), ("failed", "crash_at_start", "it died")), factors={"build": "x"})
    gate = judge(gated(tmp_path, text=TEXT.replace("old", "x"), bad=broken), baselines=tmp_path)
    assert gate.exit_code is Exit.INVALID
    assert gate.advisory is None
    for told in (sentences.render(gate), comment.render(gate), github.render(gate), junit.render(gate)):
        assert "advi" not in told.lower()
    assert data.render(gate)["advisory"] is None


def test_with_one_it_binds_and_states_its_false_alarms(red: Run, tmp_path: Path) -> None:
    gate = judge(red, baselines=calibrated(red, tmp_path))
    assert gate.exit_code is Exit.REGRESSION
    assert "false alarms on this machine: 0 of 30 (0% to 12%) A/A sessions of 5 blocks" in sentences.render(gate)


@pytest.mark.parametrize(
    ("sessions", "fails", "says"),
    [(12, 0, "only 12 A/A sessions"), (30, 9, "it failed 9 of 30 (15% to 49%), more often than the 5%")],
)
def test_a_study_too_small_or_too_bad_leaves_it_advice(
    red: Run, tmp_path: Path, sessions: int, fails: int, says: str
) -> None:
    gate = judge(red, baselines=calibrated(red, tmp_path, sessions, fails))
    assert gate.exit_code is Exit.PASS
    assert gate.advisory is not None
    assert says in gate.advisory


def test_several_candidates_are_all_judged(tmp_path: Path) -> None:
    slow = Behaviour(ttft=130, launch_sd=0.01, factors={"build": "slow"})
    gate = judge(gated(tmp_path, slow=slow), enforce=True)
    assert [(one.b.label, one.verdict) for one in gate.comparisons] == [
        ("new", Verdict.PASS),
        ("slow", Verdict.FAIL),
    ]
    assert gate.verdict is Verdict.FAIL


def test_a_scenario_without_gate_cannot_be_gated(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no gate"):
        judge(gated(tmp_path, text="scenario: synthetic\n"))


def test_a_sequential_plan_pays_for_its_looks(tmp_path: Path) -> None:
    text = TEXT.replace("{blocks: 8}", "{blocks: 16, sequential: true}")
    early = judge(gated(tmp_path, blocks=5, text=text)).comparisons[0].alpha
    assert early == pytest.approx(0.0215, abs=0.0005)


def test_json_says_what_the_table_says(red: Run) -> None:
    made = json.loads(json.dumps(data.render(judge(red, enforce=True)), allow_nan=False))
    assert (made["verdict"], made["exit_code"]) == ("FAIL", 1)
    ttft = made["comparisons"][0]["metrics"][0]
    assert ttft["metric"] == "ttft.p50"
    assert ttft["ratio"] == pytest.approx(1.2, rel=0.02)
    assert len(ttft["pairs"]) == 6


def test_junit_has_a_case_per_metric(red: Run) -> None:
    root = ET.fromstring(junit.render(judge(red, enforce=True)))
    assert root.get("failures") == "2"
    cases = {case.get("name"): [child.tag for child in case] for case in root.iter("testcase")}
    assert cases == {"ttft.p50": ["failure"], "output_throughput": ["failure"]}


def test_junit_fails_nothing_while_the_gate_is_advice(red: Run, tmp_path: Path) -> None:
    root = ET.fromstring(junit.render(judge(red, baselines=tmp_path)))
    assert root.get("failures") == "0"
    assert root.get("skipped") == "0"
    assert [said.text[:14] for said in root.iter("system-err") if said.text] == ["ADVISORY FAIL:"] * 2


def test_what_an_engine_printed_breaks_no_format(tmp_path: Path) -> None:
    nasty = "<script>|x|\x1b[31m ]]> & \x00 `rm`"
    broken = Behaviour(
        ttft=100, status={2: ("failed", "crash_at_start", nasty)}, factors={"build": "x"}, launch_sd=0.01
    )
    gate = judge(gated(tmp_path, bad=broken), enforce=True)
    ET.fromstring(junit.render(gate))
    table = comment.render(gate)
    assert "<script>" not in table
    assert "\\|x\\|" in table
    assert len(github.render(gate).splitlines()) == len(gate.comparisons)


def test_github_annotations_carry_the_level(red: Run, green: Run, tmp_path: Path) -> None:
    assert github.render(judge(red, enforce=True)).startswith("::error title=firsttoken FAIL%3A old → new::")
    assert github.render(judge(green, enforce=True)).startswith("::notice ")
    assert github.render(judge(red, baselines=tmp_path)).startswith("::warning ")


def test_markdown_leads_with_the_word(red: Run) -> None:
    lines = comment.render(judge(red, enforce=True)).splitlines()
    assert lines[1].startswith("### 🔴 FAIL: a regression")
    assert any(line.startswith("| TTFT p50") for line in lines)


def test_an_interrupted_run_says_so(red: Run) -> None:
    red.manifest.state = "interrupted"
    try:
        assert "not complete (interrupted)" in sentences.render(judge(red))
    finally:
        red.manifest.state = "complete"


def test_a_gate_is_plain_data(red: Run) -> None:
    assert isinstance(judge(red), Judgement)
