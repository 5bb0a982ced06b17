from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.engines.compile_caches import COMPILE_CACHES
from bench.engines.engine import Checkpoint, LaunchContext, LaunchTrace
from bench.engines.transformers import Transformers
from bench.errors import LaunchError
from bench.scenario.model import EngineSetting, Model, Quantization, Start
from bench.scenario.variant import Variant


def variant(quantization: Quantization = "bf16", **engine: Any) -> Variant:
    settings = EngineSetting(engine="transformers", python=sys.executable, **engine)
    model = Model(source="dummy:tiny-llama")
    return Variant("v", {}, "transformers", settings, "tiny", model, quantization, "none", (), "leave")


def context(tmp_path: Path, format_: str = "safetensors", **args: Any) -> LaunchContext:
    checkpoint = Checkpoint(tmp_path, "dummy:tiny-llama", None, "bf16", format=format_)
    return LaunchContext(port=9000, folder=tmp_path / "launch", checkpoint=checkpoint, args=args)


def option(argv: tuple[str, ...], name: str) -> str:
    return argv[argv.index(name) + 1]


def test_the_command_runs_the_worker_in_the_engines_interpreter(tmp_path: Path) -> None:
    spec = Transformers().command(variant(args={"threads": 2}), context(tmp_path))
    assert spec.argv[:3] == (sys.executable, "-m", "transformers_server")
    assert option(spec.argv, "--model") == str(tmp_path)
    assert option(spec.argv, "--port") == "9000"
    assert option(spec.argv, "--dtype") == "bf16"
    assert option(spec.argv, "--threads") == "2"
    assert option(spec.argv, "--served-model-name") == spec.endpoint.model == "tiny"
    assert option(spec.argv, "--events") == str(spec.events_file)
    assert spec.env["PYTHONPATH"].endswith("programs")
    assert not spec.attached


def test_what_the_warm_up_decides_overrides_the_scenario(tmp_path: Path) -> None:
    chosen = variant(args={"cache_implementation": "dynamic", "compile": True}, env={"A": "1", "B": "1"})
    launch = context(tmp_path, cache_implementation="static", static_cache_tokens=256)
    spec = Transformers().command(chosen, launch)
    assert option(spec.argv, "--cache-implementation") == "static"
    assert option(spec.argv, "--static-cache-tokens") == "256"
    assert "--compile" in spec.argv


def test_flags_that_are_off_are_left_out(tmp_path: Path) -> None:
    spec = Transformers().command(variant(args={"compile": False}), context(tmp_path))
    assert "--compile" not in spec.argv


def test_the_users_python_path_is_kept(tmp_path: Path) -> None:
    spec = Transformers().command(variant(env={"PYTHONPATH": "/theirs"}), context(tmp_path))
    assert spec.env["PYTHONPATH"].split(":")[1] == "/theirs"


@pytest.mark.parametrize(
    ("quantization", "dtype"), [("fp32", "fp32"), ("fp16", "fp16"), ("awq", "bf16"), ("gguf-q4", "bf16")]
)
def test_the_quantization_decides_the_dtype(tmp_path: Path, quantization: Quantization, dtype: str) -> None:
    launch = context(tmp_path, "gguf" if quantization == "gguf-q4" else "safetensors")
    assert option(Transformers().command(variant(quantization), launch).argv, "--dtype") == dtype


@pytest.mark.parametrize(
    ("args", "kind", "says"),
    [
        ({"theads": 2}, "bad_argument", "did you mean threads"),
        ({"threads": True}, "bad_argument", "must be of type int, not True"),
        ({"compile": "yes"}, "bad_argument", "must be of type bool"),
        ({"compile": True, "cache_implementation": "paged"}, "bad_argument", "dynamic, static"),
    ],
)
def test_a_wrong_flag_is_refused_before_anything_starts(
    tmp_path: Path, args: dict[str, Any], kind: str, says: str
) -> None:
    with pytest.raises(LaunchError, match=says) as caught:
        Transformers().command(variant(args=args), context(tmp_path))
    assert caught.value.kind == kind


def test_cells_that_cannot_work_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="packed as GGUF") as caught:
        Transformers().command(variant("bf16"), context(tmp_path, "gguf"))
    assert caught.value.kind == "unsupported_quantization"
    with pytest.raises(LaunchError, match="not in an image"):
        Transformers().command(variant(image="some/image"), context(tmp_path))


START = 1_000_000_000_000


def event(name: str, begin: float, end: float | None = None, **detail: Any) -> dict[str, Any]:
    """An event at so many seconds after spawn."""
    stamps = {"t_ns": START + int(begin * 1e9)} | ({} if end is None else {"end_ns": START + int(end * 1e9)})
    return {"name": name, "pid": 7, **stamps, **detail}


EVENTS = [
    event("worker_start", 0.1),
    event("import_torch", 0.1, 1.0),
    event("import_transformers", 1.0, 3.0),
    event("device", 3.0, 3.1),
    event("tokenizer", 3.1, 3.5),
    event("weights", 3.5, 5.0, bytes=100),
    event("facts", 5.0, version="5.19.0", dtype="bfloat16", compiled=True),
    event("static_cache", 5.0, 5.2, bytes=1024, tokens=64),
    event("http", 5.2, 5.3),
    event("compile", 6.1, 8.0, frame="0/0"),
    event("first_forward", 6.0, 9.0, tokens=15),
    event("compile", 9.5, 9.9, frame="0/1"),
    event("compile_cache", 10.0, cache_hits=1, cache_misses=2),
    event("compile", 20.0, 21.0, frame="0/2"),
    event("compile_cache", 22.0, cache_hits=0, cache_misses=1),
]


def trace(events: list[dict[str, Any]]) -> LaunchTrace:
    stamps = {"spawn": START, "first_token": START + 12_000_000_000}
    return LaunchTrace(stamps=stamps, log=(), events=events)


def test_phases_are_the_workers_own_in_their_order() -> None:
    found = Transformers().phases(trace(EVENTS))
    assert [phase.name for phase in found] == [
        "interpreter",
        "import_torch",
        "import_transformers",
        "device",
        "tokenizer",
        "weights",
        "static_cache",
        "http",
        "first_forward",
        "compile",
        "compile",
    ]
    interpreter = found[0]
    assert interpreter.start_ns == START
    assert interpreter.end_ns == START + 100_000_000
    assert all(phase.source == "worker" for phase in found)


def test_a_compilation_is_nested_in_the_first_forward_pass_only_if_it_happened_there() -> None:
    compiled = [phase for phase in Transformers().phases(trace(EVENTS)) if phase.name == "compile"]
    assert [phase.parent for phase in compiled] == ["first_forward", None]


def test_a_phase_that_was_not_seen_is_null_with_a_reason() -> None:
    found = {phase.name: phase for phase in Transformers().phases(trace(EVENTS[:4]))}
    for name in ("tokenizer", "weights", "http", "first_forward"):
        assert (found[name].start_ns, found[name].end_ns, found[name].reason) == (None, None, "not_found")
    assert "static_cache" not in found, "a launch without one lacks nothing"


def test_facts_are_what_the_worker_said_and_counted() -> None:
    facts = Transformers().facts(trace(EVENTS))
    assert facts["version"] == "5.19.0"
    assert facts["static_cache_bytes"] == 1024
    assert facts["compilations"] == 3
    assert facts["compile_s"] == pytest.approx(3.3)
    assert (facts["compile_cache_hits"], facts["compile_cache_misses"]) == (1, 3)


def test_a_worker_that_said_nothing_has_no_facts() -> None:
    assert Transformers().facts(trace([])) == {}


def test_a_forked_start_has_a_parent_of_the_model_and_by_exec_there_is_none(tmp_path: Path) -> None:
    forked = dataclasses.replace(variant(), start="forked")
    assert Transformers().command(variant(), context(tmp_path)).parent is None
    parent = Transformers().command(forked, context(tmp_path)).parent
    assert parent is not None
    assert parent.imports == ("torch", "transformers")
    assert parent.arguments == {"model": tmp_path, "preload": "code"}
    assert parent.holds is None
    assert not any(name in parent.env for name in COMPILE_CACHES)


@pytest.mark.parametrize("start", ["exec", "forked"])
def test_what_a_parent_preloads_is_no_word_of_the_worker_s(tmp_path: Path, start: Start) -> None:
    wanted = dataclasses.replace(variant(args={"preload": "weights", "attention": "eager"}), start=start)
    made = Transformers().command(wanted, context(tmp_path))
    assert "--preload" not in made.argv
    if made.parent is not None:
        path = made.parent.arguments["model"]
        assert made.parent.arguments == {"model": path, "preload": "weights", "dtype": "bf16", "attention": "eager"}
        assert made.parent.holds == path
    with pytest.raises(LaunchError, match="code, tokenizer, weights"):
        Transformers().command(variant(args={"preload": "everything"}), context(tmp_path))


def test_what_a_parent_had_loaded_is_a_phase_of_no_length_and_not_of_zero() -> None:
    events = [event("tokenizer", 1.0, 1.0, preloaded=True), event("weights", 2.0, 3.0, preloaded=False)]
    phases = {phase.name: phase for phase in Transformers().phases(trace(events))}
    assert (phases["tokenizer"].start_ns, phases["tokenizer"].reason) == (None, "forked")
    assert phases["weights"].start_ns is not None
