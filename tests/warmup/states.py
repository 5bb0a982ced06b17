"""Variants, checkpoints and host states for the tests of the strategies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.engines.engine import Checkpoint
from bench.scenario.model import Arrivals, EngineSetting, Model, RandomPrompts, Workload
from bench.scenario.variant import Variant
from bench.warmup.step import HostState


def variant(engine: str = "vllm", *, args: dict[str, Any] | None = None, **fields: Any) -> Variant:
    return Variant(
        id="v",
        factors={},
        engine_name=engine,
        engine=EngineSetting(engine=engine, args=args or {}, **fields),
        model_name="m",
        model=Model(source="path:/models/m"),
        quantization="bf16",
        warmup_name="none",
        warmup=(),
        page_cache="leave",
    )


def checkpoint(folder: Path, *, config: str | None = None) -> Checkpoint:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(b"\0" * 300_000)
    if config is not None:
        (folder / "config.json").write_text(config)
    return Checkpoint(folder, "path:m", "sha256:1", "bf16")


def state(tmp_path: Path, of: Variant | None = None, *, config: str | None = None) -> HostState:
    return HostState(
        of or variant(), checkpoint(tmp_path / "m", config=config), tmp_path / "caches", tmp_path / "launch"
    )


def workload(tokens: int | list[int] = 15, *, closed: int = 1) -> Workload:
    return Workload(
        prompts=RandomPrompts(kind="random", tokens=tokens), output_tokens=32, arrivals=Arrivals(closed=closed)
    )
