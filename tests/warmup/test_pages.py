"""The page cache is put into the state asked for, and what really lies in it is measured, on real files."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from bench.engines.engine import Checkpoint, LaunchTrace
from bench.errors import UsageError
from bench.warmup import pages
from bench.warmup.pages import (
    PageCache,
    establish_page_cache,
    page_cache_check,
    resident_bytes,
    resident_share,
    weight_files,
)
from bench.warmup.step import HostState, Prepared
from tests.waiting import until
from tests.warmup.states import variant

SIZE = 5_000_000


@pytest.fixture
def on_disk(tmp_path: Path) -> Path:
    """A folder whose files can really leave the page cache: not one in memory."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, mount, kind, *_ = line.split()
        if kind in ("tmpfs", "ramfs") and tmp_path.is_relative_to(mount) and mount != "/":
            pytest.skip(f"{mount} is kept in memory")
    return tmp_path


@pytest.fixture
def checkpoint(on_disk: Path) -> Checkpoint:
    (on_disk / "model.safetensors").write_bytes(bytes(range(256)) * (SIZE // 256))
    (on_disk / "config.json").write_text("{}")
    return Checkpoint(on_disk, "path:x", None, "bf16")


def test_weight_files_are_the_weights_alone(checkpoint: Checkpoint) -> None:
    assert [file.name for file in weight_files(checkpoint)] == ["model.safetensors"]


def test_an_attached_server_has_no_weight_files() -> None:
    assert weight_files(Checkpoint(None, "remote", None, "bf16", "remote")) == ()


def test_dropped_and_prefetched_weights_are_measured_as_such(checkpoint: Checkpoint) -> None:
    dropped = establish_page_cache(checkpoint, "drop")
    if dropped.resident is None:
        pytest.skip("the kernel does not tell what is resident")
    assert dropped.resident < 0.02
    assert dropped.achieved is True
    fetched = establish_page_cache(checkpoint, "prefetch")
    assert fetched.resident_before is not None
    assert fetched.resident_before < 0.02
    assert fetched.resident == 1.0
    assert fetched.achieved is True
    left = establish_page_cache(checkpoint, "leave")
    assert left.resident == 1.0
    assert left.achieved is None


def test_part_of_a_file_counts_as_part(checkpoint: Checkpoint) -> None:
    establish_page_cache(checkpoint, "drop")
    (file,) = weight_files(checkpoint)
    before = resident_bytes(file)
    with file.open("rb", buffering=0) as handle:
        handle.seek(SIZE // 2)
        handle.read(4096)
    after = resident_bytes(file)
    assert before is not None
    assert after is not None
    assert before < after < SIZE


def test_an_empty_file_has_nothing_resident(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    assert resident_bytes(tmp_path / "empty") == 0


def test_no_files_have_no_share() -> None:
    assert resident_share([]) is None


def test_without_root_the_file_is_still_dropped_by_advice(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "DROP_CACHES", Path("/nonexistent/drop_caches"))
    dropped = establish_page_cache(checkpoint, "drop")
    assert str(dropped.method).startswith("posix_fadvise")
    if dropped.resident is not None:
        assert dropped.resident < 0.02


def test_files_that_stay_resident_are_a_violation_with_a_remedy(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "resident_share", lambda files: 0.7)
    check = page_cache_check(establish_page_cache(checkpoint, "drop"))
    assert check.status == "violated"
    assert "70.0%" in check.evidence
    assert check.remedy


def test_a_kernel_that_does_not_tell_is_doubt_and_not_success(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "resident_share", lambda files: None)
    assert page_cache_check(establish_page_cache(checkpoint, "drop")).status == "unknown"


def test_an_unknown_state_is_refused(checkpoint: Checkpoint) -> None:
    with pytest.raises(UsageError, match="leave, drop, prefetch"):
        establish_page_cache(checkpoint, "cold")


def beside(checkpoint: Checkpoint, folder: Path) -> tuple[PageCache, Prepared]:
    step = PageCache(PageCache.Options(when="beside"))
    return step, step.prepare(HostState(variant(), checkpoint, folder, folder))


def test_weights_are_read_beside_the_start_and_not_before_it(checkpoint: Checkpoint, tmp_path: Path) -> None:
    dropped = establish_page_cache(checkpoint, "drop")
    if dropped.resident is None:
        pytest.skip("the kernel does not tell what is resident")
    step, prepared = beside(checkpoint, tmp_path)
    assert (prepared.state["mode"], prepared.state["bytes"]) == ("beside", SIZE // 256 * 256)
    assert resident_share(weight_files(checkpoint)) == pytest.approx(0, abs=0.02)
    prepared.spawned()
    until(lambda: resident_share(weight_files(checkpoint)) == 1.0)
    assert step._beside is not None
    step._beside.join(10)
    trace = LaunchTrace(stamps={"health": time.monotonic_ns()}, log=[])
    (check,) = step.verify(trace, prepared)
    assert check.status == "ok", check
    assert check.evidence.startswith("0.0% of the weight bytes resident before spawn; all read within ")
    # Read only after the engine was there already: it had read them itself.
    late = LaunchTrace(stamps={"health": (step._beside.done_ns or 0) - 2 * 10**9}, log=[])
    (check,) = step.verify(late, prepared)
    assert (check.status, "2.00 s after the engine was healthy" in check.evidence) == ("violated", True)


def test_weights_that_cannot_be_read_beside_the_start_are_told(checkpoint: Checkpoint, tmp_path: Path) -> None:
    step, prepared = beside(checkpoint, tmp_path)
    (check,) = step.verify(LaunchTrace(stamps={"health": 1}, log=[]), prepared)
    assert (check.status, "not read to their end" in check.evidence) == ("violated", True)
    (checkpoint.path / "model.safetensors").unlink()  # type: ignore[operator]
    prepared.spawned()
    assert step._beside is not None
    step._beside.join(10)
    (check,) = step.verify(LaunchTrace(stamps={"health": 1}, log=[]), prepared)
    assert (check.status, "No such file or directory" in check.evidence) == ("violated", True)


def test_nothing_is_dropped_beside_a_start() -> None:
    with pytest.raises(ValueError, match="cannot be dropped beside its start"):
        PageCache.Options(state="drop", when="beside")
