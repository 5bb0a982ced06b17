"""On a board: the scenarios of an order, one after the other, in the very process that measures them.

The process is `bench fleet work JOB`; it calls `bench run` for each scenario, and there is no other one of the fleet's
while it measures. It holds the lock `busy` of the fleet's folder, so that a second fleet, and a second start of the
same order, are refused. How far it is stands in `status.json`, always whole; results are packed when all is over.

jobs/<id>/
    order.json, scenarios/    what to do; environment.json (mode 600): variables for the runs
    begun                     that it holds the lock, or why it does not
    status.json               how far it is
    results/                  ordinary run folders
    parcel.tar                all of them, packed; its digest is in status.json
    work.log                  what `bench run` said
"""

from __future__ import annotations

import fcntl
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bench.errors import Exit, RecordError
from bench.fleet.parcel import Parcel, pack
from bench.phrases import is_full, unread, unwritten
from bench.record.documents import keep_text, parsed, read_launch, read_manifest, write_document

# A look at the board takes the lock for a moment: that is no other fleet.
PATIENCE_S = 5.0
STATUS, BEGUN, PARCEL = "status.json", "begun", "parcel.tar"
# Calls `bench` with these words; the exit code. Handed down by the command, which lies above.
Call = Callable[[Sequence[str]], int]


@dataclass(slots=True)
class Chore:
    """A scenario to run: its name, its digest, its file below the job's folder."""

    scenario: str
    digest: str
    file: str


@dataclass(slots=True)
class Errand:
    """order.json."""

    id: str
    fleet: str
    tasks: list[Chore]
    emulate: str | None = None
    install: bool = False
    apply: bool = False


@dataclass(slots=True)
class Done:
    """What became of a scenario: the exit code of `bench run`, its run's folder below `results`, its last words."""

    scenario: str
    digest: str
    exit: int | None = None
    run: str | None = None
    words: str | None = None


@dataclass(slots=True)
class Status:
    """status.json; `ended` once every scenario has been run and the results are packed."""

    id: str
    done: list[Done] = field(default_factory=list)
    ended: bool = False
    parcel: Parcel | None = None


def read_job(folder: Path) -> Errand:
    """A job's order; RecordError if it is missing or damaged."""
    path = folder / "order.json"
    try:
        return parsed(Errand, json.loads(path.read_bytes()))
    except OSError as error:
        raise RecordError(unread(path, error)) from error
    except (ValueError, TypeError, AttributeError) as error:
        raise RecordError(f"{path} is damaged: {error}") from error


def work(folder: Path, call: Call) -> Exit:
    """Carry out a job, or go on with it; PASS when every scenario has been run and the results are packed."""
    job = read_job(folder)
    with _busy(folder.parents[1] / "busy", job) as holder:
        if holder is not None:
            keep_text(folder / BEGUN, json.dumps({"refused": holder}) + "\n")
            return Exit.USAGE
        keep_text(folder / BEGUN, json.dumps({"pid": os.getpid()}) + "\n")
        status = _status(folder, job)
        try:
            return _through(folder, job, status, call)
        except OSError as error:
            if not is_full(error):
                raise
            # Nothing more can be written; who looks sees a run that is over before its end, and the disk's room.
            print(f"bench: {unwritten(folder, error)}", file=sys.stderr)
            return Exit.USAGE


def _through(folder: Path, job: Errand, status: Status, call: Call) -> Exit:
    os.environ.update(_environment(folder))
    for task in job.tasks:
        done = next(one for one in status.done if one.scenario == task.scenario)
        if done.exit is None and (whole := _complete(folder, task)) is not None:
            # It was over when this process was ended before it could say so: a second run would be one too many.
            done.run, done.exit = whole
        elif done.exit is None:
            code = call(_words(folder, job, task))
            done.run = _newest(folder, task.scenario)
            if code == Exit.INTERRUPTED:
                write_document(folder / STATUS, asdict(status))
                return Exit.INTERRUPTED
            done.exit = code
            done.words = _last_words(folder) if code not in (Exit.PASS, Exit.INVALID) else None
        write_document(folder / STATUS, asdict(status))
    status.parcel = pack(folder / "results", folder / PARCEL)
    status.ended = True
    write_document(folder / STATUS, asdict(status))
    return Exit.PASS


def _words(folder: Path, job: Errand, task: Chore) -> list[str]:
    words = ["run", str(folder / task.file), "--results", str(folder / "results"), "--resume-if-any", "--no-report"]
    words += ["--emulate", job.emulate] if job.emulate else []
    words += ["--install"] if job.install else []
    return [*words, "--apply"] if job.apply else words


def _status(folder: Path, job: Errand) -> Status:
    """How far an earlier process of this job came; nothing yet, if it left nothing whole."""
    (folder / "results").mkdir(exist_ok=True)
    with suppress(OSError, ValueError, TypeError, AttributeError):
        status = parsed(Status, json.loads((folder / STATUS).read_bytes()))
        for done in status.done:
            # What was refused (a full disk) is tried anew, for this process was begun by somebody who mended it.
            if not status.ended and done.exit not in (Exit.PASS, Exit.INVALID):
                done.exit = done.words = None
        return status
    status = Status(job.id, [Done(task.scenario, task.digest) for task in job.tasks])
    write_document(folder / STATUS, asdict(status))
    return status


def _environment(folder: Path) -> Mapping[str, str]:
    with suppress(FileNotFoundError):
        found: dict[str, str] = json.loads((folder / "environment.json").read_bytes())
        return found
    return {}


def _complete(folder: Path, task: Chore) -> tuple[str, int] | None:
    """A complete run of a scenario, and the code with which `bench run` ends for such a one."""
    for path in sorted((folder / "results" / task.scenario).glob("[!.]*/manifest.json"), reverse=True):
        manifest = read_manifest(path.parent)
        if manifest.state == "complete" and manifest.scenario_digest == task.digest:
            launches = (read_launch(one) for one in (path.parent / "launches").glob("[!.]*/"))
            counts = any(launch.status == "ok" for launch in launches)
            return f"{task.scenario}/{path.parent.name}", int(Exit.PASS if counts else Exit.INVALID)
    return None


def _last_words(folder: Path) -> str | None:
    """What `bench run` said last when it refused, from the job's log."""
    with suppress(OSError):
        lines = (folder / "work.log").read_text(encoding="utf-8", errors="replace")[-20_000:].splitlines()
        begin = next((at for at in range(len(lines) - 1, -1, -1) if lines[at].startswith("bench: ")), len(lines) - 3)
        return "\n".join(lines[max(begin, 0) :])[:1000].removeprefix("bench: ") or None
    return None


def _newest(folder: Path, scenario: str) -> str | None:
    found = sorted((folder / "results" / scenario).glob("[!.]*/manifest.json"))
    return f"{scenario}/{found[-1].parent.name}" if found else None


@contextmanager
def _busy(file: Path, job: Errand) -> Iterator[str | None]:
    """Hold the board against other fleets; whoever has it, if it is had."""
    handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        end = time.monotonic() + PATIENCE_S
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    yield os.pread(handle, 200, 0).decode(errors="replace").strip() or "?"
                    return
                time.sleep(0.1)
        os.ftruncate(handle, 0)
        os.pwrite(handle, job.id.encode(), 0)
        yield None
    finally:
        os.close(handle)
