import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest

from bench.emulate.server.script import FAULTS, BadScript, Noise, Script, Timing, script
from bench.engines.engine import Checkpoint, LaunchContext, LaunchTrace
from bench.engines.simulated import Simulated
from bench.errors import LaunchError
from bench.loadgen.selfcheck import server
from bench.scenario.model import EngineSetting, Model
from bench.scenario.variant import Variant

CHECKPOINT = Checkpoint(None, "none", None, "bf16")


def variant(**args: Any) -> Variant:
    return Variant(
        id="a",
        factors={},
        engine_name="sim",
        engine=EngineSetting(engine="simulated", args=args, env={"X": "1"}),
        model_name="m",
        model=Model(source="dummy:none"),
        quantization="bf16",
        warmup_name="none",
        warmup=(),
        page_cache="leave",
    )


def context(folder: Path, **more: Any) -> LaunchContext:
    return LaunchContext(port=8123, folder=folder, checkpoint=CHECKPOINT, **more)


def option(argv: tuple[str, ...], name: str) -> str:
    return next(word.removeprefix(f"--{name}=") for word in argv if word.startswith(f"--{name}="))


def test_the_command_carries_the_script_and_the_launchs_place_in_the_plan(tmp_path: Path) -> None:
    spec = Simulated().command(variant(ttft_ms=20), context(tmp_path, args={"itl_ms": 3}, block=2, position=1, seed=9))
    assert json.loads(option(spec.argv, "script")) == {"ttft_ms": 20, "itl_ms": 3}
    assert (option(spec.argv, "block"), option(spec.argv, "position"), option(spec.argv, "launch")) == (
        "2",
        "1",
        "9/2/1/a",
    )
    assert (spec.endpoint.port, spec.endpoint.token_ids, spec.env["X"]) == (8123, True, "1")


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ({"ttft": 5}, "unknown: ttft; there are"),
        ({"ttft_ms": -1}, "ttft_ms must be a number, not negative: -1"),
        ({"ttft_ms": "5"}, "ttft_ms must be a number"),
        ({"role_first": 1}, "role_first must be true or false"),
        ({"fault": "explode"}, "fault must be one of"),
        ({"transfer": "pigeon"}, "transfer must be one of chunked, length, close"),
        ({"noise": {"launch": 1}}, "noise.unknown: launch"),
        ({"noise": {"launch_sd": "2 %"}}, "noise.launch_sd must be a number"),
        ({"tokens_per_chunk": 1.5}, "tokens_per_chunk must be a whole number"),
        ({"start_phases_ms": {"weights": "long"}}, "start_phases_ms must map names to numbers"),
        ({"fault": 5}, "fault must be text"),
        ({"tokens_per_chunk": 0}, "tokens_per_chunk must be at least 1"),
    ],
)
def test_a_wrong_script_is_a_bad_argument_with_its_reason(tmp_path: Path, args: dict[str, Any], words: str) -> None:
    with pytest.raises(LaunchError, match=words) as caught:
        Simulated().command(variant(**args), context(tmp_path))
    assert caught.value.kind == "bad_argument"


def test_a_requests_own_script_changes_only_what_it_names() -> None:
    base = script({"ttft_ms": 7, "noise": {"launch_sd": 0.1}})
    assert script({"itl_ms": 1, "noise": {"seed": 4}}, base) == Script(
        ttft_ms=7, itl_ms=1, noise=Noise(launch_sd=0.1, seed=4)
    )
    assert script({"ttft_ms": 2.5}, base).ttft_ms == 2.5
    with pytest.raises(BadScript, match="noise must be a mapping: 3"):
        script({"noise": 3})


def test_phases_and_facts_are_the_workers_own(tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    with server({"ttft_ms": 1, "start_phases_ms": {"weights": 30, "compile": 10}}, events=str(events)):
        trace = LaunchTrace(stamps={}, log=(), events=[json.loads(line) for line in events.read_text().splitlines()])
    phases = Simulated().phases(trace)
    assert [phase.name for phase in phases] == ["imports", "weights", "compile"]
    weights = phases[1]
    assert weights.start_ns is not None
    assert weights.end_ns is not None
    assert weights.end_ns - weights.start_ns >= 30_000_000
    assert Simulated().facts(trace)["ttft_ms"] == 1


def first_times(noise: Noise, launch: str, count: int = 1, **place: int) -> list[float]:
    timing = Timing(noise, launch, **place)
    return [timing.pace(Script(ttft_ms=100, noise=noise), 0).first_ms for _ in range(count)]


def test_without_noise_every_time_is_the_scripts() -> None:
    assert first_times(Noise(), "x", 3) == [100.0] * 3


def test_the_same_launch_draws_the_same_times_and_another_one_others() -> None:
    noise = Noise(launch_sd=0.05, request_sd=0.1, spike_probability=0.03)
    assert first_times(noise, "1/0/0/a", 50) == first_times(noise, "1/0/0/a", 50)
    assert first_times(noise, "1/0/0/a", 50) != first_times(noise, "1/0/1/a", 50)


def test_launches_differ_by_the_spread_asked_for_and_share_it_among_their_requests() -> None:
    noise = Noise(launch_sd=0.05)
    logs = [math.log(first_times(noise, str(launch))[0] / 100) for launch in range(2000)]
    # The standard error of a standard deviation of 2000 draws is 1.6 %.
    assert statistics.stdev(logs) == pytest.approx(0.05, rel=0.07)
    assert len(set(first_times(noise, "one", 20))) == 1


def test_requests_vary_log_normally_with_rare_spikes() -> None:
    noise = Noise(request_sd=0.02, spike_probability=0.03, spike_scale=0.5)
    times = first_times(noise, "x", 20_000)
    assert statistics.median(times) == pytest.approx(100, rel=0.01)
    spikes = [time for time in times if time > 110]
    assert len(spikes) / len(times) == pytest.approx(0.03 * math.exp(-0.1 / 0.5), rel=0.15)


def test_the_session_drifts_from_block_to_block_and_later_positions_are_slower() -> None:
    noise = Noise(drift_per_block=0.01, per_position=0.03)
    assert first_times(noise, "x", block=5, position=0) == [pytest.approx(105)]
    assert first_times(noise, "x", block=0, position=1) == [pytest.approx(103)]


def test_first_requests_are_slower_by_a_penalty_that_fades() -> None:
    timing = Timing(Noise(), "x")
    plan = script({"ttft_ms": 10, "cold_ms": 80})
    assert [timing.pace(plan, 0).first_ms for _ in range(4)] == [90, 50, 30, 20]


def test_long_prompts_take_longer_and_a_slowdown_slows_everything() -> None:
    plan = script({"ttft_ms": 10, "itl_ms": 4, "prefill_ms_per_token": 0.5, "slowdown": 1.5})
    pace = Timing(Noise(), "x").pace(plan, 20)
    assert (pace.first_ms, pace.gap_ms()) == (30.0, 6.0)


def test_faults_meet_the_share_of_requests_asked_for() -> None:
    timing = Timing(Noise(), "x")
    plan = script({"fault": FAULTS[0], "fault_share": 0.2})
    assert sum(timing.faulty(plan) for _ in range(5000)) == pytest.approx(1000, rel=0.15)
