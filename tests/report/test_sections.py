"""The parts of a report: each says what the analysis found, and nothing is dropped in silence."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from bench.analyse.run import Run
from bench.judge.compare import Comparison
from bench.judge.trade import trades
from bench.record.manifest import PlannedVariant
from bench.report.elements import Block, Cell, Facts, Figure, Fold, Notes, Prose, Section, Table, Timeline
from bench.report.sections import (
    coldstart,
    comparison,
    headline,
    launches,
    machine,
    nulls,
    quality,
    requests,
    resources,
    summary,
    timeline,
    trouble,
    validity,
    warmups,
)
from bench.report.view import View
from tests.analyse.test_worth import with_image
from tests.judge.recorded import recorded
from tests.runs import Behaviour, synthetic_run

SCENARIO = """
scenario: synthetic
gate: {baseline: {quantization: bf16}, metrics: {ttft.p50: 5%}}
quality: {against: {quantization: bf16}}
"""


@pytest.fixture(scope="module")
def view(tmp_path_factory: pytest.TempPathFactory) -> View:
    variants = {
        "bf16": Behaviour(ttft=100, watts=20, factors={"quantization": "bf16"}, launch_sd=0.01, jitter=0.02),
        "awq": Behaviour(
            ttft=130, watts=15, memory_mib=400, factors={"quantization": "awq"}, launch_sd=0.01, jitter=0.02
        ),
        "int8": Behaviour(
            factors={"quantization": "int8"},
            status=dict.fromkeys(range(5), ("unsupported", "unsupported_quantization", "no kernel for this CPU")),
        ),
        "hot": Behaviour(factors={"quantization": "fp16"}, status={0: ("invalid", "throttle", "97 °C")}),
    }
    root = tmp_path_factory.mktemp("results")
    return View(Run.open(synthetic_run(root, variants, blocks=5, requests=45, tokens=8, scenario_text=SCENARIO)))


def flat(content: tuple[Block, ...]) -> Iterator[Block]:
    for block in content:
        yield block
        if isinstance(block, Fold):
            yield from flat(block.blocks)


def cells(section: Section | None) -> list[list[Cell]]:
    assert section is not None
    return [list(row) for block in flat(section.blocks) if isinstance(block, Table) for row in block.rows]


def words(section: Section | None) -> str:
    """All that a section says, figures by their words."""
    assert section is not None
    said: list[str] = [section.title]
    for block in flat(section.blocks):
        match block:
            case Table():
                said += [block.caption, *(f"{cell.text} {cell.note}" for row in block.rows for cell in row)]
            case Notes():
                said += [f"{note.text} {note.detail}" for note in block.items]
            case Prose():
                said += block.paragraphs
            case Figure():
                said += [block.alt]
            case Facts():
                said += [f"{name} {value}" for name, value in block.pairs]
            case Fold():
                said.append(block.title)
    return "\n".join(said)


def test_the_headline_names_the_ends_of_the_field(view: View) -> None:
    text = words(headline.section(view))
    assert "Once steady, bf16 gives the first token after" in text
    assert "awq takes 13" in text
    assert (
        "6 of 20 launches do not count (int8 and hot)" in text or "6 of 20 launches do not count (hot and int8)" in text
    )


def test_the_summary_shows_the_tail_that_all_variants_carry_and_no_farther_one(view: View) -> None:
    assert summary.tail(view, "ttft") == "ttft.p95"
    assert "ttft.p95" in summary.columns(view)
    assert "too few for p99" in words(headline.section(view))


def test_a_regression_is_said_first_and_with_its_reason(view: View) -> None:
    section = comparison.section(view)
    assert section is not None
    first = section.blocks[0]
    assert isinstance(first, Notes)
    told = {note.text.partition(":")[0]: note for note in first.items}
    assert told["awq"].text == "awq: FAIL, worse than the margins allow."
    assert told["awq"].tone == "bad"
    assert "No verdict on int8" in told
    ratio = Comparison.of(view.run, "bf16", "awq")["ttft.p50"].ratio
    assert ratio is not None
    assert f"+{100 * (ratio - 1):.1f}\u00a0%" in words(section)


def test_without_a_gate_there_are_estimates_and_no_verdicts(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(view.run.__dict__, "scenario", {})
    other = View(view.run)
    text = words(comparison.section(other))
    assert "sets no margins" in text
    assert "FAIL" not in text


def test_phases_add_up_to_the_cold_start(view: View) -> None:
    rows = cells(coldstart.section(view))
    seconds = [
        float(row[1].text.removesuffix(" s")) for row in rows if row[0].text in ("imports", "weights", "unattributed")
    ]
    cold = view.value("bf16", "cold_ttft")
    assert sum(seconds) == pytest.approx(cold, abs=0.02)
    graphs = next(row for row in rows if row[0].text == "cuda graphs")
    assert (graphs[1].text, graphs[1].note) == ("–", "not found")


def test_warm_ups_are_set_against_the_baseline(view: View) -> None:
    assert {row[0].text for row in cells(warmups.section(view))} == {"awq", "hot"}


def test_restored_launches_have_their_three_times_and_what_their_image_costs(tmp_path: Path) -> None:
    variants = {
        "exec": Behaviour(load_s=24.0, factors={"start": "exec"}),
        "restored": Behaviour(load_s=4.0, factors={"start": "restored"}),
    }
    scenario = "scenario: synthetic\ngate: {baseline: {start: exec}, metrics: {cold_ttft: 5%}}\n"
    folder = synthetic_run(tmp_path, variants, blocks=2, scenario_text=scenario)
    shown = View(with_image(folder, "restored", 50.0, 900.0))
    section = warmups.section(shown)
    assert section is not None
    compared, times = [block for block in flat(section.blocks) if isinstance(block, Table)]
    assert [head.title for head in compared.columns][:2] == ["variant", "made before"]
    assert [(row[1].text, row[1].note) for row in compared.rows] == [("50.0 s", "900 MiB on disk")]
    assert [head.title for head in times.columns] == [
        "launch",
        "process restored",
        "first token",
        "second token",
        "image",
    ]
    assert "has not answered yet" in times.caption
    assert len(times.rows) == 2
    for row in times.rows:
        assert "restored" in row[0].text
        assert (row[1].text, row[4].text) == ("1.50 s", "900")


def test_energy_stands_beside_speed_with_its_scope(view: View) -> None:
    text = words(resources.section(view))
    assert "gpu board" in text
    assert "PSS of the engine's processes" in text
    bf16 = next(
        row for row in cells(resources.section(view)) if row[0].note.startswith("nvml") and row[0].text == "bf16"
    )
    energy = view.value("bf16", "energy.per_token")
    assert energy is not None
    # 20 W throughout, so a token costs 20 W divided by the tokens of a second.
    assert float(bf16[1].text) == pytest.approx(20 / float(bf16[2].text), rel=0.02)


def test_the_panel_shows_the_worst_that_any_launch_saw(view: View) -> None:
    throttle = next(row for row in cells(validity.section(view)) if row[0].text == "throttle")
    assert [cell.text for cell in throttle[1:]] == ["–", "–", "–", "violated in 1 of 5"]
    assert "cool it" in words(validity.section(view))


def test_what_does_not_count_is_listed_launch_by_launch(view: View) -> None:
    text = words(trouble.section(view))
    assert text.count("no kernel for this CPU") >= 5
    assert "97 °C" in text


def test_nulls_are_explained(view: View) -> None:
    text = words(nulls.section(view))
    assert "nvml.gpu0.temperature_c core" in text
    assert "this machine or version does not have it" in text
    assert "always" in text
    assert "phase cuda_graphs" in text


def test_the_timeline_keeps_peaks_and_drops_repetitions_first(view: View, monkeypatch: pytest.MonkeyPatch) -> None:
    section = timeline.section(view)
    assert section is not None
    assert isinstance(section.blocks[0], Timeline)
    launch = next(item for item in section.blocks[0].data["launches"] if item["id"].endswith("bf16"))
    memory = next(panel for panel in launch["panels"] if panel["title"] == "memory")
    assert max(value for value in memory["series"][0]["v"] if value is not None) == 900
    processor = next(panel for panel in launch["panels"] if panel["title"] == "processor")
    assert np.nanmedian([v for v in processor["series"][0]["v"] if v]) == pytest.approx(1.5, abs=0.05)

    monkeypatch.setattr(timeline, "BUDGET", 60_000)
    fewer = timeline.section(view)
    assert fewer is not None
    assert isinstance(fewer.blocks[0], Timeline)
    kept = [item["id"][7:] for item in fewer.blocks[0].data["launches"]]
    assert 1 < len(kept) < 20
    assert max(kept.count(name) for name in kept) - min(kept.count(name) for name in set(kept)) <= 1
    assert "of 20 launches are in this page" in fewer.blocks[0].caption


def test_launches_that_settled_are_told_from_those_that_did_not(view: View) -> None:
    rows = {row[0].text: row for row in cells(requests.section(view))}
    assert rows["bf16"][1].text == "flat"
    assert rows["bf16"][2].text == "1"


def test_launches_are_counted_by_state(view: View) -> None:
    assert "14 ok" in words(launches.section(view))


def test_the_machine_is_described_and_the_scenario_kept(view: View) -> None:
    assert "cpu two made-up cores" in words(machine.section(view))


def test_the_trade_puts_quality_beside_speed_and_names_what_does_not_run(tmp_path: Path) -> None:
    mib = 2**20
    run = recorded(
        tmp_path,
        {
            "bf16": {"ttft": 100, "noise": 0.0, "weights": 600 * mib, "answer": "check the fan <b>"},
            "awq": {"ttft": 130, "noise": 0.3, "weights": 200 * mib, "answer": "check the pump"},
            "gptq": {"status": "unsupported", "reason": "no kernel for this CPU"},
        },
    )
    section = quality.section(View(run))
    rows = {row[0].text: row for row in cells(section)}
    kl = float(rows["awq"][-3].text)
    assert kl == pytest.approx(trades(run)[0].quality.kl.value, abs=5e-5)
    assert kl > 0
    assert (rows["bf16"][-4].text, rows["awq"][-4].text) == ("600", "200")
    assert (rows["gptq"][1].text, rows["gptq"][1].note) == ("unsupported", "no kernel for this CPU")
    text = words(section)
    assert "TTFT at 15 tokens 30 % slower, sure" in text or "TTFT 30 % slower, sure" in text
    assert "the first token comes 12 % sooner  does not hold" in text.replace("\n", " ")
    assert "check the fan <b>" in text


def test_a_scenario_without_a_quality_question_has_no_such_part(small_run: Run) -> None:
    assert quality.section(View(small_run)) is None
    assert comparison.section(View(small_run)) is None


def test_a_scripted_engine_and_random_weights_are_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.open(synthetic_run(tmp_path, {"a": Behaviour()}, blocks=1, requests=2))
    monkeypatch.setattr(run.manifest, "variants", [PlannedVariant("a", engine={"engine": "simulated"})])
    assert "scripted server" in words(headline.section(View(run)))
    monkeypatch.setattr(
        run.manifest, "variants", [PlannedVariant("a", engine={"engine": "vllm"}, model={"source": "dummy:x"})]
    )
    assert "random weights" in words(headline.section(View(run)))


def test_answers_in_one_piece_are_a_dash_with_its_reason_and_a_warning(tmp_path: Path) -> None:
    view = View(Run.open(synthetic_run(tmp_path, {"a": Behaviour(tpot=0.0)}, blocks=2, requests=5)))
    assert "tpot.p50" in summary.columns(view)
    row = view.row("a", "tpot.p50")
    assert row is not None
    assert (row.value, row.reason) == (None, "the answer came in one piece (10 of 10 answers)")
    (note,) = [note for note in headline.limits(view) if "one piece" in note.text]
    assert (note.text, note.tone) == ("10 answers came in one piece (of 10).", "warn")
    itl = view.row("a", "itl.p50")
    assert itl is not None
    assert itl.value is None
    # What the server counted is known all the same.
    assert view.known("output_throughput")


def test_a_run_whose_answers_came_token_by_token_warns_of_nothing(small_run: Run) -> None:
    assert [note for note in headline.limits(View(small_run)) if "answer" in note.text] == []
