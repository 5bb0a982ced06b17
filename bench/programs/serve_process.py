"""Keeps one engine serving: weights checked before the start, ready when its first token is warm, restarted in limits.

Standard library only, one file: a deployed folder carries a copy beside `ready.py` and `service.json`, which says all.
Under systemd (Type=notify) it says READY=1 itself, and with --once leaves restarts and logs to it.

    python3 serve.py [--port 8000] [--once] [--owner PID]

Where `front` stands in service.json, several instances are kept behind one nginx, each by a keeper like this one.
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
OOM_SCORE_ADJ = "500"
# Removing a container waits for the kernel to end what is in it.
REMOVE_S = 20.0
_PLACE = re.compile(r"\{(port|folder|caches|model|programs|service)\}")


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
    for environment in settings["environments"]:
        if (now_is := packages(Path(environment["path"]))) != environment["digest"]:
            raise Refused(
                f"{environment['path']} has other packages than were measured (digest {now_is[:12]}…, "
                f"not {environment['digest'][:12]}…)"
            )


def check_image(settings: Mapping[str, Any]) -> None:
    """Refuse an image that is not the one that was measured; nothing to do where the engine runs in none."""
    container = settings.get("container")
    if not container:
        return
    words = [container["program"], "image", "inspect", "--format", "{{.Id}}", container["image"]]
    try:
        done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    except OSError as error:
        raise Refused(f"{words[0]} cannot be started: {error.strerror}") from None
    found = f"sha256:{done.stdout.strip().removeprefix('sha256:')}"
    if done.returncode:
        raise Refused(f"the image {container['image']} is not here: {_last(done.stderr)}")
    if found != container["id"]:
        wanted = container["id"]
        raise Refused(f"the image {container['image']} is not what was measured: {found[:19]}…, not {wanted[:19]}…")


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
    """One engine at a time, ended with its whole process group. `place` is where its marks and temporary files lie.

    Its output goes to `log`, or where this program's own goes if that is None.
    """

    def __init__(self, settings: Mapping[str, Any], port: int, place: Path, log: Log | None, once: bool) -> None:
        self.settings, self.port, self.place, self.log, self.once = settings, port, place, log, once
        self.ending = threading.Event()
        self.child: subprocess.Popen[bytes] | None = None

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

    def _serve(self) -> int:
        with contextlib.suppress(OSError):
            (self.place / "ready").unlink()
        # What a keeper left behind that was killed.
        self._remove()
        if _taken(self.settings["host"], self.port):
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
                (self.place / "ready").write_text(f"{self.child.pid}\n")
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
                cwd=self.place,
                env={**inherited, **env, **secrets(HERE / "secrets.env")},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if self.log else None,
                stderr=subprocess.STDOUT if self.log else None,
                start_new_session=True,
                preexec_fn=_engine,
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
        with contextlib.suppress(OSError):
            (self.place / "ready").unlink()
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
        self._remove()

    def _remove(self) -> None:
        """End and remove the engine's container: a killed client leaves it behind."""
        container = self.settings.get("container")
        if container:
            words = [self._filled(word) for word in container["removal"]]
            with contextlib.suppress(OSError, subprocess.TimeoutExpired):
                subprocess.run(words, capture_output=True, stdin=subprocess.DEVNULL, timeout=REMOVE_S)

    def _filled(self, word: str) -> str:
        places = {
            "port": str(self.port),
            "folder": str(self.place),
            "service": str(HERE),
            "caches": str(HERE / "caches"),
            "programs": str(HERE / "programs"),
            "model": self.settings["model"]["path"],
        }
        return _PLACE.sub(lambda match: str(places[match[1]]), word)


class Together:
    """Several instances behind one nginx: ready when all of them are, ended together.

    Each has a keeper of its own, which starts it again within the limits; one that gave up leaves the others serving.
    """

    def __init__(self, settings: Mapping[str, Any], port: int, words: list[str]) -> None:
        self.settings, self.port = settings, port
        self.ending = threading.Event()
        self.words = [PYTHON, str(HERE / "serve.py"), *words]
        self.keepers: list[subprocess.Popen[bytes]] = []
        self.nginx: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Serve until told to end, or until nobody is left who could; the exit code."""
        mark, limit = HERE / "state" / "ready", self.settings["restarts"]
        with contextlib.suppress(OSError):
            mark.unlink()
        if _taken(self.settings["host"], self.port):
            say(f"port {self.port} is already taken")
            return FAILED
        configuration = self._configured()
        numbers = range(1, self.settings["front"]["instances"] + 1)
        try:
            for number in numbers:
                with contextlib.suppress(OSError):
                    (HERE / "state" / str(number) / "ready").unlink()
                own = ["--only", str(number), "--port", str(self.port)]
                self.keepers.append(subprocess.Popen([*self.words, *own], preexec_fn=_die_with_parent))
            while not all((HERE / "state" / str(number) / "ready").exists() for number in numbers):
                codes = [code for keeper in self.keepers if (code := keeper.poll()) is not None]
                if self.ending.wait(LOOK_S) or codes:
                    return 0 if self.ending.is_set() else max(codes)
            starts: list[float] = []
            while not self.ending.is_set():
                if all(keeper.poll() is not None for keeper in self.keepers):
                    say("no instance is left")
                    return FAILED
                if self.nginx is None or self.nginx.poll() is not None:
                    if self.nginx is not None:
                        say(f"nginx ended ({_ending(self.nginx.returncode)})")
                        with contextlib.suppress(OSError):
                            mark.unlink()
                        _bury(self.nginx)
                    starts = [start for start in starts if time.monotonic() - start < limit["within_s"]]
                    if len(starts) > limit["most"] or (starts and self.ending.wait(limit["pause_s"])):
                        return FAILED if not self.ending.is_set() else 0
                    starts.append(time.monotonic())
                    self.nginx = self._front(configuration)
                elif not mark.exists() and _taken(self.settings["host"], self.port):
                    say(f"ready  http://{self.settings['host']}:{self.port}/v1  ({len(self.keepers)} instances)")
                    mark.write_text(f"{self.nginx.pid}\n")
                    notify(f"READY=1\nSTATUS=serving on port {self.port}")
                self.ending.wait(LOOK_S)
            return 0
        finally:
            self._stop()

    def end(self, *_: object) -> None:
        """Told to end: by a signal."""
        self.ending.set()

    def _configured(self) -> Path:
        """nginx's file for the port that is served on: all its ports lie as far from that as in the folder's own."""
        text, first = (HERE / "nginx.conf").read_text(), self.settings["port"]
        if self.port == first:
            return HERE / "nginx.conf"
        host = re.escape(self.settings["host"])
        moved = HERE / "state" / "nginx.conf"
        moved.write_text(re.sub(rf"(?<={host}:)\d+", lambda match: str(int(match[0]) - first + self.port), text))
        return moved

    def _front(self, configuration: Path) -> subprocess.Popen[bytes]:
        prefix = HERE / "state" / "nginx"
        prefix.mkdir(exist_ok=True)
        words = [self.settings["front"]["nginx"], "-p", str(prefix), "-e", "stderr", "-c", str(configuration)]
        try:
            return subprocess.Popen(
                [*words, "-g", "daemon off;"],
                stdin=subprocess.DEVNULL,
                preexec_fn=_end_with_parent,
                start_new_session=True,
            )
        except OSError as error:
            raise Refused(f"{words[0]} cannot be started: {error.strerror}") from None

    def _stop(self) -> None:
        notify("STOPPING=1")
        with contextlib.suppress(OSError):
            (HERE / "state" / "ready").unlink()
        everyone = [*self.keepers, *([self.nginx] if self.nginx else [])]
        for one in everyone:
            one.terminate()
        for one in everyone:
            with contextlib.suppress(subprocess.TimeoutExpired):
                one.wait(self.settings["stop_timeout_s"] + REMOVE_S)
            one.kill()
            one.wait()
        if self.nginx is not None:
            _bury(self.nginx)


def _bury(nginx: subprocess.Popen[bytes]) -> None:
    """End what a master that has gone left: workers outlive one that was killed, hold its port and go on answering."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(nginx.pid, signal.SIGKILL)


def _taken(host: str, port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((host, port)) == 0


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def _ending(code: int | None) -> str:
    return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"


def _die_with_parent() -> None:
    """Called in the child: an engine whose keeper was killed must not hold its port and memory for ever."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _end_with_parent() -> None:
    """Called in nginx's master, which ends its workers when it is told to and cannot when it is killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _engine() -> None:
    """Called in the engine's process: what it is to the kernel."""
    _die_with_parent()
    # Short of memory the kernel takes the engine first, as it would have while it was measured.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE_ADJ)


def main() -> int:
    """Check, start, keep; 0 told to end, 1 failed, 78 wrong configuration."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--port", type=int, help="instead of the port in service.json")
    parser.add_argument("--once", action="store_true", help="no restarts and no log files: systemd has its own")
    parser.add_argument("--stdout", action="store_true", help="no log files: the engine's output goes where mine goes")
    parser.add_argument("--stay", action="store_true", help="wait to be told to end, also when there is nothing to do")
    parser.add_argument("--only", type=int, metavar="N", help="of several instances the N-th alone, without nginx")
    parser.add_argument("--owner", type=int, metavar="PID", help="end when that process is gone")
    chosen = parser.parse_args()
    ending = threading.Event()
    try:
        code = serve(chosen, ending)
    except Refused as error:
        say(f"refused: {error}")
        code = CONFIGURATION
    except (OSError, ValueError, LookupError) as error:
        say(f"refused: {HERE / 'service.json'} or its folder is damaged: {error}")
        code = CONFIGURATION
    if chosen.stay and code and not ending.is_set():
        # Whoever starts containers again for ever would do so with this one too.
        say("nothing is served; waiting to be stopped")
        ending.wait()
    return code


def serve(chosen: argparse.Namespace, ending: threading.Event) -> int:
    """What the command line asks for, until it ends or `ending` is set."""
    settings = json.loads((HERE / "service.json").read_text())
    state, front = HERE / "state", settings.get("front")
    port = chosen.port or settings["port"]
    place = state / str(chosen.only) if chosen.only else state
    for folder in (place, HERE / "logs"):
        folder.mkdir(parents=True, exist_ok=True)
    quiet = chosen.once or chosen.stdout or chosen.stay
    service: Service | Together
    if front and not chosen.only:
        service = Together(settings, port, ["--stdout"] if quiet else [])
    else:
        size, name = settings["log"], f"engine-{chosen.only}.log" if chosen.only else "engine.log"
        log = None if quiet else Log(HERE / "logs" / name, size["bytes"], size["files"])
        service = Service(settings, port + (chosen.only or 0), place, log, chosen.once)
    service.ending = ending
    signal.signal(signal.SIGTERM, service.end)
    signal.signal(signal.SIGINT, service.end)
    if chosen.owner:
        threading.Thread(target=outlive, args=(chosen.owner, service), daemon=True).start()
    check(settings, state)
    check_image(settings)
    return service.run()


def outlive(owner: int, service: Service | Together) -> None:
    """Wait until the process is gone that this was started for, and end."""
    while Path(f"/proc/{owner}").exists():
        time.sleep(LOOK_S)
    service.end()


if __name__ == "__main__":
    sys.exit(main())
