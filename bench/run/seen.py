"""What a launch works with, and what it saw: the two things that its start, its requests and its record share."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.engines.images import Origins
from bench.loadgen.remote import Clients
from bench.probes.machine import Machine
from bench.record.launches import LaunchRecord
from bench.record.store import LaunchTables
from bench.run.progress import Progress
from bench.scenario.load import Scenario
from bench.scenario.variant import Variant

# What a run is at before a launch that comes from somewhere.
PREPARING = {"forked": "warming a parent", "restored": "making an image"}


@dataclass(frozen=True, slots=True)
class Stand:
    """What all launches of a run share."""

    scenario: Scenario
    machine: Machine
    caches: Path
    progress: Progress
    # Warm parents and images, for the variants that come from one.
    parents: Origins = field(default_factory=Origins)
    # All that the run launches, whether the scenario's matrix has them or not.
    variants: Sequence[Variant] = ()
    # Idle temperature of each zone, °C, taken before the first launch; empty where nothing waits for it.
    idle_c: Mapping[str, float] = field(default_factory=dict)
    # Where the load comes from; None for this machine.
    clients: Clients | None = None
    # Seconds from spawn after which a launch without a first token is stopped; None: it may take as long as it does.
    patience_s: float | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """All that one launch saw, on its way into the record."""

    record: LaunchRecord
    tables: LaunchTables = field(default_factory=LaunchTables)

    def event(self, source: str, name: str, **detail: Any) -> None:
        """Note that something happened now."""
        self.tables.events.append(
            {
                "t_ns": time.monotonic_ns(),
                "source": source,
                "name": name,
                "detail": json.dumps(detail) if detail else None,
            }
        )
