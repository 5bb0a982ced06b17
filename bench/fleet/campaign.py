"""A fleet run from the controller: look at the boards, begin, look how far they are, fetch; never the same thing twice.

Every step is written into the ledger before the next one is taken. A board whose link is gone goes on by itself, and
nobody begins its run again: what is lost is waited for, and what was broken off waits for `--resume`.
"""

from __future__ import annotations

import json
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from bench.errors import BenchError, UsageError
from bench.fleet.accounting import account
from bench.fleet.inventory import FleetBoard, scrubbed
from bench.fleet.ledger import ALIVE, STARTABLE, Fate, Ledger, Member, save, told
from bench.fleet.order import Order
from bench.fleet.parcel import Allowance, ParcelError, digested, unpack
from bench.fleet.plays import PlayAnswer, Plays
from bench.fleet.work import Chore, Errand, Status
from bench.home import Progress
from bench.phrases import counted, listed
from bench.probes.power_mode import matches

TASK_S = 120
# Bytes a second below which a link is taken for dead while results are fetched.
SLOWEST = 50_000
# A clock that is farther off is worth a word; durations are the board's own and do not feel it.
CLOCK_S = 60.0
# Room a board must have to begin, MB.
ROOM_MB = 200.0
VENV = "venv/bin/bench"
_STATUS: TypeAdapter[Status | None] = TypeAdapter(Status | None)


@dataclass
class Campaign:
    """A fleet run under way. `folder` is the run's own, the ledger in it; `sleep` and `clock` are time's."""

    order: Order
    boards: Mapping[str, FleetBoard]
    plays: Plays
    folder: Path
    ledger: Ledger
    tell: Progress = print
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.time
    _gone: dict[str, float] = field(default_factory=dict)

    def run(self) -> None:
        """Everything that is left to do: what is alive is waited for, what may be begun is begun in batches."""
        self.watch(self.ledger.of(*ALIVE))
        fit = self.check(self.ledger.of(*STARTABLE))
        enough = len(fit) + len(self.ledger.of("finished", *ALIVE))
        if enough < self.ledger.quorum:
            self._note(f"{counted(enough, 'board')} fit to measure, {self.ledger.quorum} are asked for: none was begun")
            return
        while fit:
            if len(self.ledger.failed()) > self.ledger.failures:
                left = listed(member.alias for member in fit)
                self._note(f"more than {counted(self.ledger.failures, 'board')} failed: {left} not begun")
                return
            batch, fit = fit[: self.ledger.serial], fit[self.ledger.serial :]
            self.watch(self.start(batch))

    def check(self, members: Sequence[Member]) -> list[Member]:
        """Look at boards; those that are fit to measure. The others become unreachable or refused, with the reason."""
        if self.order.model.provision is not None:
            members = self._provisioned(members)
        asked = self.clock()
        answers = self._play("look", members, self._program())
        heard = self.clock()
        for member in members:
            answer = answers[member.alias]
            if answer.state != "ok" and not answer.said.get("doctor"):
                self._unfit(member, answer)
                continue
            refusal = self._refusal(member, answer, (asked, heard))
            self._move(member, "refused" if refusal else "waiting", refusal)
        save(self.folder, self.ledger)
        return [member for member in members if member.state == "waiting"]

    def start(self, members: Sequence[Member]) -> list[Member]:
        """Begin on these boards; those whose run may be alive now."""
        with tempfile.TemporaryDirectory(prefix="firsttoken-order-") as scratch:
            packed = self._packed(Path(scratch))
            answers = self._play("start", members, {**self._program(), "fleet_order": str(packed)})
        for member in members:
            self._begun(member, answers[member.alias])
        save(self.folder, self.ledger)
        return [member for member in members if member.state in ALIVE]

    def watch(self, members: Sequence[Member]) -> None:
        """Look at boards until each is over, or its link has been gone for too long; fetch what is finished."""
        patience_s = 60 * self.order.model.patience_minutes
        while members := [member for member in members if member.state in ALIVE]:
            self.look(members)
            waited = [member for member in members if member.state in ALIVE and self._waited(member) < patience_s]
            members = waited
            if members:
                self.tell(f"{told(self.ledger)}; the next look in {self.order.model.poll_s:g} s")
                self.sleep(self.order.model.poll_s)

    def look(self, members: Sequence[Member]) -> None:
        """One look at boards whose run was begun; results of those that are over are fetched at once."""
        answers = self._play("poll", members, {})
        over = []
        for member in members:
            answer = answers[member.alias]
            member.looks += 1
            if answer.state != "ok":
                self._gone.setdefault(member.alias, self.clock())
                self._move(member, "lost", f"{answer.reason}; its run goes on by itself")
                continue
            self._gone.pop(member.alias, None)
            status = self._progress(member, answer.said.get("state", ""))
            if status is not None:
                over.append((member, status))
        save(self.folder, self.ledger)
        if over:
            self.collect({member.alias: status for member, status in over})

    def collect(self, over: Mapping[str, Status]) -> None:
        """Fetch, check and unpack what boards have packed; they become finished or invalid."""
        members = [self.ledger.member(alias) for alias in over]
        limit = 1_000_000 * self.order.model.limits.megabytes
        for member in members:
            parcel = over[member.alias].parcel
            assert parcel is not None
            if parcel.size_bytes > limit:
                self._move(
                    member, "invalid", f"its results are {parcel.size_bytes // 1_000_000} MB; `limits` allows less"
                )
        members = [member for member in members if member.state in ALIVE]
        with tempfile.TemporaryDirectory(prefix=".fetched-", dir=self.folder.absolute()) as scratch:
            sizes = [one.parcel.size_bytes for one in over.values() if one.parcel]
            seconds = TASK_S + int(max(sizes, default=0) / SLOWEST)
            answers = self._play("fetch", members, {"fleet_into": scratch, "fleet_fetch_s": seconds})
            for member in members:
                answer, file = answers[member.alias], Path(scratch, f"{member.alias}.tar")
                if answer.state != "ok":
                    self._gone.setdefault(member.alias, self.clock())
                    self._move(member, "lost", f"{answer.reason}; its results are there and not here yet")
                    continue
                self._take(member, over[member.alias], file)
        save(self.folder, self.ledger)

    def _take(self, member: Member, status: Status, file: Path) -> None:
        """A fetched parcel, checked and put in its place."""
        place = self.folder / "boards" / member.alias
        limits = self.order.model.limits
        try:
            assert status.parcel is not None
            digest, size = digested(file)
            if digest != status.parcel.sha256:
                raise ParcelError("what came is not what the board packed: its digest differs")
            place.parent.mkdir(exist_ok=True)
            shutil.rmtree(place, ignore_errors=True)
            unpack(file, place, Allowance(1_000_000 * limits.megabytes, limits.files))
            member.sha256, member.size_bytes = digest, size
            member.outcomes = [account(place, one) for one in self._outcomes(member, status)]
        except (BenchError, OSError) as error:
            self._move(member, "invalid", scrubbed(str(error), self.boards[member.alias]))
            return
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            self._move(member, "invalid", f"its results are damaged ({type(error).__name__})")
            return
        if wrong := [f"{one.scenario}: {one.reason}" for one in member.outcomes if one.reason]:
            self._move(member, "invalid", "; ".join(wrong))
        else:
            self._move(member, "finished", None)

    def _outcomes(self, member: Member, status: Status) -> list[Fate]:
        """What the board says of each scenario that was asked for; which runs there are, its record says itself."""
        said, board = {one.scenario: one for one in status.done}, self.boards[member.alias]
        return [
            Fate(name, digest, one.exit, reason=scrubbed(one.words, board) if one.words else None)
            if (one := said.get(name)) is not None
            else Fate(name, digest)
            for name, digest in self.ledger.scenarios.items()
        ]

    def _progress(self, member: Member, said: str) -> Status | None:
        """What a look has shown; the status of a board whose results can be fetched."""
        lock, holder, free, document = [*said.split("\n", 3), "", "", "", ""][:4]
        member.free_mb = _mb(free)
        try:
            # Strictly: what a board says is taken for nothing but what it should be.
            status = _STATUS.validate_json(document, strict=True)
        except ValidationError:
            self._move(member, "broken", "its status file is damaged")
            return None
        if status is not None and status.ended and status.parcel is not None:
            self._move(member, "running", None)
            return status
        if lock.strip() == "busy" and holder.strip() == self.ledger.id:
            done = sum(one.exit is not None for one in status.done) if status else 0
            self._move(member, "running", f"{done} of {counted(len(self.order.scenarios), 'scenario')} done")
        elif status is None:
            # Its order went over and the link broke before it could say so: it holds no lock and has done nothing.
            self._move(member, "lost", "it was not begun")
            self._move(member, "waiting", "it was not begun: `--resume` begins it")
        else:
            full = ": its disk is full" if member.free_mb is not None and member.free_mb < 1 else ""
            self._move(
                member, "broken", f"its run ended before its end{full}; `bench fleet run --resume` goes on with it"
            )
        return None

    def _begun(self, member: Member, answer: PlayAnswer) -> None:
        if answer.state == "unreachable" or (answer.state != "ok" and answer.task == "begin"):
            # The order may have gone over. Only a look can tell; to begin once more would be to guess.
            certain = answer.task == "order" or answer.task is None
            if certain:
                self._unfit(member, answer)
                return
            self._gone.setdefault(member.alias, self.clock())
            self._move(member, "lost", f"{answer.reason} while it was begun: it may be running")
        elif answer.state != "ok":
            self._unfit(member, answer)
        else:
            try:
                refused = json.loads(answer.said.get("begin", "").strip() or "{}").get("refused")
            except ValueError:
                refused = "?"
            if refused and refused != self.ledger.id:
                self._move(member, "refused", f"it measures for another fleet run ({str(refused)[:40]})")
            else:
                self._move(member, "running", None)

    def _refusal(self, member: Member, answer: PlayAnswer, when: tuple[float, float]) -> str | None:
        """Why a board that answered may not measure; what was learnt of it is noted."""
        model, board = self.order.model, self.boards[member.alias]
        lines = answer.said.get("room", "").split("\n")
        member.clock_offset_s = _offset(lines[0] if lines else "", when)
        member.free_mb = _mb(lines[1] if len(lines) > 1 else "")
        if answer.state != "ok":
            words = answer.said.get("doctor", "").strip().splitlines()
            return f"`bench doctor` does not run there: {scrubbed(words[-1] if words else '', board)[:200]}"
        if len(lines) > 3 and lines[3].strip() == "busy":
            holder = lines[4].strip()[:40] if len(lines) > 4 else "?"
            if holder != self.ledger.id:
                return f"it measures for another fleet run ({holder})"
        if member.free_mb is not None and member.free_mb < ROOM_MB:
            return f"{member.free_mb:.0f} MB of disk are free; {ROOM_MB:.0f} are needed"
        try:
            document = json.loads(answer.said.get("doctor", ""))
            member.host_class = str(document["host_class"])[:80]
        except (ValueError, KeyError, TypeError):
            return "what `bench doctor --json` says there is no diagnosis"
        wanted = [scenario.model.host.class_ for scenario in self.order.scenarios]
        if not all(matches(member.host_class, one) for one in wanted):
            return f"it is {member.host_class}; the scenarios are for {listed(dict.fromkeys(wanted))}"
        if model.classes and not any(matches(member.host_class, one) for one in model.classes):
            return f"it is {member.host_class}; `classes` has {', '.join(model.classes)}"
        return None

    def _provisioned(self, members: Sequence[Member]) -> list[Member]:
        assert self.order.model.provision is not None
        wanted = self.order.model.provision
        wheel = self.order.path.parent / wanted.package
        package = str(wheel.absolute()) if wheel.is_file() else wanted.package
        variables = {"fleet_package": package, "fleet_package_is_file": wheel.is_file(), "fleet_python": wanted.python}
        answers = self._play("provision", members, variables)
        for member in members:
            if answers[member.alias].state != "ok":
                self._unfit(member, answers[member.alias])
        return [member for member in members if answers[member.alias].state == "ok"]

    def _packed(self, scratch: Path) -> Path:
        """The order as one file: order.json, the variables, each scenario with the file of its prompts."""
        model = self.order.model
        tasks = []
        content = scratch / "content"
        for number, scenario in enumerate(self.order.scenarios):
            place = content / "scenarios" / f"{number:02d}"
            place.mkdir(parents=True)
            (place / scenario.path.name).write_text(scenario.text, encoding="utf-8")
            prompts = getattr(scenario.model.workload.prompts, "file", None)
            if prompts is not None and (scenario.base / prompts).is_file():
                (place / prompts).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(scenario.base / prompts, place / prompts)
            tasks.append(Chore(scenario.name, scenario.digest, str((place / scenario.path.name).relative_to(content))))
        job = Errand(self.ledger.id, self.ledger.fleet, tasks, model.emulate, model.install, model.apply)
        (content / "order.json").write_text(json.dumps(asdict(job)), encoding="utf-8")
        if model.environment:
            (content / "environment.json").write_text(json.dumps(model.environment), encoding="utf-8")
            (content / "environment.json").chmod(0o600)
        with tarfile.open(scratch / "order.tar", "w", format=tarfile.USTAR_FORMAT) as archive:
            archive.add(content, ".", filter=_nobodys)
        return scratch / "order.tar"

    def _program(self) -> dict[str, Any]:
        model = self.order.model
        program = model.program or (f"./{VENV}" if model.provision is not None else "bench")
        return {"fleet_program": program, "fleet_emulate": model.emulate or ""}

    def _play(self, name: str, members: Iterable[Member], variables: Mapping[str, Any]) -> dict[str, PlayAnswer]:
        boards = [self.boards[member.alias] for member in members]
        common = {"fleet_job": self.ledger.id, "fleet_task_s": TASK_S}
        return self.plays.play(name, boards, {**common, **variables})

    def _unfit(self, member: Member, answer: PlayAnswer) -> None:
        self._move(member, "refused" if answer.refusal else "unreachable", answer.reason)

    def _move(self, member: Member, state: str, reason: str | None) -> None:
        before = member.state
        self.ledger.move(member.alias, state, reason)
        if state != before:
            self.tell(f"{member.alias}: {state}" + (f": {reason}" if reason else ""))

    def _note(self, words: str) -> None:
        self.ledger.notes.append(words)
        self.tell(words)
        save(self.folder, self.ledger)

    def _waited(self, member: Member) -> float:
        """Seconds since the link was seen to be gone; none while it is there."""
        since = self._gone.get(member.alias)
        return 0.0 if since is None else self.clock() - since


def members_of(boards: Iterable[FleetBoard]) -> list[Member]:
    """The boards as a new ledger has them."""
    return [Member(board.alias) for board in boards]


def boards_of(ledger: Ledger, boards: Sequence[FleetBoard]) -> dict[str, FleetBoard]:
    """Alias → board of a ledger's members; UsageError where the inventory has lost one."""
    found = {board.alias: board for board in boards}
    if lacking := [member.alias for member in ledger.members if member.alias not in found]:
        raise UsageError(
            f"the inventory no longer has {listed(lacking)}",
            hint="put them back, or begin a new fleet run without them",
        )
    return found


def _offset(said: str, when: tuple[float, float]) -> float | None:
    """The board's clock minus ours, seconds: none within the time in which it was asked; None if it said no time."""
    try:
        there = float(said)
    except ValueError:
        return None
    early, late = there - when[0], there - when[1]
    return 0.0 if early >= 0 >= late else round(late if late > 0 else early, 1)


def _mb(kilobytes: str) -> float | None:
    try:
        return round(int(kilobytes) * 1024 / 1e6, 1)
    except ValueError:
        return None


def _nobodys(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = 0
    info.uname = info.gname = ""
    return info
