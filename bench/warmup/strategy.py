"""The warm-up strategy's contract."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bench.engines.engine import Checkpoint, LaunchTrace
from bench.record.schema import Check
from bench.scenario.model import Workload
from bench.scenario.variant import Variant


@dataclass(frozen=True, slots=True)
class HostState:
    """What a strategy may look at and change before the engine starts. `caches` survives from launch to launch."""

    variant: Variant
    checkpoint: Checkpoint
    caches: Path
    launch_folder: Path


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was done before spawn: flags and variables for the engine, and the state left behind, as evidence."""

    args: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stage:
    """A batch of warm-up requests. The conductor turns it into requests with prompts of its own.

    `until` sees all TTFTs of the warm-up so far (ms) and returns the reason to stop, or None to send the batch again,
    at most `max_batches` times. It is a rule handed down: the stage computes nothing itself.
    """

    label: str
    requests: int
    buckets: Sequence[int]
    output_tokens: int
    concurrency: int | None = None
    body: Mapping[str, Any] = field(default_factory=dict)
    until: Callable[[Sequence[float]], str | None] | None = None
    max_batches: int = 1
    # Paths POSTed to the server, in order, before the batch is sent, e.g. /sleep?level=1; each must answer 200.
    calls: Sequence[str] = ()


class WarmupStrategy(Protocol):
    """Before spawn, after ready, and: did it really happen?"""

    def prepare(self, state: HostState) -> Prepared:
        """Caches and flags before the engine is started."""
        ...

    def stages(self, workload: Workload) -> Iterator[Stage]:
        """Requests to send once the engine answers; recorded, never measured."""
        ...

    def verify(self, trace: LaunchTrace, prepared: Prepared) -> list[Check]:
        """Evidence or doubt that the state asked for was the state had."""
        ...
