"""The probe's contract: readings that are a value, or null with a reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from bench.record.schema import FieldInfo


@dataclass(frozen=True, slots=True)
class Reading:
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
