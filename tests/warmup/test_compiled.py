"""Compile caches are kept per build, and a launch that compiled again is never called a hit."""

from __future__ import annotations

import errno
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from bench.engines.engine import LaunchTrace
from bench.errors import LaunchError
from bench.record.launches import Check
from bench.scenario.variant import WarmupStep
from bench.warmup.compiled import cache_key
from bench.warmup.step import HostState, WarmupStrategy
from bench.warmup.strategies import build
from tests.engines.vllm_logs import lines
from tests.warmup.states import checkpoint, state, variant


def step(**options: Any) -> WarmupStrategy:
    return build((WarmupStep("compile-cache", options),))


def folder_of(env: dict[str, str]) -> Path:
    return Path(env["VLLM_CACHE_ROOT"]).parent


def judged(strategy: WarmupStrategy, prepared: Any, log: str | None = None, events: Any = ()) -> Check:
    trace = LaunchTrace({}, lines(log) if log else [], events)
    return next(check for check in strategy.verify(trace, prepared) if check.name == "compile_cache.state")


def filled(tmp_path: Path, strategy: WarmupStrategy) -> Path:
    """The folder of the build as an earlier launch left it."""
    folder = folder_of(dict(strategy.prepare(state(tmp_path)).env))
    (folder / "inductor" / "aa").mkdir(parents=True)
    (folder / "inductor" / "aa" / "kernel.so").write_bytes(b"code")
    return folder


def test_the_first_launch_of_a_build_is_its_priming_and_not_warm(tmp_path: Path) -> None:
    strategy = step()
    check = judged(strategy, strategy.prepare(state(tmp_path)), "0.32.0-inductor-warm")
    assert check.status == "violated"
    assert check.evidence.startswith("the cache was empty before start")
    assert check.remedy is not None
    assert "priming" in check.remedy


def test_a_launch_that_added_nothing_to_a_filled_cache_was_warm(tmp_path: Path) -> None:
    strategy = step()
    filled(tmp_path, strategy)
    check = judged(strategy, strategy.prepare(state(tmp_path)), "0.32.0-inductor-warm")
    assert check.status == "ok"
    assert "1 compiled files in the cache before, 0 added" in check.evidence


def test_a_launch_that_compiled_again_is_marked_with_the_engines_own_reason(tmp_path: Path) -> None:
    strategy = step()
    filled(tmp_path, strategy)
    check = judged(strategy, strategy.prepare(state(tmp_path)), "0.32.0-compiled-reload-failed")
    assert check.status == "violated"
    assert "'function' object has no attribute 'finalize_loading'" in check.evidence
    assert check.remedy is not None
    assert "does not take what it saved" in check.remedy


def test_a_silent_engine_that_added_code_had_compiled(tmp_path: Path) -> None:
    strategy = step()
    folder = filled(tmp_path, strategy)
    prepared = strategy.prepare(state(tmp_path))
    (folder / "inductor" / "bb.so").write_bytes(b"more")
    assert judged(strategy, prepared, "0.32.0-inductor-warm").status == "violated"


@pytest.mark.parametrize("log", ["0.9.2", "0.11.2", "0.33.0"])
def test_hits_in_the_engines_words_are_a_warm_start(tmp_path: Path, log: str) -> None:
    strategy = step()
    filled(tmp_path, strategy)
    assert judged(strategy, strategy.prepare(state(tmp_path)), log).status == "ok"


@pytest.mark.parametrize("log", ["0.8.5", "0.13.0", "0.21.0"])
def test_compiling_in_the_engines_words_is_none(tmp_path: Path, log: str) -> None:
    strategy = step()
    filled(tmp_path, strategy)
    assert judged(strategy, strategy.prepare(state(tmp_path)), log).status == "violated"


def test_transformers_counters_decide_for_transformers(tmp_path: Path) -> None:
    strategy = step()
    filled(tmp_path, strategy)
    prepared = strategy.prepare(state(tmp_path))
    hit = {"name": "compile_cache", "t_ns": 1, "cache_hits": 4, "cache_misses": 0}
    assert judged(strategy, prepared, events=[hit]).status == "ok"
    assert judged(strategy, prepared, events=[hit | {"cache_misses": 1}]).status == "violated"


def test_an_eager_engine_with_a_filled_cache_has_what_it_asked_for(tmp_path: Path) -> None:
    strategy = step()
    folder = folder_of(dict(strategy.prepare(state(tmp_path)).env))
    (folder / "vllm" / "modelinfos").mkdir(parents=True)
    (folder / "vllm" / "modelinfos" / "llama.json").write_text("{}")
    assert judged(strategy, strategy.prepare(state(tmp_path)), "0.32.0-eager").status == "ok"


def test_no_evidence_is_doubt(tmp_path: Path) -> None:
    strategy = step()
    folder = folder_of(dict(strategy.prepare(state(tmp_path)).env))
    (folder / "note").touch()
    shutil.rmtree(folder / "vllm", ignore_errors=True)
    prepared = strategy.prepare(state(tmp_path))
    (folder / "note").unlink()
    (folder / "usage_stats.json").touch()
    assert judged(strategy, prepared).status == "unknown"


def test_cold_is_emptied_and_a_hit_is_a_violation(tmp_path: Path) -> None:
    filled(tmp_path, step())
    strategy = step(state="cold")
    prepared = strategy.prepare(state(tmp_path))
    assert list(folder_of(dict(prepared.env)).iterdir()) == []
    assert judged(strategy, prepared, "0.32.0-compiled").status == "ok"
    assert judged(strategy, prepared, "0.33.0").status == "violated"


def test_a_cold_launch_may_meet_again_what_it_compiled_itself(tmp_path: Path) -> None:
    strategy = step(state="cold")
    prepared = strategy.prepare(state(tmp_path))
    event = {"name": "compile_cache", "t_ns": 1, "cache_hits": 1, "cache_misses": 3}
    assert judged(strategy, prepared, events=[event]).status == "ok"


def test_builds_that_differ_in_flags_engine_or_model_do_not_share_a_cache(tmp_path: Path) -> None:
    plain = state(tmp_path)
    keys = {
        cache_key(plain),
        cache_key(state(tmp_path, variant(args={"max_model_len": 64}))),
        cache_key(state(tmp_path, variant(environment="vllm-cpu"))),
        cache_key(state(tmp_path, variant(env={"VLLM_USE_AOT_COMPILE": "0"}))),
        cache_key(state(tmp_path, variant("transformers"))),
    }
    assert len(keys) == 5
    assert cache_key(plain) == cache_key(state(tmp_path, variant(args={"log_level": "debug"})))


def test_a_restored_archive_replaces_what_was_there(tmp_path: Path) -> None:
    source = tmp_path / "src" / "inductor"
    source.mkdir(parents=True)
    (source / "k.so").write_bytes(b"x")
    with tarfile.open(tmp_path / "cache.tar.gz", "w:gz") as tar:
        tar.add(source, "inductor")
    filled(tmp_path, step())
    folder = folder_of(dict(step(archive=str(tmp_path / "cache.tar.gz")).prepare(state(tmp_path)).env))
    assert [path.name for path in folder.rglob("*.so")] == ["k.so"]


def test_a_damaged_or_missing_archive_is_a_classified_launch(tmp_path: Path) -> None:
    (tmp_path / "bad.tar.gz").write_bytes(b"not a tar")
    for archive in ("bad.tar.gz", "gone.tar.gz"):
        with pytest.raises(LaunchError) as failure:
            step(archive=str(tmp_path / archive)).prepare(state(tmp_path))
        assert failure.value.kind == "missing_file"


def test_a_full_disk_is_a_classified_launch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, *args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    folder = checkpoint_of(tmp_path)
    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(LaunchError, match="No space left") as failure:
        step().prepare(HostState(variant(), folder, tmp_path / "caches", tmp_path))
    assert failure.value.kind == "disk_full"


def test_a_cache_folder_that_cannot_be_written_is_a_classified_launch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(self: Path, *args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(Path, "touch", read_only)
    with pytest.raises(LaunchError, match="Read-only file system"):
        step().prepare(state(tmp_path))


def test_artifacts_are_for_transformers_alone(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="needs Transformers"):
        build((WarmupStep("compile-artifacts"),)).prepare(state(tmp_path))


def test_artifacts_that_could_not_be_loaded_say_why(tmp_path: Path) -> None:
    strategy = build((WarmupStep("compile-artifacts"),))
    prepared = strategy.prepare(state(tmp_path, variant("transformers")))
    assert str(prepared.args["compile_artifacts"]).endswith(".bin")
    event = {"name": "compile_artifacts_load", "t_ns": 1, "loaded": False, "error": "RuntimeError: other torch"}
    check = judged(strategy, prepared, events=[event])
    assert check.status == "violated"
    assert "other torch" in check.evidence


def checkpoint_of(tmp_path: Path) -> Any:
    return checkpoint(tmp_path / "model")
