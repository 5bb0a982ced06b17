"""What a probe is built with."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bench.probes.probe import Reading
from bench.probes.roots import Roots
from bench.record.launches import FieldInfo


@dataclass(slots=True)
class Watched:
    """Whom to watch. The sampler changes it while probes run: an engine's pid is known only after its spawn."""

    engine: int | None = None
    harness: tuple[int, ...] = ()
    metrics_url: str | None = None


@dataclass(frozen=True, slots=True)
class Context:
    """Roots to read, processes to watch, and the probe's options from the sampler's configuration.

    A probe's factory takes one Context. Beside the contract of probes.probe.Probe a probe may have `alone = True` (it
    waits for others: give it a thread of its own), `raw()` and `parse()` (a reading in two steps: probe.Deferred),
    `close()`, and `hint(field, reason) -> str | None`, the command that would turn a null into a value: `bench doctor`
    prints it.
    """

    roots: Roots = field(default_factory=Roots)
    watched: Watched = field(default_factory=Watched)
    options: Mapping[str, Any] = field(default_factory=dict)
    # what time it is, s, for a probe that has to tell late from silent
    clock: Callable[[], float] = time.monotonic


def nulls(fields: tuple[FieldInfo, ...], reason: str) -> dict[str, Reading]:
    """The same null for every field."""
    null = Reading.null(reason)
    return {info.field: null for info in fields}
