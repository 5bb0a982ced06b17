"""Ansible at work: a playbook for some boards, and what each of them answered.

Ansible lives in an environment of its own (`bench engines install ansible`) and is driven by ansible-runner's command,
whose events are lines of JSON. Host keys are checked, whatever ansible.cfg says; connections are not kept open, so that
between two looks nothing of Ansible's, nor an ssh session, is left on a board.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, Protocol

import psutil

from bench.errors import EnvironmentFault
from bench.fleet.inventory import FleetBoard
from bench.fleet.ledger import Account
from bench.pipes import write_all

# First come, first served: what stands here wins over ssh's configuration and what an inventory adds.
SSH = (
    "-o StrictHostKeyChecking=yes -o ControlMaster=no -o ControlPath=none"
    " -o ConnectTimeout={connect_s} -o ServerAliveInterval=5 -o ServerAliveCountMax=3"
)
CONNECT_S = 10
FORKS = 50
LOOK_S = 0.5
# What a result may say at most; a board that talks without end is cut short by the play's own time limit.
TEXT = 4_000_000
State = Literal["ok", "failed", "unreachable"]
# ssh's words, and what they mean. What is not here is kept in the private log only.
_MEANINGS = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|host key .* has changed",
        "its host key is not the one that is known",
        True,
    ),
    (r"Host key verification failed|No .*host key is known", "its host key is not known here", True),
    (r"Permission denied", "it lets this user's key not in", True),
    (r"Could not resolve hostname", "its name cannot be resolved", False),
    (r"Connection refused", "nothing answers at its port", False),
    (r"timed out|No route to host|Network is unreachable|banner exchange", "no answer", False),
    (r"closed by|Broken pipe|Connection reset|lost connection", "the link was cut", False),
    (r"No space left on device|Disk quota exceeded", "its disk is full", True),
    (r"Incorrect sudo password|Missing sudo password|a password is required", "it asks for a password of sudo", True),
    (r"File size limit exceeded|File too large", "its results are larger than `limits` allows", True),
)


@dataclass(slots=True)
class PlayAnswer:
    """What one board said to a play: its state, and the output of each task by its name.

    `reason` is in our words. `refusal` says that the board was there and would not: no matter of the link.
    """

    state: State = "unreachable"
    said: dict[str, str] = field(default_factory=dict)
    reason: str | None = "no answer"
    refusal: bool = False
    task: str | None = None


class Plays(Protocol):
    """Whoever can carry a playbook to boards."""

    def play(self, name: str, boards: Sequence[FleetBoard], variables: Mapping[str, Any]) -> dict[str, PlayAnswer]:
        """Carry out the playbook `name`; alias → what the board answered."""
        ...


@dataclass
class Ansible:
    """Ansible over an inventory; `log` is a private file that gets all it says.

    `file_bytes` is the largest file that a board can make it write. `accounts` collects what plays cost here.
    """

    folder: Path
    inventory: Path
    log: Path
    file_bytes: int
    forks: int = FORKS
    connect_s: int = CONNECT_S
    accounts: list[Account] = field(default_factory=list)
    _peak_mib: float | None = None

    def play(self, name: str, boards: Sequence[FleetBoard], variables: Mapping[str, Any]) -> dict[str, PlayAnswer]:
        """Carry out the playbook `name` of this package; alias → what the board answered."""
        if not boards:
            return {}
        begun = time.monotonic()
        aliases = {board.name: board.alias for board in boards}
        answers = {board.alias: PlayAnswer() for board in boards}
        with tempfile.TemporaryDirectory(prefix="firsttoken-fleet-") as scratch:
            given = Path(scratch, "variables.json")
            # In a file, for the command line is everybody's to read.
            _write_private(given, json.dumps({**variables, **_per_board(boards)}))
            said = self._run(Path(scratch), name, list(aliases), given)
        for event in said:
            _take(event, aliases, answers)
        seconds = time.monotonic() - begun
        self.accounts.append(Account(name, len(boards), round(seconds, 2), self._peak_mib))
        return answers

    def _run(self, scratch: Path, name: str, hosts: Sequence[str], given: Path) -> list[dict[str, Any]]:
        with _playbooks() as folder:
            argv = [self.folder / "ansible-runner", "run", scratch / "runner", "--json", "--playbook"]
            argv += [
                folder / f"{name}.yml",
                "--inventory",
                self.inventory.absolute(),
                "--limit",
                _pattern(scratch, hosts),
            ]
            argv += ["--forks", self.forks, "--cmdline", f"-e @{given}"]
            (scratch / "runner").mkdir(mode=0o700)
            out = scratch / "events"
            with out.open("wb") as events, self._logged() as log:
                ran = subprocess.Popen(
                    [str(word) for word in argv],
                    env=self._environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=events,
                    stderr=log,
                    preexec_fn=self._bounded,
                )
                self._peak_mib = _followed(ran)
            found = _events(out)
            self._keep(name, found)
        if not any(event.get("event") == "playbook_on_start" for event in found):
            raise EnvironmentFault(
                f"Ansible did not begin (exit status {ran.returncode}); its own words are in {self.log}",
                hint="bench engines install ansible --force",
            )
        return found

    def _environment(self) -> dict[str, str]:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "ANSIBLE_SSH"))}
        return {
            **kept,
            "PATH": f"{self.folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "ANSIBLE_HOST_KEY_CHECKING": "True",
            "ANSIBLE_SSH_ARGS": SSH.format(connect_s=self.connect_s),
            "ANSIBLE_SSH_TRANSFER_METHOD": "sftp",
            "ANSIBLE_SSH_USETTY": "False",
            "ANSIBLE_SSH_RETRIES": "0",
            "ANSIBLE_PIPELINING": "True",
            "ANSIBLE_RETRY_FILES_ENABLED": "False",
            "ANSIBLE_PYTHON_INTERPRETER": "/usr/bin/python3",
            "ANSIBLE_NOCOLOR": "1",
            "LC_ALL": "C.UTF-8",
        }

    def _bounded(self) -> None:
        """In the child: no file that it or its children write may be larger."""
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.file_bytes, self.file_bytes))

    def _logged(self) -> Any:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        return os.fdopen(handle, "ab", buffering=0)

    def _keep(self, name: str, events: Sequence[Mapping[str, Any]]) -> None:
        """What Ansible would have shown goes to the private log."""
        text = "\n".join(line for event in events if (line := str(event.get("stdout") or "").strip()))
        with self._logged() as log:
            write_all(log.fileno(), f"\n=== {name}\n{text}\n".encode())


def _take(event: Mapping[str, Any], aliases: Mapping[str, str], answers: Mapping[str, PlayAnswer]) -> None:
    """One event of Ansible's, noted with the board that it is about."""
    kind, data = event.get("event"), event.get("event_data") or {}
    alias = aliases.get(str(data.get("host") or ""))
    if alias is None or kind not in ("runner_on_ok", "runner_on_failed", "runner_on_unreachable"):
        return
    answer, result = answers[alias], data.get("res") or {}
    task = str(data.get("task") or "")
    answer.said[task] = str(result.get("stdout") or "")[:TEXT]
    answer.task = task
    if kind == "runner_on_ok" or data.get("ignore_errors"):
        answer.state, answer.reason, answer.refusal = "ok", None, False
        return
    words = " ".join(str(result.get(key) or "") for key in ("msg", "stderr", "stdout", "module_stderr"))
    answer.reason, answer.refusal = _meaning(words, task)
    answer.state = "unreachable" if kind == "runner_on_unreachable" else "failed"


def _meaning(words: str, task: str) -> tuple[str, bool]:
    for pattern, meaning, refusal in _MEANINGS:
        if re.search(pattern, words, re.IGNORECASE):
            return meaning, refusal
    return f"`{task}` failed there (private/ansible.log has the words)", True


def _per_board(boards: Sequence[FleetBoard]) -> dict[str, Any]:
    """What playbooks know of each board, by its name in the inventory."""
    return {"fleet_boards": {board.name: {"alias": board.alias, "folder": board.folder} for board in boards}}


def _pattern(scratch: Path, hosts: Sequence[str]) -> str:
    """The hosts meant, from a file: five hundred names are too much for a command line, and a name is no pattern."""
    file = scratch / "hosts.txt"
    _write_private(file, "\n".join(hosts) + "\n")
    return f"@{file}"


def _events(file: Path) -> list[dict[str, Any]]:
    found = []
    with file.open("rb") as lines:
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                found.append(event)
    return found


def _write_private(file: Path, text: str) -> None:
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        out.write(text)


def _playbooks() -> Any:
    from importlib.resources import as_file

    return as_file(files("bench.fleet") / "playbooks")


def _followed(process: subprocess.Popen[bytes]) -> float | None:
    """Wait for Ansible; the most memory that it and its children held together, MiB (proportional set size: pages that
    they share count once), as a look now and then saw it. Null where it was over before the first look."""
    peak: float | None = None
    try:
        while True:
            try:
                process.wait(LOOK_S)
                return peak
            except subprocess.TimeoutExpired:
                held = _held_mib(process.pid)
                peak = held if peak is None or held > peak else peak
    except BaseException:
        # Its own children end with their connections; what was begun on boards goes on.
        process.terminate()
        process.wait()
        raise


def _held_mib(pid: int) -> float:
    total = 0.0
    with suppress(psutil.Error):
        leader = psutil.Process(pid)
        for one in (leader, *leader.children(recursive=True)):
            with suppress(psutil.Error):
                total += one.memory_full_info().pss / 2**20
    return round(total, 1)
