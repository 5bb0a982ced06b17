"""One engine on disk: written by CRIU once it was warm, and woken from there at every launch.

What a restored process finds must be as it was: its process ids and its port free, its working folder and its temporary
files with the bytes that they had. The engine's two streams are the only thing that is another: pipes to its guardian.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.engines import ports, server_process
from bench.engines.engine import LaunchSpec
from bench.engines.origin import MARK
from bench.engines.parent import CannotFork
from bench.home import clear
from bench.probes.snapshots import Ability
from bench.record.launches import ImageAccount

# Within an image's folder: CRIU's files, where the engine works, and what that and its temporary folder held.
DUMP, WORK, KEPT, SCRATCH = "criu", "work", "kept", "scratch"
DOCUMENT = "image.json"
# CRIU answers for both directions: connections that processes of the engine hold with one another, and locks on files.
BOTH = ("--tcp-established", "--file-locks", "-v2")
RESTORE_S = 300.0


@dataclass(eq=False, slots=True)
class Image:
    """An image and how it came to be. `told` is its document: identity, model, mark, scratch, port, pid, tasks, pipes,
    events, seconds, bytes; `refused` says what was wrong with the one that was there before.
    """

    name: str
    folder: Path
    able: Ability
    told: Mapping[str, Any]
    refused: str | None = None
    restores: int = 0

    @property
    def pid(self) -> int:
        """The engine's process in it."""
        return int(self.told["pid"])

    @property
    def alive(self) -> bool:
        """Whether its files are still there."""
        return (self.folder / DOCUMENT).is_file()

    def evidence(self) -> dict[str, Any]:
        """Put back what the engine left open; what a launch records. CannotFork where its place is taken."""
        for task in self.told["tasks"]:
            if os.path.exists(f"/proc/{task}"):  # noqa: PTH110 (a thread's id is no entry of the folder)
                raise CannotFork(f"process id {task} of the image is in use")
        if ports.is_open("127.0.0.1", self.told["port"], timeout_s=0.5):
            raise CannotFork(f"port {self.told['port']} of the image is taken")
        for kept, place in ((WORK, self.folder / WORK), (SCRATCH, Path(self.told["scratch"]))):
            clear(place)
            shutil.copytree(self.folder / KEPT / kept, place, symlinks=True)
        clear(self.folder / "pid")
        account = ImageAccount(
            name=self.name,
            seconds=self.told["seconds"],
            mib=self.told["bytes"] / 2**20,
            restores=self.restores,
            pid=self.told["pid"],
            criu=self.told["identity"]["criu"],
            refused=self.refused,
        )
        return {"mode": "restored", "image": account}

    def guardian(self) -> subprocess.Popen[bytes]:
        """A guardian of its own, as for any new program."""
        self.restores += 1
        return guardian()

    def order(self, spawn_ns: int | None) -> dict[str, Any]:
        """What its guardian is to do in the place of executing the engine."""
        del spawn_ns
        log = self.folder / "restore.log"
        clear(log)
        inherited = [
            word for fd, pipe in enumerate(self.told["pipes"], 1) for word in ("--inherit-fd", f"fd[{fd}]:{pipe}")
        ]
        place, pidfile = str(self.folder / DUMP), str(self.folder / "pid")
        words = ["restore", "-D", place, "-o", str(log), "-d", "-S", "--pidfile", pidfile, *BOTH, *inherited]
        return {
            "argv": [self.able.words_to_call[0], *words, *self.able.words_to_call[1:]],
            "env": {"PATH": os.environ.get("PATH", os.defpath), MARK: self.told["mark"]},
            "cwd": str(self.folder),
            "scratch": self.told["scratch"],
            "removal": [],
            "restored": {"pidfile": pidfile, "log": str(log), "timeout_s": RESTORE_S},
        }

    def settled(self, spec: LaunchSpec) -> LaunchSpec:
        """The launch as the image answers for it: its port, and the file of its own events."""
        events = spec.events_file and self.folder / WORK / spec.events_file.name
        return replace(spec, endpoint=replace(spec.endpoint, port=self.told["port"]), events_file=events)

    def discard(self) -> None:
        """Remove it from the disk."""
        clear(self.folder)

    def close(self) -> None:
        """Nothing: it is kept for other runs."""


def guardian() -> subprocess.Popen[bytes]:
    """A process that will guard one launch, and hears which through its standard input."""
    return subprocess.Popen(
        [sys.executable, "-S", "-E", "-B", server_process.__file__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def dump(able: Ability, pid: int, folder: Path, timeout_s: float) -> None:
    """Write a process and all below it to disk, which ends them; CannotFork with CRIU's own words if it cannot."""
    log = folder / "dump.log"
    place = folder / DUMP
    place.mkdir()
    words = ["dump", "-t", str(pid), "-D", str(place), "-o", str(log), "--ghost-limit", "256M", *BOTH]
    program, *rights = able.words_to_call
    try:
        done = subprocess.run(
            [program, *words, *rights], capture_output=True, stdin=subprocess.DEVNULL, timeout=timeout_s, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CannotFork(f"criu could not write the image: {error}") from error
    if done.returncode:
        why = server_process.last_error(str(log)) or done.stderr.decode("utf-8", "replace").strip()[-200:]
        raise CannotFork(f"criu could not write the image: {why or f'exit {done.returncode}'}", final=True)


def read(folder: Path) -> dict[str, Any] | None:
    """An image's document; None where there is none, or half of one."""
    with contextlib.suppress(OSError, ValueError):
        found: dict[str, Any] = json.loads((folder / DOCUMENT).read_text(encoding="utf-8"))
        return found
    return None
