"""Phases of eight versions by log lines, of a real one by spans, and null with a reason where there is nothing."""

from __future__ import annotations

import pytest

from bench.engines.engine import LaunchTrace
from bench.engines.logs import messages
from bench.engines.startup import resolve
from bench.engines.vllm import Vllm
from bench.engines.vllm_log import log_phases
from bench.environments.pythons import version
from bench.record.engine_log import LogLine
from bench.record.launches import Phase
from bench.record.schema import NULLS
from tests.engines.vllm_logs import REAL, WRITTEN, about, lines, trace


def seconds(phases: list[Phase]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for phase in phases:
        if phase.start_ns is None or phase.end_ns is None:
            found.setdefault(phase.name, None)
        else:
            found[phase.name] = (found.get(phase.name) or 0.0) + (phase.end_ns - phase.start_ns) / 1e9
    return found


@pytest.mark.parametrize("name", WRITTEN)
def test_every_phase_of_a_written_log_is_found_with_its_seconds(name: str) -> None:
    found = seconds(log_phases(trace(name), version(name)))
    for phase, expected in about(name)["expected_s"].items():
        assert found.get(phase) == (None if expected is None else pytest.approx(expected, abs=1e-3)), phase


def test_at_least_six_versions_are_covered() -> None:
    assert len({name.split("-")[0] for name in (*WRITTEN, *REAL)}) >= 9


@pytest.mark.parametrize("name", [*WRITTEN, *REAL])
def test_the_version_is_told_by_the_log_itself(name: str) -> None:
    assert Vllm().facts(trace(name))["version"] == name.split("-")[0]


@pytest.mark.parametrize("name", WRITTEN)
def test_what_was_really_used_is_told_by_the_log(name: str) -> None:
    facts = Vllm().facts(trace(name))
    for fact, expected in about(name)["facts"].items():
        assert facts[fact] == expected, fact


def test_what_a_real_start_really_used() -> None:
    facts = Vllm().facts(trace("0.32.0-eager"))
    assert facts["dtype"] == "bfloat16"
    assert facts["quantization"] is None
    assert facts["device"] == "cpu"
    assert facts["enforce_eager"] is True
    assert facts["kv_cache_tokens"] == 46592
    assert facts["kv_cache_gib"] == 1.0
    assert facts["traced"] is True
    assert "linear_kernels" not in facts


def test_spans_are_believed_before_log_lines() -> None:
    weights = [p for p in resolved("0.32.0-eager") if p.name == "weights"]
    assert [phase.source for phase in weights] == ["span"]


def test_a_span_within_one_of_its_own_name_is_not_a_second_phase() -> None:
    names = [phase.name for phase in resolved("0.32.0-eager") if phase.source == "span"]
    assert names.count("worker_init") == 1


def test_log_lines_stand_in_where_no_span_came() -> None:
    weights = [p for p in resolved("0.32.0-eager", spans=False) if p.name == "weights"]
    assert [phase.source for phase in weights] == ["log"]
    assert seconds(weights)["weights"] == pytest.approx(1.48, abs=0.01)


def test_an_eager_engine_has_no_compilation_and_says_so() -> None:
    missing = {p.name: p.reason for p in resolved("0.32.0-eager") if p.start_ns is None}
    assert missing["dynamo"] == missing["graph_capture"] == "unsupported"


def test_a_compilation_after_a_failed_reload_is_a_compilation() -> None:
    found = seconds(resolved("0.32.0-compiled-reload-failed"))
    assert found["compile"] == pytest.approx(91.5, abs=0.2)
    assert found["compile_load"] is None


def test_the_run_that_compiles_on_a_cpu_is_told_of_once() -> None:
    names = [phase.name for phase in resolved("0.32.0-inductor-warm") if phase.start_ns is not None]
    assert "compile" in names
    assert "warmup_run" not in names


def test_a_version_that_renamed_every_line_gives_nulls_with_reasons_and_never_zero() -> None:
    renamed = [
        LogLine(line.t_ns, line.stream, f"(EngineCore pid=1) INFO 01-01 00:00:00 [new.py:1] step {number} complete")
        for number, line in enumerate(lines("0.21.0"))
    ]
    phases = resolve(trace("0.21.0", log=renamed), Vllm().phases(trace("0.21.0", log=renamed)))
    by_log = [phase for phase in phases if phase.source == "log"]
    assert by_log
    assert all(phase.start_ns is None and phase.end_ns is None and phase.reason in NULLS for phase in by_log)
    rest = sum(p.end_ns - p.start_ns for p in phases if p.name == "unattributed" and p.end_ns and p.start_ns)
    assert rest / 1e9 == pytest.approx(77.1 - 4.1, abs=0.01)


def test_a_duration_that_is_no_number_is_a_parse_failure() -> None:
    log = [LogLine(5_000_000_000, "stdout", "INFO 11-22 05:21:52 [a.py:1] Loading weights took 1.2.3 seconds")]
    phase = next(p for p in log_phases(trace("0.21.0", log=log), None) if p.name == "weights")
    assert phase.reason == "parse_failed"
    assert phase.start_ns is None


def test_several_workers_each_keep_their_phase() -> None:
    log = [
        LogLine(
            5_000_000_000, "stdout", "(Worker_TP0 pid=1) INFO 11-22 05:21:52 [a.py:1] Loading weights took 2.0 seconds"
        ),
        LogLine(
            6_000_000_000, "stdout", "(Worker_TP1 pid=2) INFO 11-22 05:21:52 [a.py:1] Loading weights took 3.0 seconds"
        ),
    ]
    found = [p for p in log_phases(trace("0.21.0", log=log), None) if p.name == "weights"]
    assert [phase.process for phase in found] == ["Worker_TP0 1", "Worker_TP1 2"]


@pytest.mark.parametrize("cut", range(1, 80, 6))
def test_an_engine_that_dies_at_any_line_leaves_a_table_that_ends_at_its_death(cut: int) -> None:
    name = "0.32.0-compiled"
    log = lines(name)[:cut]
    death = log[-1].t_ns + 10_000_000
    alive = trace(name, spans=False, log=log)
    stamps = {"spawn": 0, "first_output": log[0].t_ns, "exit": death}
    dead = type(alive)(stamps, log)
    phases = resolve(dead, Vllm().phases(dead))
    timed = [(p.start_ns, p.end_ns) for p in phases if p.start_ns is not None and p.end_ns is not None]
    assert max(end for _, end in timed) <= death
    assert covered(timed) == pytest.approx(death, rel=0.01)
    assert all(p.reason in NULLS for p in phases if p.start_ns is None or p.end_ns is None)


def test_a_launch_killed_while_compiling_shows_the_open_compilation() -> None:
    log = [line for line in lines("0.32.0-compiled") if line.t_ns < 90e9]
    known = trace("0.32.0-compiled", spans=False, log=log)
    dead = type(known)({"spawn": 0, "first_output": log[0].t_ns, "exit": 90_000_000_000}, log)
    phase = next(p for p in resolve(dead, Vllm().phases(dead)) if p.name == "compile")
    assert phase.start_ns is not None
    assert phase.end_ns is None
    assert phase.reason == "partial"


@pytest.mark.parametrize("name", [*WRITTEN, *REAL])
@pytest.mark.parametrize("spans", [True, False])
def test_phases_and_the_rest_add_up_to_the_cold_start(name: str, spans: bool) -> None:
    end = about(name)["stamps"]["first_token"]
    timed = [
        (p.start_ns, p.end_ns) for p in resolved(name, spans=spans) if p.start_ns is not None and p.end_ns is not None
    ]
    assert all(0 <= start <= stop <= end for start, stop in timed)
    assert covered(timed) == pytest.approx(end, rel=0.01)


@pytest.mark.parametrize("name", REAL)
def test_little_of_a_real_start_is_unattributed(name: str) -> None:
    phases = resolved(name)
    rest = seconds(phases)["unattributed"]
    assert rest is not None
    assert rest * 1e9 < 0.05 * about(name)["stamps"]["first_token"]


def resolved(name: str, *, spans: bool = True) -> list[Phase]:
    seen = trace(name, spans=spans)
    return resolve(seen, Vllm().phases(seen))


def covered(timed: list[tuple[int, int]]) -> int:
    total, reached = 0, 0
    for start, end in sorted(timed):
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total


def facts(*said: str) -> dict[str, object]:
    return Vllm().facts(
        LaunchTrace({}, [LogLine(0, "stdout", f"INFO 01-01 00:00:00 [a.py:1] {text}") for text in said])
    )


def config(setting: str) -> str:
    return f"Initializing a V1 LLM engine (v0.15.1) with config: model='/m', {setting}, seed=0"


@pytest.mark.parametrize(
    ("setting", "name", "value"),
    [
        ("quantization=compressed-tensors", "quantization", "compressed-tensors"),
        ("quantization=None", "quantization", None),
        ("quantization='fp-quant'", "quantization", "fp-quant"),
        ("kv_cache_dtype=fp8-ds-mla", "kv_cache_dtype", "fp8-ds-mla"),
        ("load_format=LoadFormat.AUTO", "load_format", "AUTO"),
        ("load_format=run-ai", "load_format", "run-ai"),
        ("device_config=cuda:0", "device", "cuda:0"),
    ],
)
def test_a_setting_is_whole(setting: str, name: str, value: str | None) -> None:
    assert facts(config(setting))[name] == value


@pytest.mark.parametrize(
    ("said", "name", "value"),
    [
        ("Using FlashAttention-2 backend.", "attention", "FlashAttention-2"),
        ("Using Flash Attention backend on V1 engine.", "attention", "Flash Attention"),
        ("Using flashinfer-cutlass for CompressedTensorsW4A4Fp4LinearMethod", "linear_kernels", ["flashinfer-cutlass"]),
        ("vLLM API server version 0.11.0-rc2+jetson", "version", "0.11.0-rc2+jetson"),
    ],
)
def test_a_name_is_whole(said: str, name: str, value: object) -> None:
    assert facts(said)[name] == value


def test_the_older_core_is_told_and_the_newer_one_too() -> None:
    assert facts(config("seed=1"))["core"] == "V1"
    old = Vllm().facts(trace("0.9.2-v0"))
    assert (old["core"], old["core_reason"]) == ("V0", "Compute Capability < 8.0 is not supported by the V1 Engine")


@pytest.mark.parametrize(
    ("blocks", "concurrency", "tokens"), [(7016, "27.41", 112256), (7016, "54.81", 224512), (7016, "20.00", None)]
)
def test_tokens_of_the_older_core_only_where_its_words_agree(blocks: int, concurrency: str, tokens: int | None) -> None:
    found = facts(
        "Initializing a V0 LLM engine (v0.9.2) with config: model='/m', seed=0",
        f"# cuda blocks: {blocks}, # CPU blocks: 4681",
        f"Maximum concurrency for 4096 tokens per request: {concurrency}x",
    )
    assert found["kv_cache_blocks"] == blocks
    assert found.get("kv_cache_tokens") == tokens


def test_what_the_older_core_does_not_do_is_unsupported_and_not_lost() -> None:
    reasons = {phase.name: phase.reason for phase in log_phases(trace("0.9.2-v0"), (0, 9, 2))}
    assert reasons["dynamo"] == reasons["kernel_warmup"] == "unsupported"


@pytest.mark.parametrize(
    ("header", "process"),
    [
        ("(Worker_TP0 pid=1)", "Worker_TP0 1"),
        ("(VllmWorker rank=0 pid=430)", "VllmWorker 430"),
        ("(RayWorkerWrapper pid=7, ip=10.0.0.2)", "RayWorkerWrapper 7"),
        ("(pid=7)", "process 7"),
    ],
)
def test_every_worker_has_a_name(header: str, process: str) -> None:
    line = LogLine(5_000_000_000, "stdout", f"{header} INFO 07-18 03:07:00 [a.py:1] Loading weights took 2.0 seconds")
    (message,) = messages([line])
    assert message.process == process
    found: list[Phase] = [p for p in log_phases(LaunchTrace({}, [line]), None) if p.name == "weights"]
    assert [(phase.process, phase.start_ns) for phase in found] == [(process, 3_000_000_000)]
