"""What a fleet of so many boards would cost, reckoned from what a real fleet run measured of each board."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from statistics import median
from typing import Any

from bench.errors import UsageError
from bench.fleet.ledger import Ledger
from bench.fleet.order import Order
from bench.fleet.plays import FORKS
from bench.home import size
from bench.phrases import counted


@dataclass(frozen=True, slots=True)
class Expected:
    """The cost of a fleet: bytes here, minutes in all, the controller's memory; and what one board took.

    `play_s` is the seconds of controller's time that each play took for one board of the measured run. Ansible's forks
    run side by side, so that it is an upper bound.
    """

    boards: int
    batches: int
    bytes_here: int
    minutes: float
    minutes_measuring: float
    controller_mib: float | None
    board_bytes: int
    board_s: float
    play_s: dict[str, float]
    measured_boards: int

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """As people read it."""
        batches = f"{counted(self.boards, 'board')} in {self.batches} batch{'es' * (self.batches != 1)}"
        yield f"{batches}, reckoned from {self.measured_boards} that were measured"
        yield f"  results     {size(self.bytes_here)} here, {size(self.board_bytes)} a board"
        yield f"  time        {self.minutes:.0f} min, of which boards measure {self.minutes_measuring:.0f} min"
        held = "unknown" if self.controller_mib is None else f"at most {self.controller_mib:.0f} MiB"
        yield f"  controller  {held} of memory, with {min(FORKS, self.boards)} boards at a time"
        yield "  a board     " + ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.play_s.items())


def expect(ledger: Ledger, order: Order, boards: int) -> Expected:
    """What `boards` boards cost by a finished fleet run's measure; UsageError if none of its boards finished."""
    done = [member for member in ledger.of("finished") if member.size_bytes and member.began and member.ended]
    if not done:
        raise UsageError(
            "no board of the newest run of this fleet has finished: there is nothing to reckon from",
            hint="bench fleet run fleet.yaml, with a few boards",
        )
    serial = max(1, order.boards(order.model.serial, boards))
    batches = -(-boards // serial)
    seconds = median(_seconds(member.began, member.ended) for member in done)
    each = int(median(member.size_bytes or 0 for member in done))
    plays = _plays(ledger)
    # While a batch measures, looks cost nothing of its time; what comes before and after each does.
    around = sum(cost for name, cost in plays.items() if name != "poll") * boards
    # An Ansible process a board, so many at a time; what they share is counted with each, which makes it a bound: the
    # closer, the more boards a play went to.
    workers = min(FORKS, boards)
    widest = max((one.boards for one in ledger.accounts if one.peak_mib is not None), default=0)
    held = [
        one.peak_mib / min(FORKS, one.boards)
        for one in ledger.accounts
        if one.peak_mib is not None and one.boards == widest
    ]
    return Expected(
        boards=boards,
        batches=batches,
        bytes_here=each * boards,
        minutes=(seconds * batches + around) / 60,
        minutes_measuring=seconds * batches / 60,
        controller_mib=round(max(held) * workers, 1) if held else None,
        board_bytes=each,
        board_s=seconds,
        play_s=plays,
        measured_boards=len(done),
    )


def _plays(ledger: Ledger) -> dict[str, float]:
    """Seconds that a play took for a board, as a median over its plays."""
    found: dict[str, list[float]] = defaultdict(list)
    for one in ledger.accounts:
        found[one.play].append(one.seconds / one.boards)
    return {name: round(median(values), 2) for name, values in found.items()}


def _seconds(began: str | None, ended: str | None) -> float:
    assert began is not None
    assert ended is not None
    return (datetime.fromisoformat(ended) - datetime.fromisoformat(began)).total_seconds()
