"""What a neighbour on the processor, and a device that was not meant, make of a launch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bench.record.launches import Check
from tests.judge.test_validity import Readings, checks

ON_CPU: dict[str, Any] = {"device_used": "cpu"}
DESKTOP: dict[str, Any] = {"gpus": []}
WITH_GPU: dict[str, Any] = {"gpus": [{"name": "NVIDIA L4"}]}


def burst(begin: float, end: float, rate: float) -> Callable[[float], float]:
    """Seconds used by the time t after the spawn; the window is from 10 to 30 s."""
    return lambda t: rate * min(max(0.0, t - begin), end - begin)


def beside(
    foreign: Callable[[float], float], wait: Callable[[float], float] | None, engine: float = 0.9
) -> dict[str, Any]:
    """A machine of two processors with an engine, the harness, and others."""
    readings: Readings = {
        ("tree", "cpu_s"): lambda t: engine * t,
        ("tree", "run_s"): lambda t: engine * t if wait else "unsupported",
        ("tree", "wait_s"): lambda t: wait(t) if wait else "unsupported",
        ("tree", "harness_cpu_s"): lambda t: 0.02 * t,
        ("tree", "sampler_cpu_s"): lambda t: 0.01 * t,
        ("tree", "processes"): lambda t: 1.0,
        ("tree", "machine_busy_s"): lambda t: (engine + 0.03) * t + foreign(t),
        ("tree", "machine_processors"): lambda t: 2.0,
        ("tree", "account_skew_s"): lambda t: 0.0,
    }
    return {"readings": readings, "facts": ON_CPU, "fingerprint": DESKTOP}


def found(**given: Any) -> dict[str, Check]:
    return checks(given.pop("readings"), **given)


def test_two_hogs_beside_an_engine_on_the_processor_make_the_launch_invalid() -> None:
    both = found(**beside(burst(0, 40, 1.0), burst(0, 40, 0.9)))
    assert both["contention"].status == "violated"
    assert both["contention"].evidence.startswith("the engine's threads waited for others 50.0% of their time")
    assert both["foreign_cpu"].status == "warning"
    assert "50.0%" in both["foreign_cpu"].evidence


def test_the_same_beside_an_engine_on_a_gpu_is_a_warning_with_its_size() -> None:
    given = beside(burst(0, 40, 1.0), burst(0, 40, 0.9)) | {"facts": {"device_used": "cuda"}, "fingerprint": WITH_GPU}
    check = found(**given)["contention"]
    assert (check.status, "50.0%" in check.evidence) == ("warning", True)


def test_an_engine_that_does_not_say_where_it_computes_is_on_the_processor_where_there_is_nothing_else() -> None:
    given = beside(burst(0, 40, 1.0), burst(0, 40, 0.9)) | {"facts": {}}
    assert found(**given)["contention"].status == "violated"
    assert found(**given | {"fingerprint": WITH_GPU})["contention"].status == "warning"
    assert found(**given | {"facts": {"device_used": "none"}})["contention"].status == "warning"


def test_an_engine_that_crowds_itself_is_blamed_on_nobody() -> None:
    both = found(**beside(burst(0, 0, 0.0), burst(0, 40, 4.0), engine=1.9))
    assert (both["contention"].status, both["foreign_cpu"].status) == ("ok", "ok")


def test_a_hog_on_a_processor_of_its_own_is_told_and_does_not_spoil_the_launch() -> None:
    both = found(**beside(burst(0, 40, 1.0), burst(0, 40, 0.002)))
    assert (both["contention"].status, both["foreign_cpu"].status) == ("ok", "warning")
    assert both["foreign_cpu"].evidence.startswith("50.0% ± ")


def test_a_burst_of_two_seconds_in_twenty_is_caught_though_the_mean_is_small() -> None:
    both = found(**beside(burst(14, 16, 1.0), burst(14, 16, 0.8)))
    assert both["contention"].status == "violated"
    assert "above 20% in 10% of the window" in both["contention"].evidence
    assert both["foreign_cpu"].status == "warning"
    assert "50% in the worst second, 4 s into the window" in both["foreign_cpu"].evidence


def test_half_a_second_in_twenty_is_a_warning() -> None:
    assert found(**beside(burst(14, 14.6, 1.0), burst(14, 14.6, 0.8)))["contention"].status == "warning"


def test_a_niced_hog_that_only_takes_what_is_left_is_told_with_its_share() -> None:
    both = found(**beside(burst(0, 40, 0.95), burst(0, 40, 0.02)))
    assert (both["contention"].status, both["foreign_cpu"].status) == ("ok", "warning")


def test_waiting_too_short_to_matter_is_not_counted_against_an_engine_that_hardly_works() -> None:
    both = found(**beside(burst(0, 40, 0.02), burst(0, 40, 0.005), engine=0.01))
    assert (both["contention"].status, both["foreign_cpu"].status) == ("ok", "ok")


def test_a_scenario_may_live_with_its_neighbours() -> None:
    given = beside(burst(0, 40, 1.0), burst(0, 40, 0.9))
    both = found(**given, scenario={"design": {"max_contention": 0.6}})
    assert (both["contention"].status, both["foreign_cpu"].status) == ("ok", "ok")


@pytest.mark.parametrize(("rate", "status"), [(0.0, "ok"), (1.0, "violated")])
def test_where_the_kernel_does_not_say_who_waited_the_neighbours_own_time_is_the_bound(
    rate: float, status: str
) -> None:
    check = found(**beside(burst(0, 40, rate), None))["contention"]
    assert (check.status, "this kernel does not say" in check.evidence) == (status, True)


def test_an_engine_in_a_container_is_unknown_and_not_its_own_neighbour() -> None:
    given = beside(burst(0, 40, 1.0), burst(0, 40, 0.9)) | {"facts": {"image": "vllm/vllm-openai:latest"}}
    both = found(**given)
    assert (both["contention"].status, both["foreign_cpu"].status) == ("unknown", "unknown")


@pytest.mark.parametrize(
    ("facts", "fingerprint", "status"),
    [
        ({"device_used": "cpu"}, WITH_GPU, "violated"),
        ({"device_used": "cpu", "device_asked": "cuda"}, DESKTOP, "violated"),
        ({"device_used": "cpu", "device_asked": "cpu"}, WITH_GPU, None),
        ({"device_used": "cpu"}, DESKTOP, None),
        ({"device_used": "cpu"}, {"jetson": {"model": "Jetson Orin NX"}}, "violated"),
        ({"device_used": "cpu"}, {"jetson": {"model": "Jetson Orin NX"}, "emulated": "orin-nx"}, None),
        ({"device_used": "cuda"}, WITH_GPU, "ok"),
        ({"device_used": "none"}, WITH_GPU, None),
        ({}, WITH_GPU, "unknown"),
        ({"attached": True}, WITH_GPU, None),
    ],
)
def test_an_engine_that_was_to_use_a_gpu_and_did_not_is_no_measurement(
    facts: dict[str, Any], fingerprint: dict[str, Any], status: str | None
) -> None:
    check = checks(facts=facts, fingerprint=fingerprint).get("device_used")
    assert (check.status if check else None) == status


def test_the_device_is_told_with_its_evidence() -> None:
    facts = {"device_used": "cpu", "device_evidence": "load_tensors: offloaded 0/29 layers to GPU"}
    check = checks(facts=facts, fingerprint=WITH_GPU)["device_used"]
    assert check.evidence == (
        "this machine has a GPU, and the engine computed on cpu (load_tensors: offloaded 0/29 layers to GPU)"
    )
