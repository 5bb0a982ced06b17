"""What the readers of other tools' files share: figures that are figures, and no statistic of nothing."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from bench.errors import RecordError

Row = dict[str, Any]
STATISTICS = ("mean", "p50", "p90", "p95", "p99")


def figure(value: Any, where: str) -> float | None:
    """A number of another tool's; None where it has none. RecordError if it is no finite number."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RecordError(f"{where} is {value!r}, which is no number")
    if not math.isfinite(value):
        raise RecordError(
            f"{where} is {value}, which is no figure",
            hint="the tool divided by nothing there; take the key out of the file to read the others",
        )
    return float(value)


def times(metric: str, found: Mapping[str, tuple[str, Any]], scale: float = 1.0) -> Iterator[Row]:
    """The statistics of one time in ms; `found` has where each was read and its value, `scale` is their unit in ms.

    Tools write zeros where nothing was measured: a time whose every statistic is zero is none.
    """
    values = {statistic: figure(value, where) for statistic, (where, value) in found.items()}
    if any(values.values()):
        for statistic, value in values.items():
            if value is not None:
                yield {"metric": f"{metric}.{statistic}", "unit": "ms", "value": scale * value}


def rate(metric: str, value: Any, where: str) -> Iterator[Row]:
    """A rate per second, if it is there."""
    if (found := figure(value, where)) is not None:
        yield {"metric": metric, "unit": "/s", "value": found}
