"""Keeps one engine serving: weights checked before the start, ready when its first token is warm, restarted in limits.

Standard library only, one file: a deployed folder carries a copy beside `ready.py` and `service.json`, which says all.
Under systemd (Type=notify) it says READY=1 itself, and with --once leaves restarts and logs to it.

    python3 serve.py [--port 8000] [--once] [--owner PID]
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).resolve().parent
PYTHON = sys.executable
# sysexits.h: something in the configuration is wrong, and starting again would not mend it.
CONFIGURATION = 78
FAILED = 1
PR_SET_PDEATHSIG = 1
LOOK_S = 0.2
_PLACE = re.compile(r"\{(port|folder|caches|model|programs)\}")


class Refused(Exception):
    """Why nothing is started; no restart would help."""


def say(message: str) -> None:
    """One line for whoever started it."""
    with contextlib.suppress(OSError):
        print(f"serve: {message}", file=sys.stderr, flush=True)


def notify(state: str) -> None:
    """Tell systemd, where it listens (sd_notify(3)); nothing happens elsewhere."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        sock.connect("\0" + address[1:] if address.startswith("@") else address)
        sock.sendall(state.encode())


def check(settings: Mapping[str, Any], state: Path) -> None:
    """Refuse weights and environments that are not those that were measured.

    Every byte is read at the first start, and again when a file's size, time or inode has changed since.
    """
    model, seen_file = settings["model"], state / "verified.json"
    try:
        seen = json.loads(seen_file.read_text())
    except (OSError, ValueError):
        seen = {}
    found = {}
    for name, wanted in model["files"].items():
        path = Path(model["path"], name) if model["folder"] else Path(model["path"])
        try:
            now = path.stat()
            mark = [now.st_size, now.st_mtime_ns, now.st_ino, wanted]
            if seen.get(name) != mark and sha256(path) != wanted:
                raise Refused(
                    f"{path} is not what was measured: its sha256 differs from {wanted[:12]}… in service.json"
                )
        except OSError as error:
            raise Refused(f"{path} cannot be read: {error.strerror}") from None
        found[name] = mark
    with contextlib.suppress(OSError):
        seen_file.write_text(json.dumps(found))
    environment = settings["environment"]
    if environment and (now_is := packages(Path(environment["path"]))) != environment["digest"]:
        raise Refused(
            f"{environment['path']} has other packages than were measured (digest {now_is[:12]}…, "
            f"not {environment['digest'][:12]}…)"
        )


def sha256(path: Path) -> str:
    """A file's checksum, read piece by piece."""
    total = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            total.update(piece)
    return total.hexdigest()


def packages(environment: Path) -> str:
    """A digest of what is installed in a virtual environment: names and versions, by its metadata folders."""
    names = sorted(
        entry.name
        for folder in environment.glob("lib/python3*/site-packages")
        for entry in folder.iterdir()
        if entry.name.endswith((".dist-info", ".egg-info"))
    )
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def secrets(file: Path) -> dict[str, str]:
    """NAME=value lines; comments and empty values are left out. No file, no secrets."""
    try:
        lines = file.read_text().splitlines()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise Refused(f"{file} cannot be read: {error.strerror}") from None
    pairs = (line.strip().partition("=") for line in lines if "=" in line and not line.lstrip().startswith("#"))
    return {name.strip(): value.strip().strip("\"'") for name, _, value in pairs if value.strip()}


class Log:
    """The engine's output in a file that is turned over by size. A full disk loses lines, never the engine."""

    def __init__(self, path: Path, most_bytes: int, files: int) -> None:
        self._path, self._most, self._files = path, most_bytes, files
        self._file: IO[bytes] | None = None

    def drain(self, source: IO[bytes]) -> None:
        """Write all that comes until it ends."""
        try:
            while piece := source.read1(1 << 16):  # type: ignore[attr-defined]
                with contextlib.suppress(OSError):
                    self._write(piece)
        finally:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _write(self, piece: bytes) -> None:
        if self._file is None or self._file.tell() + len(piece) > self._most:
            self._turn()
        assert self._file is not None
        self._file.write(piece)

    def _turn(self) -> None:
        if self._file is not None:
            self._file.close()
            for number in range(self._files - 1, 0, -1):
                older = self._named(number - 1)
                if older.exists():
                    older.replace(self._named(number))
        self._file = self._path.open("ab", buffering=0)

    def _named(self, number: int) -> Path:
        return self._path if number == 0 else self._path.with_name(f"{self._path.name}.{number}")


class Service:
    """One engine at a time, ended with its whole process group."""

    def __init__(self, settings: Mapping[str, Any], port: int, once: bool) -> None:
        self.settings, self.port, self.once = settings, port, once
        self.ending = threading.Event()
        self.child: subprocess.Popen[bytes] | None = None
        log = settings["log"]
        self.log = None if once else Log(HERE / "logs" / "engine.log", log["bytes"], log["files"])

    def run(self) -> int:
        """Serve until told to end, or until restarting makes no sense; the exit code."""
        limit, starts = self.settings["restarts"], []
        while True:
            starts.append(time.monotonic())
            code = self._serve()
            if self.ending.is_set():
                return 0
            if self.once:
                return code
            recent = [start for start in starts if time.monotonic() - start < limit["within_s"]]
            if len(recent) > limit["most"]:
                say(f"gave up: {len(recent)} starts within {limit['within_s']} s")
                return code
            say(f"starting again in {limit['pause_s']} s")
            if self.ending.wait(limit["pause_s"]):
                return 0
            starts = recent

    def end(self, *_: object) -> None:
        """Told to end: by a signal."""
        self.ending.set()

    def outlived_by(self, owner: int) -> None:
        """Wait until the process is gone that this was started for, and end."""
        while Path(f"/proc/{owner}").exists():
            time.sleep(LOOK_S)
        self.end()

    def _serve(self) -> int:
        with contextlib.suppress(OSError):
            (HERE / "state" / "ready").unlink()
        with socket.socket() as probe:
            if probe.connect_ex((self.settings["host"], self.port)) == 0:
                say(f"port {self.port} is already taken")
                return FAILED
        began = time.monotonic()
        self.child = self._spawn()
        try:
            gate = self._gate()
            while self.child.poll() is None and gate.poll() is None and not self.ending.is_set():
                time.sleep(LOOK_S)
            if gate.poll() is None:
                gate.kill()
            ready = gate.wait() == 0
            if self.ending.is_set():
                return 0
            if self.child.poll() is not None:
                say(f"the engine ended before it was ready ({_ending(self.child.returncode)})")
                return FAILED
            if not ready:
                say("not ready in time: stopping it")
                return FAILED
            say(f"ready  http://{self.settings['host']}:{self.port}/v1  after {time.monotonic() - began:.1f} s")
            with contextlib.suppress(OSError):
                (HERE / "state" / "ready").write_text(f"{self.child.pid}\n")
            notify(f"READY=1\nSTATUS=serving on port {self.port}")
            while self.child.poll() is None and not self.ending.is_set():
                time.sleep(LOOK_S)
            if self.ending.is_set():
                return 0
            say(f"the engine ended ({_ending(self.child.returncode)})")
            return FAILED
        finally:
            self._stop()

    def _spawn(self) -> subprocess.Popen[bytes]:
        argv = [self._filled(word) for word in self.settings["argv"]]
        env = {name: self._filled(value) for name, value in self.settings["env"].items()}
        inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "NOTIFY_SOCKET")}
        (HERE / "caches").mkdir(exist_ok=True)
        try:
            child = subprocess.Popen(
                argv,
                cwd=HERE / "state",
                env={**inherited, **env, **secrets(HERE / "secrets.env")},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if self.log else None,
                stderr=subprocess.STDOUT if self.log else None,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        except OSError as error:
            raise Refused(f"{argv[0]} cannot be started: {error.strerror}") from None
        if self.log:
            threading.Thread(target=self.log.drain, args=(child.stdout,), daemon=True).start()
        return child

    def _gate(self) -> subprocess.Popen[bytes]:
        how = self.settings["ready"]
        words = [PYTHON, str(HERE / "ready.py"), f"http://{self.settings['host']}:{self.port}"]
        words += ["--timeout", str(how["timeout_s"]), "--words", str(how["words"])]
        for option in ("within_ms", "path", "model", "key_env"):
            if how.get(option) is not None:
                words += [f"--{option.replace('_', '-')}", str(how[option])]
        words += ["--warm-up", *how["warmup"]]
        return subprocess.Popen(
            words, env={**os.environ, **secrets(HERE / "secrets.env")}, stdout=sys.stderr, preexec_fn=_die_with_parent
        )

    def _stop(self) -> None:
        assert self.child is not None
        group, patience = self.child.pid, self.settings["stop_timeout_s"]
        if self.child.poll() is None:
            notify("STOPPING=1")
            with contextlib.suppress(ProcessLookupError):
                self.child.send_signal(getattr(signal, self.settings["stop_signal"]))
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(patience)
        # Whatever it left behind, and itself if it did not listen.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
        self.child.wait()

    def _filled(self, word: str) -> str:
        places = {
            "port": str(self.port),
            "folder": str(HERE / "state"),
            "caches": str(HERE / "caches"),
            "programs": str(HERE / "programs"),
            "model": self.settings["model"]["path"],
        }
        return _PLACE.sub(lambda match: str(places[match[1]]), word)


def _ending(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


def _die_with_parent() -> None:
    """Called in the child: an engine whose keeper was killed must not hold its port and memory for ever."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> int:
    """Check, start, keep; 0 told to end, 1 failed, 78 wrong configuration."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--port", type=int, help="instead of the port in service.json")
    parser.add_argument("--once", action="store_true", help="no restarts and no log files: systemd has its own")
    parser.add_argument("--owner", type=int, metavar="PID", help="end when that process is gone")
    chosen = parser.parse_args()
    try:
        settings = json.loads((HERE / "service.json").read_text())
        (HERE / "state").mkdir(exist_ok=True)
        (HERE / "logs").mkdir(exist_ok=True)
        service = Service(settings, chosen.port or settings["port"], chosen.once)
        signal.signal(signal.SIGTERM, service.end)
        signal.signal(signal.SIGINT, service.end)
        if chosen.owner:
            threading.Thread(target=service.outlived_by, args=(chosen.owner,), daemon=True).start()
        check(settings, HERE / "state")
        return service.run()
    except Refused as error:
        say(f"refused: {error}")
        return CONFIGURATION
    except (OSError, ValueError, LookupError) as error:
        say(f"refused: {HERE / 'service.json'} or its folder is damaged: {error}")
        return CONFIGURATION


if __name__ == "__main__":
    sys.exit(main())
