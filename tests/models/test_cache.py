from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from bench.errors import ModelError, ProvisionError
from bench.models.cache import Cache, digest

KEY = {"kind": "test", "name": "weights"}


def write(folder: Path, partial: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"weights" * 100)
    (folder / "tokenizer.json").write_text("{}")


def other_contents(folder: Path, partial: Path) -> None:
    (folder / "a").write_text("b")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "models")


def test_what_was_put_is_found_again(cache: Cache) -> None:
    stored = cache.put(KEY, write, about={"source": "here"})
    found = cache.entry({"name": "weights", "kind": "test"})
    assert found is not None
    assert found.folder == stored.folder
    assert found.about["source"] == "here"
    assert set(found.files) == {"model.safetensors", "tokenizer.json"}
    assert found.size == 702


def test_the_digest_follows_the_contents_and_not_the_key(cache: Cache) -> None:
    first = cache.put(KEY, write)
    same = cache.put({"kind": "other"}, write)
    other = cache.put({"kind": "third"}, other_contents)
    assert first.digest == same.digest != other.digest


def test_a_second_put_writes_nothing(cache: Cache) -> None:
    cache.put(KEY, write)

    def refuse(folder: Path, partial: Path) -> None:
        raise AssertionError("written again")

    cache.put(KEY, refuse)
    with pytest.raises(AssertionError):
        cache.put(KEY, refuse, replace=True)
    assert cache.entry(KEY) is not None, "a failed replacement leaves the old entry"


def test_a_writer_that_fails_leaves_no_entry_and_keeps_what_can_be_resumed(cache: Cache) -> None:
    seen: list[str] = []

    def half(folder: Path, partial: Path) -> None:
        seen.extend(file.name for file in partial.iterdir())
        (partial / "part").write_text("half")
        (folder / "model.safetensors").write_text("half")
        if len(seen) == 0:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.put(KEY, half)
    assert cache.entry(KEY) is None
    assert cache.entries() == []
    cache.put(KEY, half)
    assert seen == ["part"], "the second attempt sees what the first one got"
    names = {path.suffix for path in cache.root.iterdir() if path.is_dir()}
    assert names == {""}, "nothing half-made stays behind"


def test_a_file_of_another_size_is_damage(cache: Cache) -> None:
    entry = cache.put(KEY, write)
    (entry.folder / "model.safetensors").write_bytes(b"weights" * 99)
    with pytest.raises(ModelError, match=r"model.safetensors has 693 bytes instead of 700"):
        cache.entry(KEY)


def test_changed_contents_of_the_same_size_are_damage(cache: Cache) -> None:
    entry = cache.put(KEY, write)
    file = entry.folder / "model.safetensors"
    before = file.stat()
    file.write_bytes(b"Weights" * 100)
    assert entry.damage() == ["model.safetensors has other contents than were stored"]
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert entry.damage() == [], "the quick look goes by size and time"
    assert entry.damage(full=True) == ["model.safetensors has other contents than were stored"]


def test_a_touched_file_with_the_same_contents_is_whole(cache: Cache) -> None:
    entry = cache.put(KEY, write)
    os.utime(entry.folder / "model.safetensors")
    assert entry.damage() == []


def test_a_missing_file_is_damage(cache: Cache) -> None:
    entry = cache.put(KEY, write)
    (entry.folder / "tokenizer.json").unlink()
    assert entry.damage() == ["tokenizer.json is missing"]


def test_an_unreadable_manifest_says_which_folder_to_remove(cache: Cache) -> None:
    entry = cache.put(KEY, write)
    (entry.folder / "entry.json").write_text("{")
    with pytest.raises(ModelError, match="remove the folder"):
        cache.entry(KEY)


def test_a_removed_entry_is_gone(cache: Cache) -> None:
    entry = cache.put(KEY, write)
    cache.remove(entry)
    assert cache.entry(KEY) is None
    assert not entry.folder.exists()


def test_too_little_room_is_said_before_anything_is_written(cache: Cache) -> None:
    def refuse(folder: Path, partial: Path) -> None:
        raise AssertionError("written")

    with pytest.raises(ProvisionError, match=r"needs \d+\.\d GB and .* has"):
        cache.put(KEY, refuse, needs=10**18)


def test_a_full_disk_while_writing_is_said_in_words(cache: Cache) -> None:
    def full(folder: Path, partial: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(ProvisionError, match="no space left"):
        cache.put(KEY, full)
    assert cache.entries() == []
    assert [path.suffix for path in cache.root.iterdir()] == [".lock"]


def test_a_folder_that_may_not_be_written_is_said_in_words(tmp_path: Path) -> None:
    def denied(folder: Path, partial: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    with pytest.raises(ProvisionError, match="FIRSTTOKEN_HOME"):
        Cache(tmp_path).put(KEY, denied)


def _slow_put(root: Path, began: Path) -> None:
    def slow(folder: Path, partial: Path) -> None:
        with began.open("a") as log:
            log.write("x")
        time.sleep(0.3)
        write(folder, partial)

    Cache(root).put(KEY, slow)


def test_two_processes_write_an_entry_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    began = tmp_path / "began"
    both = [context.Process(target=_slow_put, args=(tmp_path / "models", began)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    assert began.read_text() == "x"
    assert len(Cache(tmp_path / "models").entries()) == 1


def _die_while_writing(root: Path) -> None:
    def die(folder: Path, partial: Path) -> None:
        (folder / "model.safetensors").write_text("half")
        (partial / "part").write_text("half")
        os.kill(os.getpid(), signal.SIGKILL)

    Cache(root).put(KEY, die)


def test_a_killed_writer_leaves_no_entry_and_no_lock(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_die_while_writing, args=(tmp_path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    cache = Cache(tmp_path)
    assert cache.entry(KEY) is None
    stored = cache.put(KEY, write)
    assert stored.files["model.safetensors"].size == 700
    assert {path.name for path in stored.folder.iterdir()} == {"model.safetensors", "tokenizer.json", "entry.json"}


def test_the_key_of_a_mapping_ignores_its_order() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 2, "b": 1})
