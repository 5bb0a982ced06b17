"""Which launch is next: the plan in order, what is invalid once more within its budget, until the blocks are enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.plan.blocks import Plan
from bench.plan.budget import TimeLimit, another_fits
from bench.record.launches import LaunchRecord
from bench.record.manifest import PlannedLaunch

# Both see the run's folder, so that they judge what is on disk and nothing else.
StopRule = Callable[[Path], str | None]
Retire = Callable[[Path], Mapping[str, str]]
# From a variant about to be launched: why neither it nor any later one is.
Fits = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try at a planned launch, the `number`th of `of` in the plan; tries and launches count from 1."""

    planned: PlannedLaunch
    number: int
    of: int
    attempt: int = 1

    @property
    def id(self) -> str:
        """Folder name of the launch; the plan's own for the first try."""
        return self.planned.id if self.attempt == 1 else f"{self.planned.id}~{self.attempt}"


@dataclass(frozen=True, slots=True)
class Endings:
    """Judgements that end a run, or a variant's part in it, before its plan does.

    `stop` says why the blocks so far are enough, `retire` which variants need no more of them, and why, and `fits` why
    no further launch begins, asked before each.
    """

    stop: StopRule | None = None
    retire: Retire | None = None
    fits: Fits | None = None


class Blocks:
    """Whether another block begins, and who takes part in it; asked once between two blocks, which it times.

    `note` is told in a sentence whatever leaves a part of the plan out.
    """

    def __init__(
        self,
        folder: Path,
        note: Callable[[str], None],
        *,
        limits: Sequence[TimeLimit] = (),
        endings: Endings = Endings(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.seconds: list[float] = []
        self.retired: dict[str, str] = {}
        self._folder, self._note = folder, note
        self._limits, self._endings = limits, endings
        self._clock = clock
        self._began = clock()

    def another(self, block: int) -> bool:
        """Whether this block, counted from 0 and not the first, begins; those who leave are in `retired` then."""
        self.seconds.append(self._clock() - self._began - sum(self.seconds))
        if reason := self._enough():
            self._note(f"stopped before block {block + 1}: {reason}")
            return False
        for why, names in self._leaving().items():
            self._note(f"not launched from block {block + 1} on: {', '.join(names)} ({why})")
        return True

    def admits(self, attempt: Attempt) -> bool:
        """Whether this launch, which is not on the disk yet, begins; if not, none after it does."""
        fits = self._endings.fits
        reason = fits(attempt.planned.variant) if fits else None
        if reason:
            self._note(f"stopped before {attempt.id}: {reason}")
        return not reason

    def _enough(self) -> str | None:
        if self._endings.stop is not None and (reason := self._endings.stop(self._folder)):
            return reason
        tight = next((limit for limit in self._limits if not another_fits(self.seconds, limit.minutes)), None)
        return f"another block would not end within {tight.name}" if tight else None

    def _leaving(self) -> dict[str, list[str]]:
        """Who leaves now, by the reason."""
        told = self._endings.retire(self._folder) if self._endings.retire else {}
        leaving: dict[str, list[str]] = {}
        for name, why in told.items():
            if name not in self.retired:
                leaving.setdefault(why, []).append(name)
                self.retired[name] = why
        return leaving


def attempts(
    plan: Plan, done: Mapping[str, LaunchRecord], blocks: Blocks, retries: int, say: Callable[[str], None]
) -> Iterator[Attempt]:
    """The launches that are not in `done`, in order; each must be there, by its id, before the next is asked for.

    `say` is told what becomes of the invalid ones.
    """
    # By variant: what a launch stayed invalid for although it was repeated. Repeating it again would only cost time.
    settled: dict[str, str | None] = {}
    for number, planned in enumerate(plan.launches, 1):
        if planned.position == 0 and planned.block > 0 and not blocks.another(planned.block):
            return
        if planned.variant not in blocks.retired:
            for attempt in _tries(Attempt(planned, number, len(plan.launches)), done, settled, retries, say):
                if not blocks.admits(attempt):
                    return
                yield attempt


def _tries(
    first: Attempt,
    done: Mapping[str, LaunchRecord],
    settled: dict[str, str | None],
    retries: int,
    say: Callable[[str], None],
) -> Iterator[Attempt]:
    """One planned launch until it is valid, or invalid for good."""
    variant, kind = first.planned.variant, None
    for attempt in (replace(first, attempt=number) for number in range(1, retries + 2)):
        if attempt.id not in done:
            yield attempt
        record = done[attempt.id]
        kind = record.reason_kind
        if record.status != "invalid":
            settled.pop(variant, None)
            return
        if settled.get(variant) == kind:
            say(f"{attempt.id} is invalid as before ({record.reason}) and is not repeated")
            return
        if attempt.attempt <= retries:
            say(f"{attempt.id} is invalid ({record.reason}) and is repeated")
    settled[variant] = kind
