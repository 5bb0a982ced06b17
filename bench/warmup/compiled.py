"""Compiled code kept from launch to launch: the engine's cache folders, or torch's artifacts in one file."""

from __future__ import annotations

import hashlib
import json
import shutil
from typing import Any, Literal

from pydantic import Field

from bench.engines.base import LaunchTrace
from bench.engines.caches import compile_cache_env, contents
from bench.engines.logs import compilation
from bench.errors import LaunchError, UsageError
from bench.record.schema import Check
from bench.warmup.base import HostState, Prepared
from bench.warmup.device import device_name
from bench.warmup.step import Step, StepOptions

_IGNORED = ("host", "port", "served_model_name", "disable_log_stats", "uvicorn_log_level")


def cache_key(state: HostState) -> str:
    """A folder name for compiled code: equal where engine, interpreter, device, flags and model are equal."""
    variant, engine = state.variant, state.variant.engine
    flags = {name: value for name, value in engine.args.items() if name not in _IGNORED}
    known = {
        "engine": engine.engine,
        "interpreter": engine.image or engine.python or engine.environment or engine.engine,
        "device": device_name(),
        "flags": flags,
        "model": state.checkpoint.digest or state.checkpoint.source,
        "quantization": variant.quantization,
    }
    digest = hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()[:12]
    return f"{engine.engine}-{variant.quantization}-{digest}"


class CompileCache(Step):
    """The compile caches of earlier launches of the same build: kept, restored from an archive, or emptied."""

    name = "compile-cache"
    owns_compile_caches = True

    class Options(StepOptions):
        """In which state the launch finds them."""

        state: Literal["warm", "cold"] = Field("warm", description="keep what earlier launches left, or empty it")
        archive: str | None = Field(None, description="tar file to restore the folder from, instead of keeping it")

    def __init__(self, options: Options) -> None:
        self.options = options

    def prepare(self, state: HostState) -> Prepared:
        """Point every cache at the folder of this build, emptied or filled as asked; its contents are the evidence."""
        folder = state.caches / "compile" / cache_key(state)
        try:
            if self.options.state == "cold" or self.options.archive:
                shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, exist_ok=True)
            if self.options.archive:
                shutil.unpack_archive(self.options.archive, folder, filter="data")
        except (OSError, ValueError, shutil.ReadError) as error:
            raise UsageError(f"the compile cache {folder} cannot be put in place: {error}") from error
        before = contents(folder)
        return Prepared(
            env=compile_cache_env(folder),
            state={"asked": self.options.state, "folder": folder.name, "before": before},
        )

    def verify(self, trace: LaunchTrace, prepared: Prepared) -> list[Check]:
        """A hit for warm, none for cold, in the engine's own words."""
        return [compile_state_check(str(prepared.state.get("asked")), prepared.state, trace)]


class CompileArtifacts(Step):
    """Transformers: torch.compiler.save_cache_artifacts after the first launch, load_cache_artifacts in the next."""

    name = "compile-artifacts"
    owns_compile_caches = True

    class Options(StepOptions):
        """Takes none: the file is named after the build."""

    def __init__(self, options: Options) -> None:
        self.options = options

    def prepare(self, state: HostState) -> Prepared:
        """Tell the worker which file to load from if it is there, and to save to in any case."""
        if state.variant.engine.engine != "transformers":
            raise LaunchError("unsupported", f"compile-artifacts needs Transformers, not {state.variant.engine.engine}")
        file = state.caches / "artifacts" / f"{cache_key(state)}.bin"
        file.parent.mkdir(parents=True, exist_ok=True)
        return Prepared(
            args={"compile_artifacts": str(file)},
            state={"asked": "warm", "file": file.name, "bytes": file.stat().st_size if file.is_file() else 0},
        )

    def verify(self, trace: LaunchTrace, prepared: Prepared) -> list[Check]:
        """Cache hits, as the worker counted them."""
        return [compile_state_check("warm", prepared.state, trace)]


def compile_state_check(asked: str, state: Any, trace: LaunchTrace) -> Check:
    """Whether what was compiled and what came from a cache is what was asked for."""
    seen = compilation(trace.log, trace.events)
    if asked == "warm":
        status = "violated" if seen.misses else "ok" if seen.hits else "unknown"
    else:
        status = "violated" if seen.hits else "ok"
    before = state.get("before", {}) if isinstance(state, dict) else {}
    found = f"; {before['files']} files in the cache before spawn" if before.get("files") is not None else ""
    return Check(
        name="compile_cache.state",
        status=status,  # type: ignore[arg-type]
        evidence=seen.words + found,
        limit={"warm": "everything from the cache", "cold": "nothing from the cache"}[asked],
        remedy=(
            "the first launch of a build fills the cache: this one is its priming, the next is warm"
            if asked == "warm" and status == "violated"
            else None
        ),
    )
