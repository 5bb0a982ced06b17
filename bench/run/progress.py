"""What a run tells whoever watches it. The conductor speaks; the terminal, or nobody, listens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from bench.record.launches import LaunchRecord
from bench.record.manifest import PlannedLaunch


class Progress(Protocol):
    """Called in order: `preparing`…, then per launch `launch`, `phase`…, `requests`…, `finished`."""

    def preparing(self, what: str) -> None:
        """Something before the first launch: a fetch, a self-check."""
        ...

    def launch(self, planned: PlannedLaunch, number: int, of: int, attempt: int) -> None:
        """A launch begins; `number` counts from 1."""
        ...

    def phase(self, name: str) -> None:
        """The launch enters a phase: starting, warming up, measuring, stopping."""
        ...

    def requests(self, done: int, of: int) -> None:
        """Requests answered within the phase."""
        ...

    def finished(self, record: LaunchRecord) -> None:
        """The launch is on disk."""
        ...

    def note(self, text: str) -> None:
        """A sentence worth reading: a launch repeated, a block left out."""
        ...


@dataclass(frozen=True, slots=True)
class Silent:
    """Progress that nobody watches."""

    def preparing(self, what: str) -> None:
        """Say nothing."""

    def launch(self, planned: PlannedLaunch, number: int, of: int, attempt: int) -> None:
        """Say nothing."""

    def phase(self, name: str) -> None:
        """Say nothing."""

    def requests(self, done: int, of: int) -> None:
        """Say nothing."""

    def finished(self, record: LaunchRecord) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""
