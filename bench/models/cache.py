"""Checkpoints on this machine: a folder per entry, found by the key of where it comes from, checked by its contents.

models/<key>/            the files, and entry.json beside them with the checksum of each
models/<key>.partial/    what an interrupted fetch may go on from
models/<key>.tmp         being written; renamed when whole, so that no half-made entry is ever seen
models/<key>.lock        held while an entry is made or removed
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import ModelError
from bench.home import Progress, clear, home, locked, room, writing
from bench.scenario.sources import Reference

_MANIFEST = "entry.json"

# Fills an empty folder with the entry's files; the second folder keeps what an interrupted fetch has got so far.
Writer = Callable[[Path, Path], None]


@dataclass(frozen=True, slots=True)
class Sum:
    """What a file was when it was stored."""

    size: int
    mtime_ns: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Entry:
    """One checkpoint. `key` says where it comes from, `about` what was learnt on the way; `digest` covers all bytes."""

    folder: Path
    key: Mapping[str, Any]
    about: Mapping[str, Any]
    files: Mapping[str, Sum]
    created: float

    @property
    def digest(self) -> str:
        """One digest over the names and contents of all files."""
        return digest({name: file.sha256 for name, file in self.files.items()})

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files.values())

    def damage(self, *, full: bool = False) -> list[str]:
        """What is wrong with it: sizes and times at once, with `full` every checksum too."""
        found = []
        for name, stored in self.files.items():
            file = self.folder / name
            try:
                now = file.stat()
            except OSError:
                found.append(f"{name} is missing")
                continue
            if now.st_size != stored.size:
                found.append(f"{name} has {now.st_size} bytes instead of {stored.size}")
            elif (full or now.st_mtime_ns != stored.mtime_ns) and sha256(file) != stored.sha256:
                found.append(f"{name} has other contents than were stored")
        return found


@dataclass(frozen=True, slots=True)
class Cache:
    """The folder of entries."""

    root: Path = field(default_factory=lambda: home() / "models")

    def entry(self, key: Mapping[str, Any]) -> Entry | None:
        """The entry of that key, or None; ModelError if it is there and damaged."""
        found = _read(self._folder(key))
        if found is not None and (damage := found.damage()):
            raise ModelError(
                f"the cached model {found.folder.name} is damaged: {'; '.join(damage)}",
                hint=f"run `bench models remove {found.folder.name}`, then fetch it again",
            )
        return found

    def put(
        self,
        key: Mapping[str, Any],
        write: Writer,
        *,
        needs: int = 0,
        about: Mapping[str, Any] | None = None,
        replace: bool = False,
        progress: Progress | None = None,
    ) -> Entry:
        """Store what `write` makes, unless it is there already (`replace`: put it in the old one's place).

        `needs` is the room to check for first, in bytes. Whatever ends this early leaves no entry.
        """
        folder = self._folder(key)
        scratch, partial = folder.with_name(f"{folder.name}.tmp"), folder.with_name(f"{folder.name}.partial")
        with writing(self.root), locked(folder.with_name(f"{folder.name}.lock"), progress):
            if not replace and (found := self.entry(key)) is not None:
                return found
            room(self.root, needs, "the model")
            clear(scratch)
            scratch.mkdir(parents=True)
            partial.mkdir(exist_ok=True)
            try:
                write(scratch, partial)
                self._seal(scratch, key, about or {})
                clear(folder)
                scratch.rename(folder)
            except BaseException:
                # What was fetched so far stays for the next attempt; an empty folder is of no use to it.
                with suppress(OSError):
                    partial.rmdir()
                raise
            finally:
                clear(scratch)
            clear(partial)
        stored = self.entry(key)
        assert stored is not None
        return stored

    def entries(self) -> list[Entry]:
        """Every entry, the oldest first."""
        folders = self.root.glob("*/") if self.root.is_dir() else ()
        found = (_read(folder) for folder in folders if folder.suffix not in (".tmp", ".partial"))
        return sorted((entry for entry in found if entry is not None), key=lambda entry: entry.created)

    def remove(self, entry: Entry) -> None:
        """Delete an entry."""
        with writing(entry.folder), locked(entry.folder.with_name(f"{entry.folder.name}.lock")):
            # Out of sight in one step: whoever looks meanwhile finds a whole entry or none.
            gone = entry.folder.with_name(f"{entry.folder.name}.tmp")
            clear(gone)
            with suppress(FileNotFoundError):
                entry.folder.rename(gone)
            clear(gone)

    def _folder(self, key: Mapping[str, Any]) -> Path:
        return self.root / digest(key)[:16]

    def _seal(self, scratch: Path, key: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        files = {}
        for file in sorted(path for path in scratch.rglob("*") if path.is_file()):
            with file.open("rb+" if os.access(file, os.W_OK) else "rb") as handle:
                os.fsync(handle.fileno())
            now = file.stat()
            files[str(file.relative_to(scratch))] = Sum(now.st_size, now.st_mtime_ns, sha256(file))
        if not files:
            raise ModelError(f"nothing was written for {json.dumps(dict(key))}")
        manifest = {
            "key": dict(key),
            "about": dict(about),
            "created": time.time(),
            "files": {name: asdict(stored) for name, stored in files.items()},
        }
        (scratch / _MANIFEST).write_text(json.dumps(manifest, indent=1))


def digest(value: Mapping[str, Any]) -> str:
    """The sha256 of a mapping, the same for the same contents in any order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def source_key(reference: Reference) -> dict[str, Any]:
    """The key of what a source names; a changed checksum names something else."""
    return asdict(reference)


def sha256(file: Path) -> str:
    """A file's checksum."""
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _read(folder: Path) -> Entry | None:
    try:
        manifest = json.loads((folder / _MANIFEST).read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{folder / _MANIFEST} cannot be read: {error}", hint=f"remove the folder {folder} and fetch it again"
        ) from error
    files = {name: Sum(**stored) for name, stored in manifest["files"].items()}
    return Entry(folder, manifest["key"], manifest["about"], files, manifest["created"])
