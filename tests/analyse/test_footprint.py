"""Memory by kind, from samples with a known truth."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from bench.analyse.footprint import of_launch, of_memory
from bench.analyse.series import Samples
from bench.record.documents import parsed
from bench.record.launches import LaunchMemory, LaunchRecord
from bench.record.tables import from_rows

S = 1_000_000_000


def launch(memory: dict[str, Any] | None = None) -> LaunchRecord:
    record = LaunchRecord("000-00-a", "a", {}, 0, 0)
    record.stamps = {"spawn": 10 * S, "ready": 20 * S, "stop": 50 * S, "exit": 52 * S}
    record.memory = parsed(LaunchMemory, memory or {})
    return record


def requests() -> pa.Table:
    base = {"stream": 0, "prompt_id": "x", "turn": 0, "chunks": 1, "coalesced": 0}
    rows = [
        {"request_id": 0, "stage": "first", "measured": False, "sent_ns": 25 * S, "end_ns": 29 * S},
        {"request_id": 1, "stage": "measured", "measured": True, "sent_ns": 30 * S, "end_ns": 40 * S},
    ]
    return from_rows("requests", [base | row | {"intended_ns": row["sent_ns"]} for row in rows])


def table(**fields: list[tuple[float, float | None]]) -> Samples:
    rows = [
        {
            "t_ns": round(t * S),
            "probe": name.split("__")[0],
            "field": name.split("__")[1].replace("gpu0_", "gpu0."),
            "value": value,
            "reason": None if value is not None else "no_permission",
        }
        for name, points in fields.items()
        for t, value in points
    ]
    return Samples(from_rows("samples", rows))


def test_on_a_processor_it_is_the_trees_proportional_size() -> None:
    samples = table(tree_memory__pss_mib=[(12, 100), (24, 500), (35, 700), (45, 900), (51, 5)])
    use = of_memory(launch(), requests(), samples)
    assert (use.kind, use.idle, use.peak, use.steady) == ("discrete", 500, 900, 700)


def test_what_the_quality_questions_take_is_no_peak() -> None:
    samples = table(tree_memory__pss_mib=[(12, 400), (20, 900), (35, 950), (45, 3000)])
    question = {"request_id": 9, "stage": "quality", "measured": False, "prompt_id": "q", "stream": 0, "turn": 0}
    asked = from_rows(
        "requests",
        [
            *requests().to_pylist(),
            question | {"intended_ns": 40 * S, "sent_ns": 40 * S, "chunks": 0, "coalesced": 0},
        ],
    )
    assert of_memory(launch(), requests(), samples).peak == 3000
    assert of_memory(launch(), asked, samples).peak == 950


def test_on_a_card_device_and_host_are_added() -> None:
    samples = table(
        tree_memory__pss_mib=[(20, 1000), (50, 1000)],
        nvml__gpu0_engine_memory_mib=[(24, 4000), (35, 6000), (45, 5000)],
        nvml__gpu0_memory_used_mib=[(24, 9000), (35, 9000), (45, 9000)],
    )
    use = of_memory(launch(), requests(), samples)
    assert (use.idle, use.peak, use.steady) == (5000, 7000, 7000)
    assert "device" in use.scope


def test_on_a_unified_board_it_is_what_everyone_lost() -> None:
    samples = table(
        host__mem_available_mib=[(5, 6000), (24, 5000), (35, 3000), (45, 3500), (60, 6000)],
        host__nvmap_mib=[(5, 0), (35, 1800)],
        tree_memory__pss_mib=[(35, 364)],
    )
    before = {"before": {"kind": "unified", "available_mib": 6000.0}, "after": {"returned": True}}
    use = of_memory(launch(before), requests(), samples)
    assert (use.kind, use.idle, use.peak, use.steady, use.returned) == ("unified", 1000, 3000, 3000, True)


def test_memory_that_others_gave_back_does_not_hide_the_engines_own() -> None:
    samples = table(
        host__mem_available_mib=[(5, 6000), (24, 6000), (35, 6500)],
        host__nvmap_mib=[(5, 0.0)],
        tree_memory__pss_mib=[(20, 700), (40, 700)],
    )
    before = {"before": {"kind": "unified", "available_mib": 6000.0}}
    assert of_memory(launch(before), requests(), samples).steady == 700


def test_without_a_baseline_the_first_readings_serve() -> None:
    samples = table(host__mem_available_mib=[(5, 6000), (6, 6000), (7, 6010), (35, 4000)], host__nvmap_mib=[(5, 0.0)])
    assert of_memory(launch(), requests(), samples).peak == 2000


def test_memory_that_may_not_be_read_is_null_with_the_reason() -> None:
    use = of_memory(launch(), requests(), table(tree_memory__pss_mib=[(12, None), (35, None)]))
    assert (use.peak, use.reason) == (None, "no_permission")
    assert of_launch(launch(), requests(), table()) == dict.fromkeys(("memory.idle", "memory.peak", "memory.steady"))


def test_swap_that_grew_is_told() -> None:
    samples = table(tree_memory__pss_mib=[(35, 1)], host__swap_free_mib=[(11, 4000), (45, 3200)])
    assert of_memory(launch(), requests(), samples).swap_grown == 800


def test_series_keep_nulls_apart_and_order_by_time() -> None:
    samples = table(a__x=[(3, 3.0), (1, 1.0), (2, None)], a__y=[(1, 7.0)])
    series = samples.of("a", "x")
    assert series.value.tolist() == [1.0, 3.0]
    assert series.nulls == {"no_permission": 1}
    assert samples.of("a", "nothing").grown() is None
    assert len(samples.matching("a")) == 2


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [(2.5, 3.5, [2, 3, 4]), (2.0, 4.0, [2, 3, 4]), (0.0, 9.0, [1, 2, 3, 4, 5]), (6.0, 7.0, [5])],
)
def test_around_takes_one_neighbour_on_each_side(start: float, end: float, expected: list[int]) -> None:
    series = table(a__x=[(t, float(t)) for t in range(1, 6)]).of("a", "x").around(round(start * S), round(end * S))
    assert series.value.tolist() == expected
