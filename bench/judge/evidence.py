"""What a validity rule looks at, and what a rule is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa

from bench.analyse.energy import steady_window
from bench.analyse.series import Samples, Series
from bench.record.launches import Check, LaunchRecord
from bench.record.schema import CheckStatus


@dataclass(frozen=True)
class Evidence:
    """All that a rule may look at: the launch as recorded, cut to its steady window where that is meant.

    `others` are the other launches of its run, where a rule compares it with them.
    """

    record: LaunchRecord
    requests: pa.Table
    samples: Samples
    scenario: Mapping[str, Any]
    fingerprint: Mapping[str, Any]
    others: Sequence[LaunchRecord] = ()

    @cached_property
    def window(self) -> tuple[int, int] | None:
        """The steady requests' time, from first sending to last end; None without any."""
        start, end = steady_window(self.requests)
        return (start, end) if start is not None and end is not None else None

    @cached_property
    def steady(self) -> pa.Table:
        """The steady requests."""
        return self.requests.filter(self.requests["measured"])

    def during(self, probe: str, field: str) -> Series:
        """A series within the steady window; all of it if there is no window."""
        series = self.samples.of(probe, field)
        return series.within(*self.window) if self.window else series

    def growth(self, probe: str, field: str) -> float | None:
        """How much a counter grew over the steady window."""
        series = self.samples.of(probe, field)
        return (series.around(*self.window) if self.window else series).grown()

    def rate(self, probe: str, field: str) -> float | None:
        """How fast a counter grew over the steady window, per second."""
        series = self.samples.of(probe, field)
        return (series.around(*self.window) if self.window else series).rate()

    @property
    def workload(self) -> Mapping[str, Any]:
        """The scenario's workload as written."""
        return self._section("workload")

    @property
    def design(self) -> Mapping[str, Any]:
        """The scenario's design as written."""
        return self._section("design")

    def _section(self, name: str) -> Mapping[str, Any]:
        found = self.scenario.get(name)
        return found if isinstance(found, dict) else {}


# What a rule says of a launch, and on what grounds.
Said = tuple[CheckStatus, str]


@dataclass(frozen=True, slots=True)
class Rule:
    """One named check, with its limit and what to do where it is not kept."""

    name: str
    limit: str
    remedy: str
    look: Callable[[Evidence], Said | None]

    def check(self, evidence: Evidence) -> Check | None:
        """Applied to a launch; None where it does not concern it (a board's rule on a desktop)."""
        said = self.look(evidence)
        if said is None:
            return None
        status, words = said
        return Check(self.name, status, words, self.limit, None if status == "ok" else self.remedy)


def rule(*, limit: str, remedy: str, name: str | None = None) -> Callable[[Callable[[Evidence], Said | None]], Rule]:
    """Make a function the rule of its name, or of another one."""
    return lambda look: Rule(name or look.__name__, limit, remedy, look)
