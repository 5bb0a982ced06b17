"""A fleet run's manifest: which board, which scenario, in which state, and where its results lie.

results/fleet/<fleet>/<id>/
    fleet.json               this ledger; whatever happens to the controller, it is whole
    boards/<alias>/          what came back from a board: ordinary run folders
results/fleet/<fleet>/private/
    hosts.json               alias → name in the inventory, mode 600: never published
    ansible.log              what Ansible and ssh said, mode 600
    .lock                    held (flock) by the controller that works

State of a board: `waiting` until something is known of it, then

    unreachable   no link; nothing was begun
    refused       it may not or cannot measure: wrong class, wrong key, busy with another fleet, no room
    running       its run was begun, and lives as far as was seen last
    lost          its run was begun and the link is gone: it goes on by itself
    broken        its run is over before its end (killed, rebooted, disk full); `--resume` goes on with it
    finished      its results are here, checked
    invalid       its results are here, or cannot be taken, and do not count
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.errors import InternalError, RecordError, UsageError
from bench.phrases import counted
from bench.record.documents import keep_document, parsed

LEDGER_VERSION = 1
NAME = "fleet.json"
STATES = ("waiting", "unreachable", "refused", "running", "lost", "broken", "finished", "invalid")
# What may follow what. A run that may be alive is never begun again: from `lost` there is no way back to a start.
AFTER: Mapping[str, tuple[str, ...]] = {
    "waiting": ("waiting", "unreachable", "refused", "running", "lost"),
    "unreachable": ("unreachable", "waiting", "refused", "running", "lost"),
    "refused": ("refused", "waiting", "unreachable", "running", "lost"),
    "running": ("running", "lost", "broken", "finished", "invalid"),
    "lost": ("lost", "running", "broken", "finished", "invalid", "waiting"),
    "broken": ("broken", "waiting", "unreachable", "refused", "running", "lost"),
    "finished": (),
    "invalid": (),
}
# What a board's run was begun in, and what can be begun (again, by --resume).
ALIVE = ("running", "lost")
STARTABLE = ("waiting", "unreachable", "refused", "broken")
OVER = ("finished", "invalid")


@dataclass(slots=True)
class Fate:
    """A scenario on a board: its digest, the exit code of `bench run`, the run's folder below the board's.

    `planned` launches, of which `recorded` are in the record and `repeated` stand there more often than retries allow.
    """

    scenario: str
    digest: str
    exit: int | None = None
    run: str | None = None
    planned: int | None = None
    recorded: int | None = None
    repeated: int | None = None
    reason: str | None = None


@dataclass(slots=True)
class Member:
    """One board of a fleet run. Times are the controller's, ISO 8601; `clock_offset_s` is the board's minus ours.

    `looks` counts how often it was looked at while it measured, each a short shell command.
    """

    alias: str
    state: str = "waiting"
    reason: str | None = None
    host_class: str | None = None
    clock_offset_s: float | None = None
    free_mb: float | None = None
    outcomes: list[Fate] = field(default_factory=list)
    sha256: str | None = None
    size_bytes: int | None = None
    began: str | None = None
    ended: str | None = None
    looks: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(slots=True)
class Account:
    """One play: how many boards it went to, how many seconds it took, the memory of Ansible's processes in MiB."""

    play: str
    boards: int
    seconds: float
    peak_mib: float | None


@dataclass(slots=True)
class Ledger:
    """fleet.json."""

    fleet: str
    id: str
    created: str
    scenarios: dict[str, str]
    members: list[Member]
    serial: int
    quorum: int
    failures: int
    emulated: str | None = None
    versions: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    accounts: list[Account] = field(default_factory=list)
    finished: str | None = None
    schema_version: int = LEDGER_VERSION

    def member(self, alias: str) -> Member:
        """The board of that alias."""
        return next(one for one in self.members if one.alias == alias)

    def of(self, *states: str) -> list[Member]:
        """The boards in any of these states, in the fleet's order."""
        return [one for one in self.members if one.state in states]

    def move(self, alias: str, state: str, reason: str | None = None) -> Member:
        """A board's next state, with its time and why; InternalError where it may not follow."""
        member = self.member(alias)
        if state not in AFTER[member.state]:
            raise InternalError(f"{alias} cannot become {state}: it is {member.state}")
        if (state, reason) != (member.state, member.reason):
            member.history.append({"at": now(), "state": state, "reason": reason})
        member.state, member.reason = state, reason
        if state == "running":
            member.began = member.began or now()
        if state in OVER:
            member.ended = now()
        return member

    def failed(self) -> list[Member]:
        """The boards that count against the failure limit."""
        return self.of("unreachable", "refused", "lost", "broken", "invalid")


def now() -> str:
    """The time as records have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def new_id() -> str:
    """A fleet run's name: the time, and some digits that no other controller draws."""
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def folder_of(results: Path, fleet: str) -> Path:
    """Where a fleet's runs are kept."""
    return results / "fleet" / fleet


def save(folder: Path, ledger: Ledger) -> None:
    """Write it whole or not at all."""
    keep_document(folder / NAME, asdict(ledger))


def load(folder: Path) -> Ledger:
    """A fleet run's ledger; RecordError if it is missing, damaged or of another version."""
    path = folder / NAME
    try:
        document = json.loads(path.read_bytes())
        version = document["schema_version"]
        if version == LEDGER_VERSION:
            return parsed(Ledger, document)
    except FileNotFoundError as error:
        raise RecordError(f"{folder} is no fleet run: it has no {NAME}", hint="bench fleet run fleet.yaml") from error
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise RecordError(f"{path} is damaged: {error}") from error
    raise RecordError(f"{path} has version {version}, this firsttoken reads {LEDGER_VERSION}")


def newest(results: Path, fleet: str) -> Path:
    """The newest run of a fleet; RecordError if there is none."""
    found = sorted(folder_of(results, fleet).glob(f"*/{NAME}"))
    if not found:
        raise RecordError(f"there is no run of the fleet {fleet!r} in {results}", hint="bench fleet run fleet.yaml")
    return found[-1].parent


def unfinished(results: Path, fleet: str, scenarios: Mapping[str, str]) -> Path:
    """The newest run of a fleet, to be gone on with; RecordError if it is over or asked for other scenarios."""
    folder = newest(results, fleet)
    ledger = load(folder)
    if not [one for one in ledger.members if one.state not in OVER]:
        raise RecordError(f"{folder} is over: every board's results are here", hint="without --resume a new one begins")
    if ledger.scenarios != dict(scenarios):
        raise RecordError(
            f"{folder} was begun with other scenarios", hint="undo the change, or start a new run without --resume"
        )
    return folder


@contextmanager
def held(private: Path) -> Iterator[None]:
    """Hold a fleet against other controllers on this machine; UsageError if one has it."""
    private.mkdir(parents=True, exist_ok=True)
    private.chmod(0o700)
    handle = os.open(private / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.pread(handle, 32, 0).decode(errors="replace").strip() or "?"
            raise UsageError(
                f"this fleet is worked with by another command (process {owner})",
                hint="wait for it or stop it; `bench fleet status` shows how far it is",
            ) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(handle)


def told(ledger: Ledger) -> str:
    """A fleet run in a line: 6 boards finished, 1 board lost."""
    counts = {state: len(ledger.of(state)) for state in reversed(STATES)}
    return ", ".join(f"{counted(number, 'board')} {state}" for state, number in counts.items() if number)
