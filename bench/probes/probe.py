"""The probe's contract: readings that are a value, or null with a reason."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol, runtime_checkable

from bench.record.launches import FieldInfo


class Reading(NamedTuple):
    """A value, or the reason why there is none (one of record.schema.NULLS)."""

    value: float | None
    reason: str | None = None

    @classmethod
    def null(cls, reason: str) -> Reading:
        """A reading that could not be taken."""
        return cls(None, reason)


class Probe(Protocol):
    """One source of readings."""

    name: str
    period_s: float
    fields: tuple[FieldInfo, ...]

    def read(self) -> Mapping[str, Reading]:
        """One reading per field; never raises for a sensor that is missing or broken."""
        ...


@runtime_checkable
class Deferred(Probe, Protocol):
    """A probe whose reading comes in two steps: `read()` is `parse(raw())`.

    The sampler takes the first many times a second and the second once a second for all that was gathered: done after
    each wake-up, parsing finds the processor's caches cold and costs several times as much.
    """

    def raw(self) -> Any:
        """What the sensors answer, as it came."""
        ...

    def parse(self, raw: Any) -> Mapping[str, Reading]:
        """One reading per field; keeps nothing, and may come later and in another thread."""
        ...
