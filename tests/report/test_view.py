"""A run beside other programs says so before any figure: in its first sentence, its table, and at the gate."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from bench.analyse.run import Run
from bench.judge.gate import judge
from bench.record.launches import Check
from bench.report.sections import headline
from bench.report.text import summary
from bench.report.verdicts import sentences
from bench.report.view import View
from tests.runs import Behaviour, synthetic_run

SCENARIO = "scenario: synthetic\nmatrix: {}\ngate: {baseline: {which: a}, metrics: {ttft: 10%}}\n"
WAITED = Check("contention", "warning", "the engine's threads waited for others 31.5% ± 0.4 of their time")
BESIDE = Check("foreign_cpu", "warning", "50.2% ± 0.4 of the machine's processor time")
UNKNOWN = Check("contention", "unknown", "4.0% ± 20.0; too short a window to tell")


def run_with(root: Path, *checks: Check, status: str = "ok") -> Run:
    bad = dict.fromkeys(range(6), (status, "contention", "48.0%")) if status != "ok" else {}
    variants = {
        "a": Behaviour(factors={"which": "a"}, launch_sd=0.01),
        "b": Behaviour(factors={"which": "b"}, launch_sd=0.01, checks=checks, status=bad),
    }
    return Run.open(synthetic_run(root, variants, blocks=6, scenario_text=SCENARIO))


def shown(run: Run) -> str:
    console = Console(width=200, record=True)
    console.print(summary(run))
    return console.export_text()


def test_alone_a_run_begins_with_its_figure_and_passes(tmp_path: Path) -> None:
    run = run_with(tmp_path)
    assert next(headline.findings(View(run))).startswith("Once steady")
    assert "ontended" not in shown(run)
    assert judge(run, enforce=True).headline.startswith("PASS")


def test_engines_that_waited_come_first_in_the_report_the_table_and_the_gate(tmp_path: Path) -> None:
    run = run_with(tmp_path, WAITED)
    first = next(headline.findings(View(run)))
    assert first.startswith("Contended: in 6 of 6 launches the engine's threads waited")
    assert "up to 31.5 % of their time" in first
    text = shown(run).splitlines()
    assert text[0].startswith("Contended: in 6 of 6 launches")
    assert [line.split()[:2] for line in text if line.startswith(("a ", "b "))][1] == ["b", "contended"]
    gate = judge(run, enforce=True)
    assert gate.exit_code == 2
    assert "contended: in 6 of 6 launches" in sentences.render(gate)


def test_a_run_of_which_nothing_counts_says_why_first(tmp_path: Path) -> None:
    run = run_with(tmp_path, Check("contention", "violated", "the engine's threads waited 48.0% of"), status="invalid")
    assert next(headline.findings(View(run))).startswith("Contended: ")
    assert judge(run, enforce=True).exit_code == 3


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (BESIDE, "Other programs ran beside 6 of 6 launches, with up to 50.2 %"),
        (UNKNOWN, "Whether other programs had the processors is not known of 6 of 6 launches"),
    ],
)
def test_what_ran_beside_and_what_is_not_known_stands_before_the_table(
    tmp_path: Path, check: Check, words: str
) -> None:
    run = run_with(tmp_path, check)
    text = shown(run)
    assert words in text.split("variant")[0]
    assert text.count(words) == 1
    assert judge(run, enforce=True).exit_code == 2
