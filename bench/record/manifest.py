"""manifest.json: what a run set out to do, where it ran, and how far it got."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bench.record.schema import SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class PlannedLaunch:
    """One launch: block and position count from 0; `seed` draws the prompts and is the same for a whole block."""

    block: int
    position: int
    variant: str
    seed: int

    @property
    def id(self) -> str:
        """Folder name of the launch; sorts in order of time."""
        return f"{self.block:03d}-{self.position:02d}-{self.variant}"


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One step of a variant's warm-up."""

    strategy: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PlannedVariant:
    """A variant as it was planned: its factors' levels, and all that tells it apart in its scenario's own words.

    `engine` and `model` hold what the scenario says of them and no default. `digest` is of all but id and factors;
    `start` is None for a new program, `slowdown` where nothing is slowed on purpose.
    """

    id: str
    factors: Mapping[str, str] = field(default_factory=dict)
    digest: str | None = None
    engine: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    quantization: str | None = None
    warmup: list[PlannedStep] = field(default_factory=list)
    page_cache: str | None = None
    start: str | None = None
    slowdown: Mapping[str, float] | None = None

    @property
    def adapter(self) -> str | None:
        """Which kind of engine it is: vllm, transformers, …"""
        kind = self.engine.get("engine")
        return None if kind is None else str(kind)

    @property
    def source(self) -> str:
        """Where its weights come from; empty if that was not said."""
        return str(self.model.get("source") or "")


@dataclass(slots=True)
class Manifest:
    """manifest.json: a run's plan, where it ran, and how far it got.

    `fingerprint` is nested as the probes found it (bench.probes.fingerprint); bench.judge.likeness is its reader.
    """

    run_id: str
    scenario: str
    scenario_digest: str
    scenario_text: str
    seed: int
    variants: list[PlannedVariant]
    plan: list[PlannedLaunch]
    fingerprint: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    created: str | None = None
    finished: str | None = None
    state: Literal["running", "complete", "interrupted"] = "running"
    emulated: str | None = None
    notes: list[str] = field(default_factory=list)
    schema_version: int = SCHEMA_VERSION

    def variant(self, name: str) -> PlannedVariant:
        """What was planned under that id; nothing but the id where the manifest does not know it."""
        return next((one for one in self.variants if one.id == name), PlannedVariant(name))
