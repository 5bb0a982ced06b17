"""A run's folder: written launch by launch, so that a crash loses at most the launch in flight.

results/<scenario>/<run-id>/
    manifest.json                     plan, seeds, fingerprint, versions, state
    .lock                             held (flock) while a run writes here; the kernel lets go of a dead writer's
    launches/
        .<launch-id>.partial/         in flight; a leftover is swept by the next writer
        <launch-id>/                  whole: launch.json, *.parquet, engine.log
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from bench.errors import InternalError, RecordError
from bench.phrases import is_full, unwritten
from bench.record import engine_log, tables
from bench.record.documents import read_launch, read_manifest, write_document
from bench.record.launches import LaunchRecord, Phase
from bench.record.manifest import Manifest


@dataclass(slots=True)
class LaunchTables:
    """What one launch saw, as rows and columns of record.schema.TABLES, on its way to the disk.

    `samples` are None where a sampler streamed them into the launch's folder: those are taken over.
    """

    requests: list[dict[str, Any]] = field(default_factory=list)
    chunks: dict[str, list[Any]] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, Any]] | None = None


class RunFolder:
    """One run on disk. Reading needs no lock; writing happens inside `with folder:`, one writer at a time."""

    def __init__(self, path: Path, manifest: Manifest) -> None:
        self.path = path
        self.manifest = manifest
        self._lock: int | None = None

    @classmethod
    def create(cls, root: Path, manifest: Manifest) -> RunFolder:
        """A new folder under root/<scenario>/<run-id>; RecordError if there is one already."""
        path = root / manifest.scenario / manifest.run_id
        if path.exists():
            raise RecordError(f"{path} exists already", hint="`bench run --resume` goes on with it")
        # Made beside its final name and renamed, so that no run is ever seen without its manifest.
        draft = path.with_name(f".{path.name}.partial")
        with _explained(path):
            shutil.rmtree(draft, ignore_errors=True)
            (draft / "launches").mkdir(parents=True)
            write_document(draft / "manifest.json", asdict(manifest))
            draft.rename(path)
        return cls(path, manifest)

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """An existing run; RecordError if it is missing, damaged or of another schema version."""
        return cls(path, read_manifest(path))

    def __enter__(self) -> Self:
        with _explained(self.path):
            lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(lock, 32, 0).decode(errors="replace").strip()
            os.close(lock)
            raise RecordError(
                f"{self.path} is in use by another run" + (f" (process {holder})" if holder else ""),
                hint="wait for it or stop it; a run that was killed does not block its folder",
            ) from error
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        self._lock = lock
        for leftover in (self.path / "launches").glob(".*.partial"):
            shutil.rmtree(leftover, ignore_errors=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            os.ftruncate(self._lock, 0)
            os.close(self._lock)
            self._lock = None

    def launch_path(self, launch_id: str) -> Path:
        """Where a whole launch lies."""
        return self.path / "launches" / launch_id

    def begin(self, launch_id: str) -> Path:
        """A fresh folder for a launch in flight; whatever is written into it is kept by `finish`."""
        self._held()
        if self.launch_path(launch_id).exists():
            raise RecordError(f"launch {launch_id} of {self.path} is finished already")
        partial = self._partial(launch_id)
        with _explained(partial):
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        return partial

    def finish(
        self,
        launch_id: str,
        record: LaunchRecord,
        seen: LaunchTables | None = None,
    ) -> Path:
        """Make the launch whole: all tables on the disk, then one rename."""
        self._held()
        seen = seen or LaunchTables()
        partial, final = self._partial(launch_id), self.launch_path(launch_id)
        content = {
            "requests": tables.from_rows("requests", seen.requests),
            "chunks": tables.from_columns("chunks", seen.chunks),
            "events": tables.from_rows("events", seen.events),
            "phases": tables.from_rows("phases", [asdict(phase) for phase in seen.phases]),
            "samples": (
                tables.streamed_samples(partial) if seen.samples is None else tables.from_rows("samples", seen.samples)
            ),
        }
        if seen.logprobs:
            content["logprobs"] = tables.from_documents(seen.logprobs)
        with _explained(partial):
            for name, table in content.items():
                tables.write(partial / f"{name}.parquet", table)
            for stream in tables.STREAMS:
                (partial / stream).unlink(missing_ok=True)
            write_document(partial / "launch.json", asdict(record))
            _sync(partial)
            partial.rename(final)
            _sync(final.parent)
        return final

    def amend(self, record: LaunchRecord) -> None:
        """Replace launch.json of a whole launch: what was seen stays, what is thought of it changes."""
        self._held()
        path = self.launch_path(record.launch_id)
        with _explained(path):
            write_document(path / "launch.json", asdict(record))

    def abandon(self, launch_id: str) -> None:
        """Throw away a launch in flight."""
        self._held()
        shutil.rmtree(self._partial(launch_id), ignore_errors=True)

    def save(self, manifest: Manifest) -> None:
        """Replace the manifest, atomically."""
        self._held()
        with _explained(self.path):
            write_document(self.path / "manifest.json", asdict(manifest))
        self.manifest = manifest

    def finished(self) -> dict[str, LaunchRecord]:
        """Every whole launch by its id, in order of time."""
        folders = (self.path / "launches").glob("[!.]*/")
        return {folder.name: read_launch(folder) for folder in sorted(folders)}

    def read(self, launch_id: str, table: str, columns: Sequence[str] | None = None) -> pa.Table:
        """One table of one launch, pruned to some columns; RecordError if it is missing or damaged."""
        return tables.read(self.launch_path(launch_id) / f"{table}.parquet", table, columns)

    def logprobs(self, launch_id: str) -> list[dict[str, Any]]:
        """The log-probability documents of a launch, one per request that asked for them; empty if none did."""
        path = self.launch_path(launch_id) / "logprobs.parquet"
        return tables.to_documents(path) if path.exists() else []

    def log(self, launch_id: str) -> Iterator[engine_log.LogLine]:
        """The engine's output. A line cut short by a crash is left out."""
        path = self.launch_path(launch_id) / engine_log.NAME
        if not path.exists():
            return
        with path.open(encoding="utf-8", errors="replace", newline="\n") as file:
            for line in file:
                if (parsed := engine_log.parse(line.rstrip("\n"))) is not None:
                    yield parsed

    def _partial(self, launch_id: str) -> Path:
        return self.path / "launches" / f".{launch_id}.partial"

    def _held(self) -> None:
        if self._lock is None:
            raise InternalError(f"{self.path} is written to without holding its lock")


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns what the file system says into a sentence and a way on."""
    try:
        yield
    except OSError as error:
        if is_full(error):
            raise RecordError(
                f"{unwritten(path, error)}; every finished launch is safe",
                hint="free some space, then `bench run --resume` goes on from there",
            ) from error
        raise RecordError(unwritten(path, error)) from error
