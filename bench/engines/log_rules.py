"""How a phase shows in a log: by one line that says how long it took, or by two lines around it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from bench.engines.logs import Message
from bench.environments.versions import Version, version
from bench.record.schema import Phase

OLDEST, NEWEST = version("0"), version("999")
UNITS = {"ms": 1e-3, "s": 1.0}


@dataclass(frozen=True, slots=True)
class Took:
    """A line printed when a phase ends, with its seconds in the group `s` (or in `unit`, ms)."""

    phase: str
    pattern: str
    since: Version = OLDEST
    until: Version = NEWEST
    unit: str = "s"
    # Of engines with two cores: the one that says it, where only one does.
    core: str | None = None

    def phases(self, said: Sequence[Message], stamps: Mapping[str, int | None]) -> Iterator[Phase]:
        """One for each time that the line was printed."""
        pattern = re.compile(self.pattern)
        for message in said:
            for match in pattern.finditer(message.text):
                try:
                    seconds = float(match["s"]) * UNITS[self.unit]
                except ValueError:
                    yield Phase(self.phase, None, None, "log", message.process, reason="parse_failed")
                    continue
                yield Phase(self.phase, message.t_ns - round(seconds * 1e9), message.t_ns, "log", message.process)


@dataclass(frozen=True, slots=True)
class Between:
    """Two lines that bracket a phase, the first of each; `begin` None is the spawn."""

    phase: str
    begin: str | None
    end: str
    since: Version = OLDEST
    until: Version = NEWEST
    core: str | None = None

    def phases(self, said: Sequence[Message], stamps: Mapping[str, int | None]) -> Iterator[Phase]:
        """One, or `partial` where it began and the launch did not live to see its end."""
        begin = stamps.get("spawn") if self.begin is None else first(self.begin, said)
        end = first(self.end, said)
        if begin is not None and end is not None and begin <= end:
            yield Phase(self.phase, begin, end, "log")
        elif begin is not None and end is None and self.begin is not None and stamps.get("ready") is None:
            yield Phase(self.phase, begin, None, "log", reason="partial")


Rule = Took | Between


def first(pattern: str, said: Sequence[Message]) -> int | None:
    """When the first message that matches was printed."""
    return next((message.t_ns for message in said if re.search(pattern, message.text)), None)


def by_rules(rules: Sequence[Rule], said: Sequence[Message], stamps: Mapping[str, int | None]) -> list[Phase]:
    """All phases that the rules find, in their order; a phase that none of its rules finds is null."""
    found: dict[str, list[Phase]] = {}
    for rule in rules:
        found.setdefault(rule.phase, []).extend(rule.phases(said, stamps))
    return [
        phase
        for name, phases in found.items()
        for phase in phases or [Phase(name, None, None, "log", reason="not_found")]
    ]
