"""ok, warning, alarm: a figure against its limits, with hysteresis, so that one value at the border rings nobody."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from bench.service.watchlist import FALLING, Bound, Limits

State = Literal["ok", "warning", "alarm", "unknown"]
LEVELS: tuple[State, ...] = ("ok", "warning", "alarm")
STATES: tuple[State, ...] = get_args(State)
# The six figures, and the key of each one's limit, whose unit is the figure's.
FIGURES = {
    "latency": "latency_ms",
    "first_after_idle": "first_after_idle_ms",
    "throughput": "throughput_tokens_per_s",
    "memory": "memory_mib",
    "processor": "processor_cores",
    "availability": "availability",
}
# Values in a row that make a state worse, and better again; a better one lies inside its limit by this share of it.
WORSE, BETTER, SLACK = 3, 5, 0.05


@dataclass(slots=True)
class Judge:
    """One figure's state. `bound` None: it is shown and not judged."""

    bound: Bound | None
    falling: bool = False
    worse: int = WORSE
    better: int = BETTER
    state: State = "unknown"
    _worse: int = 0
    _better: int = 0

    def take(self, value: float | None) -> bool:
        """Take the next value, None where there is none; whether the state changed.

        A value that is missing changes nothing: availability tells of it.
        """
        if self.bound is None or value is None:
            return False
        before = self.state
        if before == "unknown":
            self.state = before = "ok"
        here, level = LEVELS.index(before), self._level(value)
        self._worse = self._worse + 1 if level > here else 0
        self._better = self._better + 1 if here and self._level(value, SLACK) < here else 0
        if self._worse >= self.worse:
            # As bad as the value now; a slow climb passes through the warning.
            self.state, self._worse = LEVELS[level], 0
        elif self._better >= self.better:
            self.state, self._better = LEVELS[self._level(value, SLACK)], 0
        return self.state != before

    def _level(self, value: float, slack: float = 0.0) -> int:
        assert self.bound is not None
        limits = (self.bound.warning, self.bound.alarm)
        if self.falling:
            return sum(value < min(limit * (1 + slack), 1.0 if limit <= 1 else float("inf")) for limit in limits)
        return sum(value > limit * (1 - slack) for limit in limits)


def judges(limits: Limits) -> dict[str, Judge]:
    """A judge for each figure; availability is a mean over canaries already, and waits for no further ones."""
    made = {figure: Judge(getattr(limits, key), key in FALLING) for figure, key in FIGURES.items()}
    made["availability"].worse = made["availability"].better = 1
    return made
