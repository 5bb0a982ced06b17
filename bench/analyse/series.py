"""Recorded samples as series over time: one per probe and field, nulls kept apart with their reasons."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Values = npt.NDArray[np.float64]
Stamps = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Series:
    """Readings of one field in order of time; `nulls` counts what could not be read, by reason."""

    t_ns: Stamps
    value: Values
    nulls: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.t_ns)

    def within(self, start_ns: int | None, end_ns: int | None) -> Series:
        """The readings from `start_ns` up to and including `end_ns`; an open end is not cut."""
        keep = np.ones(len(self.t_ns), dtype=bool)
        if start_ns is not None:
            keep &= self.t_ns >= start_ns
        if end_ns is not None:
            keep &= self.t_ns <= end_ns
        return Series(self.t_ns[keep], self.value[keep], self.nulls)

    def around(self, start_ns: int, end_ns: int) -> Series:
        """The readings within, and the nearest one on each side: a counter's difference needs them."""
        first = max(0, int(np.searchsorted(self.t_ns, start_ns, side="right")) - 1)
        last = min(len(self.t_ns), int(np.searchsorted(self.t_ns, end_ns, side="left")) + 1)
        return Series(self.t_ns[first:last], self.value[first:last], self.nulls)

    def grown(self) -> float | None:
        """How much a counter grew from its first to its last reading; None with fewer than two."""
        return float(self.value[-1] - self.value[0]) if len(self) > 1 else None

    def rate(self) -> float | None:
        """The same growth per second between those two readings, which may lie outside a short window."""
        grown = self.grown()
        return None if grown is None else grown / (float(self.t_ns[-1] - self.t_ns[0]) / 1e9)

    @property
    def why(self) -> str | None:
        """The most frequent reason for a null."""
        return max(self.nulls, key=self.nulls.__getitem__) if self.nulls else None


EMPTY = Series(np.empty(0, np.int64), np.empty(0))


class Samples:
    """A launch's samples table, split once."""

    def __init__(self, table: pa.Table) -> None:
        keys = [
            table[name].combine_chunks().dictionary_encode() if len(table) else pa.array([], pa.string())
            for name in ("probe", "field")
        ]
        self._series: dict[tuple[str, str], Series] = {}
        if not len(table):
            return
        probes, fields = (key.dictionary.to_pylist() for key in keys)
        code = keys[0].indices.to_numpy().astype(np.int64) * len(fields) + keys[1].indices.to_numpy()
        stamps = table["t_ns"].to_numpy()
        order = np.lexsort((stamps, code))
        code, stamps = code[order], stamps[order]
        values = table["value"].to_numpy().astype(np.float64)[order]
        reasons = np.asarray(table["reason"].to_pylist(), dtype=object)[order]
        edges = np.flatnonzero(np.diff(code, prepend=-1, append=-1))
        for first, last in pairwise(edges):
            known = ~np.isnan(values[first:last])
            nulls = Counter(str(reason) for reason in reasons[first:last][~known])
            probe, name = probes[code[first] // len(fields)], fields[code[first] % len(fields)]
            self._series[probe, name] = Series(stamps[first:last][known], values[first:last][known], dict(nulls))

    def of(self, probe: str, name: str) -> Series:
        """The series of that field; empty if it was never recorded."""
        return self._series.get((probe, name), EMPTY)

    def any(self, *names: tuple[str, str]) -> Series:
        """The first of several fields that has readings, else the first that has nulls."""
        known = [self.of(*name) for name in names]
        return next((series for series in known if len(series)), next((s for s in known if s.nulls), EMPTY))

    def matching(self, probe: str, start: str = "", end: str = "") -> dict[str, Series]:
        """Every recorded field of a probe whose name begins and ends so."""
        return {
            name: series
            for (owner, name), series in sorted(self._series.items())
            if owner == probe and name.startswith(start) and name.endswith(end)
        }

    def total(self, many: Sequence[Series]) -> Series:
        """The sum of several series at the first one's times, the others interpolated; empty if one is."""
        if not many or any(len(series) == 0 for series in many):
            return EMPTY
        times = many[0].t_ns
        value = many[0].value + sum(np.interp(times, series.t_ns, series.value) for series in many[1:])
        return Series(times, np.asarray(value, dtype=np.float64))
