"""Who answers a new request while one engine takes over from another: a state machine without any I/O.

`quick`: the first engine alone. `both`: the second one starts and warms beside it. `draining`: new requests go to the
second, running ones end where they began. `compiled`: the second alone. The next hand-over begins where this one ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

State = Literal["quick", "both", "draining", "compiled"]


@dataclass(slots=True)
class Switch:
    """Engines by name: the one that serves, one that is coming, one that is leaving. `told` hears of each new state."""

    told: Callable[[State], None] = lambda state: None
    serving: str | None = None
    coming: str | None = None
    leaving: str | None = None
    taken_over: bool = False
    running: Counter[str] = field(default_factory=Counter)
    _last: State = "quick"

    @property
    def state(self) -> State:
        """Where the hand-over stands."""
        if self.leaving is not None:
            return "draining"
        if self.coming is not None:
            return "both"
        return "compiled" if self.taken_over else "quick"

    def serve(self, name: str) -> None:
        """The first engine answers."""
        self.serving = name

    def beside(self, name: str) -> None:
        """A second engine starts; a hand-over that is still under way has to end first: ValueError."""
        if self.state in ("both", "draining"):
            raise ValueError(f"{name} cannot come while the state is {self.state}")
        self.coming = name
        self._look()

    def over(self) -> None:
        """The second engine is warm: new requests are its own. ValueError if there is none any more."""
        if self.coming is None:
            raise ValueError("no engine is there to take over")
        first, self.serving, self.coming, self.taken_over = self.serving, self.coming, None, True
        self.leaving = first if first is not None and self.running[first] else None
        self._look()

    def gone(self, name: str) -> None:
        """An engine has died or was given up. Where another is left, that one answers."""
        if name == self.coming:
            self.coming = None
        elif name == self.leaving:
            self.leaving = None
        elif name == self.serving:
            # The first engine is still there for what it began, and so for everything.
            self.serving, self.taken_over = self.leaving, self.taken_over and self.leaving is None
            self.leaving = None
        self._look()

    def begin(self, refused: frozenset[str] = frozenset()) -> str | None:
        """Who gets a new request, of those that have not refused its connection; None if there is nobody."""
        name = next((one for one in (self.serving, self.leaving) if one is not None and one not in refused), None)
        if name is not None:
            self.running[name] += 1
        return name

    def end(self, name: str) -> None:
        """A request that this engine was given is over, however it ended."""
        self.running[name] -= 1
        if name == self.leaving and not self.running[name]:
            self.leaving = None
        self._look()

    def _look(self) -> None:
        if self.state != self._last:
            self._last = self.state
            self.told(self._last)
