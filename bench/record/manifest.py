"""manifest.json: what a run set out to do, where it ran, and how far it got."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from bench.record.schema import SCHEMA_VERSION


@dataclass(slots=True)
class Manifest:
    """manifest.json: a run's plan, where it ran, and how far it got."""

    run_id: str
    scenario: str
    scenario_digest: str
    scenario_text: str
    seed: int
    variants: list[dict[str, Any]]
    plan: list[dict[str, Any]]
    fingerprint: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    created: str | None = None
    finished: str | None = None
    state: Literal["running", "complete", "interrupted"] = "running"
    emulated: str | None = None
    notes: list[str] = field(default_factory=list)
    schema_version: int = SCHEMA_VERSION
