# ruff: noqa: PTH103, PTH106, PTH114, PTH118, PTH123, PTH208 (pathlib would be most of this program's start-up)
"""One launch's guardian: starts the engine, stamps its output, and leaves nothing of it behind.

A tiny program of its own (`python -S -E supervisor.py`), because a harness killed by `kill -9` can clean up nothing. It
is the subreaper of everything that the engine starts, so a child that daemonises is still a descendant of it. It reads
one JSON line with the launch from stdin, then orders; when stdin ends, the harness is gone and the engine follows.
On stdout it reports JSON lines: spawned, first_output, exited, gone; or failed. Standard library only.

Where the engine is forked from a warm parent (programs/parent_process.py) this same guardian is a fork of that parent,
and `become` is what the engine's process does in the place of exec.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import select
import selectors
import signal
import time
from collections.abc import Callable
from typing import IO, Any

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
MAX_LINE = 16 * 1024
MAX_LOG = 256 * 1024 * 1024
READ = 64 * 1024
TICK_S = 1.0
# What is left of the tree once the engine's main process has gone gets this long before KILL.
STRAGGLERS_S = 2.0
# KILL is sent again until nothing is left; a process stuck in the kernel outlives it and is reported.
KILL_S = 10.0
# Removing a container waits for the kernel to end what is in it.
REMOVE_S = 10.0
ORPHANED_STOP_S = 5.0
# Under memory pressure the kernel should take the engine, not the harness that records its end.
OOM_SCORE_ADJ = "500"
RESTORE_TICK_S = 0.002

_BREAK = re.compile(rb"\r\n|\n|\r")


def prctl(option: int, value: int) -> None:
    """prctl(2); OSError if the kernel refuses."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def descendants(root: int) -> list[int]:
    """Every living process below `root`, children before grandchildren; zombies are not alive."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/stat", "rb") as stat:
                state, parent = stat.read().rpartition(b")")[2].split()[:2]
        except OSError:
            continue
        children.setdefault(int(parent), []).append(int(entry) if state not in (b"Z", b"X") else -int(entry))
    found: list[int] = []
    queue = [root]
    while queue:
        below = children.get(queue.pop(0), [])
        queue += [abs(pid) for pid in below]
        found += [pid for pid in below if pid > 0]
    return found


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything, waiting where there is no room; OSError if the other side is gone."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            waiting = select.poll()
            waiting.register(descriptor, select.POLLOUT)
            waiting.poll()


def peak_rss_kib(pid: int) -> int:
    """A living process's own high-water mark of resident memory (VmHWM), KiB; 0 once it has gone."""
    try:
        with open(f"/proc/{pid}/status", "rb") as status:
            return next((int(line.split()[1]) for line in status if line.startswith(b"VmHWM:")), 0)
    except OSError:
        return 0


def oom_kills() -> int | None:
    """How many processes this machine's OOM killer has taken since boot; None where the kernel does not say."""
    try:
        with open("/proc/vmstat", "rb") as counters:
            return next((int(line.split()[1]) for line in counters if line.startswith(b"oom_kill ")), None)
    except OSError:
        return None


class Lines:
    """Bytes of one stream in, stamped lines out: a line carries the time at which its first byte was read.

    A carriage return ends a line as a newline does, so each state of a progress bar is one. A line longer than MAX_LINE
    is cut, and says by how much.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.pending = bytearray()
        self.started = 0
        self.cut = 0
        self.after_cr = False

    def feed(self, data: bytes, now: int) -> list[str]:
        """The lines that these bytes complete."""
        if self.after_cr and data.startswith(b"\n"):
            data = data[1:]
        self.after_cr = data.endswith(b"\r")
        *whole, rest = _BREAK.split(data)
        lines = []
        for part in whole:
            self._add(part, now)
            lines += self.flush(blank=True)
        if rest:
            self._add(rest, now)
        return lines

    def _add(self, part: bytes, now: int) -> None:
        self.started = self.started or now
        room = max(0, MAX_LINE - len(self.pending))
        self.pending += part[:room]
        self.cut += len(part) - len(part[:room])

    def flush(self, blank: bool = False) -> list[str]:
        """The unfinished line, if there is one."""
        if not self.started or not (self.pending or blank):
            return []
        text = self.pending.decode("utf-8", "replace").replace("\0", "�")
        if self.cut:
            text += f" […{self.cut} bytes cut]"
        line = f"{self.started} {self.name} {text}\n"
        self.pending.clear()
        self.started = self.cut = 0
        return [line]


class Log:
    """engine.log, bounded; a full disk stops the log and never the engine."""

    def __init__(self, path: str) -> None:
        self.file: IO[bytes] | None = open(path, "ab", buffering=0)  # noqa: SIM115 (closed when the program ends)
        self.size = 0
        self.lost = 0
        self.fault: str | None = None

    def write(self, lines: list[str]) -> None:
        """Append, or count what could not be kept."""
        if not lines:
            return
        data = "".join(lines).encode()
        if self.file is None or self.size + len(data) > MAX_LOG:
            self.lost += len(lines)
            self.fault = self.fault or "the log has reached its limit"
            return
        try:
            write_all(self.file.fileno(), data)
            self.size += len(data)
        except OSError as error:
            self.lost += len(lines)
            self.fault = os.strerror(error.errno or 0)
            self.file.close()
            self.file = None


# Turns the forked process into the engine: words, environment, and a descriptor that its success closes.
Become = Callable[[list[str], dict[str, str], int], None]


def execute(argv: list[str], env: dict[str, str], fault: int) -> None:
    """A new program; the descriptor closes on exec."""
    os.execvpe(argv[0], argv, env)


class Supervisor:
    """The engine's parent, from fork until nothing of it is left."""

    def __init__(self, launch: dict[str, Any], become: Become = execute) -> None:
        self.launch = launch
        self.become = become
        self.log = Log(launch["log"])
        # A fork of a warm parent is no child of the harness's: only the end of its orders tells it to end.
        self.harness = os.getppid() if become is execute else None
        self.deaf = False
        self.pid = 0
        self.ended: dict[str, Any] | None = None
        self.streams: dict[int, Lines] = {}
        self.selector = selectors.DefaultSelector()
        self.orders = b""
        self.spoken = False
        # [pid, stopped at, continued at] of children that somebody stopped; ns, None if it was not seen
        self.stops: list[list[int | None]] = []
        self.oom_before = oom_kills()

    def report(self, event: str, **fields: Any) -> None:
        """One JSON line to the harness; nobody may be listening any more."""
        line = json.dumps({"event": event, **fields}).encode() + b"\n"
        try:
            write_all(1, line)
        except OSError:
            self.deaf = True

    def spawn(self) -> bool:
        """Fork the engine into a session of its own, stamped just before; False if it could not be executed."""
        out, err, fault = os.pipe(), os.pipe(), os.pipe()
        argv, env = self.launch["argv"], self.launch["env"]
        me = os.getpid()
        libc = ctypes.CDLL(None)
        # The order to fork, where there was one: the guardian's own fork is part of such a start.
        t_ns = self.launch.get("ordered_ns") or time.monotonic_ns()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.setsid()
                libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
                if os.getppid() != me:
                    os._exit(127)
                for caught in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
                    signal.signal(caught, signal.SIG_DFL)
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                os.dup2(out[1], 1)
                os.dup2(err[1], 2)
                os.makedirs(self.launch["scratch"], mode=0o700, exist_ok=True)
                if self.launch.get("cwd"):
                    os.chdir(self.launch["cwd"])
                lower_survival()
                self.become(argv, env, fault[1])
            except OSError as error:
                write_all(fault[1], f"{error.errno} {error.strerror}: {error.filename or argv[0]}".encode())
            finally:
                os._exit(127)
        for end in (out[1], err[1], fault[1]):
            os.close(end)
        self.watch(out[0], Lines("out"))
        self.watch(err[0], Lines("err"))
        # The write end closes on a successful exec, so this waits for exactly that.
        words = b""
        while part := os.read(fault[0], READ):
            words += part
        told = words.decode("utf-8", "replace")
        os.close(fault[0])
        if told:
            number, _, message = told.partition(" ")
            os.waitpid(self.pid, 0)
            clear(self.launch["scratch"])
            self.report("failed", t_ns=t_ns, errno=int(number), message=message)
            return False
        restored_ns = None
        if "restored" in self.launch:
            if why := self.restored(self.launch["restored"]):
                clear(self.launch["scratch"])
                self.report("failed", t_ns=t_ns, errno=0, message=why)
                return False
            restored_ns = time.monotonic_ns()
        self.report("spawned", t_ns=t_ns, pid=self.pid, parent=os.getppid(), restored_ns=restored_ns)
        return True

    def restored(self, place: dict[str, Any]) -> str | None:
        """Wait until CRIU, which was executed, has put the engine beside itself, and guard that; why not, in words."""
        restorer, deadline = self.pid, time.monotonic() + place["timeout_s"]
        why = None
        while not (ended := os.waitpid(restorer, os.WNOHANG))[0]:
            # Whatever comes now, an order or the end of all orders, comes before there is an engine.
            if select.select([0], [], [], RESTORE_TICK_S)[0] or self.stopping:
                why = "it was stopped before the engine was restored"
            elif time.monotonic() > deadline:
                why = f"the engine was not restored within {place['timeout_s']:g} s"
            if why:
                send(restorer, signal.SIGKILL)
                os.waitpid(restorer, 0)
                break
        if not why and ended[1]:
            why = f"criu could not restore it: {last_error(place['log']) or f'status {ended[1]}'}"
        if not why:
            try:
                with open(place["pidfile"]) as told:
                    self.pid = int(told.read())
                return None
            except (OSError, ValueError) as error:
                why = f"criu does not say which process it restored: {error}"
        # What was half restored is a child of this process already.
        while left := descendants(os.getpid()):
            for pid in left:
                send(pid, signal.SIGKILL)
            self.reap()
        self.reap()
        return why

    def watch(self, descriptor: int, lines: Lines) -> None:
        """Read this end of a pipe from now on."""
        os.set_blocking(descriptor, False)
        self.streams[descriptor] = lines
        self.selector.register(descriptor, selectors.EVENT_READ)

    def run(self) -> None:
        """Guard the engine until ordered to stop it, or orphaned, then end it."""
        wake_read, wake_write = os.pipe()
        for end in (wake_read, wake_write):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
            signal.signal(number, self.on_signal)
        self.wake = wake_read
        self.stopping = False
        self.selector.register(wake_read, selectors.EVENT_READ)
        if self.spawn():
            os.set_blocking(0, False)
            self.selector.register(0, selectors.EVENT_READ)
            order = None
            while order is None:
                order = self.turn(TICK_S)
            self.end(order)

    def on_signal(self, number: int, frame: object) -> None:
        """TERM and HUP are orders to stop; CHLD only wakes the loop; INT belongs to the harness."""
        self.stopping = self.stopping or number in (signal.SIGTERM, signal.SIGHUP)

    def turn(self, timeout: float) -> dict[str, Any] | None:
        """Wait for something, deal with it; the order to stop if one came."""
        order: dict[str, Any] | None = None
        ready = self.selector.select(timeout)
        now = time.monotonic_ns()
        # Looking after the family is for the quiet moments and for when somebody died, not for every line of output.
        look_around = not ready
        for key, _ in ready:
            descriptor = key.fd
            if descriptor == 0:
                order = self.read_order()
            elif descriptor == self.wake:
                os.read(self.wake, READ)
                look_around = True
            else:
                self.read_output(descriptor, now)
        if not ready:
            for lines in self.streams.values():
                self.log.write(lines.flush())
        if look_around or order:
            self.reap()
            if self.stopping or self.deserted():
                order = order or self.orphaned()
        return order

    def deserted(self) -> bool:
        """Whether the harness has gone."""
        return self.deaf or (self.harness is not None and os.getppid() != self.harness)

    def read_order(self) -> dict[str, Any] | None:
        """A stop order, or one of our own when the harness has closed the pipe."""
        try:
            data = os.read(0, READ)
        except BlockingIOError:
            return None
        if not data:
            self.selector.unregister(0)
            return self.orphaned()
        self.orders += data
        line, newline, self.orders = self.orders.partition(b"\n")
        if not newline:
            self.orders = line
            return None
        stop: dict[str, Any] = json.loads(line)
        return stop

    def orphaned(self) -> dict[str, Any]:
        """The order that nobody is left to give."""
        return {"timeout_s": min(ORPHANED_STOP_S, self.launch["stop_timeout_s"])}

    def read_output(self, descriptor: int, now: int) -> bool:
        """Stamp and keep what the engine wrote; whether there was anything."""
        try:
            data = os.read(descriptor, READ)
        except BlockingIOError:
            return False
        lines = self.streams[descriptor]
        if data:
            if not self.spoken:
                self.spoken = True
                self.report("first_output", t_ns=now)
            self.log.write(lines.feed(data, now))
            return True
        self.log.write(lines.flush())
        self.selector.unregister(descriptor)
        os.close(descriptor)
        del self.streams[descriptor]
        return False

    def note_stops(self) -> None:
        """Note which children were stopped or continued since the last look."""
        while True:
            try:
                change = os.waitid(os.P_ALL, 0, os.WSTOPPED | os.WCONTINUED | os.WNOHANG)
            except ChildProcessError:
                return
            if change is None:
                return
            pid, now = change.si_pid, time.monotonic_ns()
            paused = next((stop for stop in self.stops if stop[0] == pid and stop[2] is None), None)
            if change.si_code == os.CLD_CONTINUED:
                if paused is None:
                    self.stops.append([pid, None, now])
                else:
                    paused[2] = now
            elif paused is None:
                self.stops.append([pid, now, None])

    def reap(self) -> bool:
        """Bury the dead and report the engine's own end; whether children are left, dying ones too."""
        self.note_stops()
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self.pid and self.ended is None:
                code = os.waitstatus_to_exitcode(status)
                before, after = self.oom_before, oom_kills()
                self.ended = {
                    "t_ns": time.monotonic_ns(),
                    "code": code if code >= 0 else None,
                    "signal": signal_name(-code) if code < 0 else None,
                    "max_rss_mib": round(usage.ru_maxrss / 1024, 1),
                    "oom_kills": None if before is None or after is None else after - before,
                }
                self.drain()
                self.report("exited", **self.ended)

    def drain(self) -> None:
        """Read what a dead process left in the pipes, so that its last words precede the report of its end."""
        for descriptor in list(self.streams):
            while self.read_output(descriptor, time.monotonic_ns()):
                continue

    def remove(self) -> None:
        """End and remove the container that the engine ran in, if it did: a killed client leaves it to itself."""
        words = self.launch.pop("removal", None)
        if not words:
            return
        null = os.open(os.devnull, os.O_RDWR)
        quiet = [(os.POSIX_SPAWN_DUP2, null, stream) for stream in (0, 1, 2)]
        try:
            pid = os.posix_spawnp(words[0], words, os.environ, file_actions=quiet)
        except OSError:
            return
        finally:
            os.close(null)
        deadline = time.monotonic() + REMOVE_S
        while os.waitpid(pid, os.WNOHANG)[0] == 0:
            if time.monotonic() >= deadline:
                send(pid, signal.SIGKILL)
            time.sleep(0.01)

    def end(self, order: dict[str, Any]) -> None:
        """Ask the group, wait, then KILL until no descendant is left; report what it took."""
        begun = time.monotonic_ns()
        self.note_stops()
        stops = list(self.stops)
        alone = self.ended is not None
        peak = sum(peak_rss_kib(pid) for pid in descendants(os.getpid()))
        if not alone:
            send(-self.pid, getattr(signal, order.get("signal") or self.launch["stop_signal"]))
        deadline = time.monotonic() + float(order.get("timeout_s", self.launch["stop_timeout_s"]))
        killed = False
        give_up = None
        while True:
            self.turn(0.02)
            left = descendants(os.getpid())
            if not left:
                break
            if self.ended is not None:
                deadline = min(deadline, self.ended["t_ns"] / 1e9 + STRAGGLERS_S)
            if time.monotonic() >= deadline:
                self.remove()
                give_up = give_up or time.monotonic() + KILL_S
                killed = True
                for pid in left:
                    send(pid, signal.SIGKILL)
                if time.monotonic() >= give_up:
                    break
        self.remove()
        # One that only looks dead may have threads that still let go of its memory: the kernel tells when it is over.
        patience = time.monotonic() + KILL_S
        while self.reap() and not descendants(os.getpid()) and time.monotonic() < patience:
            time.sleep(0.005)
        self.drain()
        for lines in self.streams.values():
            self.log.write(lines.flush())
        gone = time.monotonic_ns()
        clear(self.launch["scratch"])
        self.report(
            "gone",
            stop_ns=begun,
            t_ns=gone,
            killed=killed,
            by_itself=alone,
            leftover=descendants(os.getpid()),
            peak_rss_sum_mib=round(peak / 1024, 1) if peak else None,
            stops=stops,
            lines_lost=self.log.lost,
            log_fault=self.log.fault,
        )


def last_error(log: str) -> str:
    """The first line of a log of CRIU's that names a fault: those after it follow from it. Empty where none does."""
    try:
        with open(log, "rb") as lines:
            found = [line for line in lines if b"Error (" in line and b"RLIMIT_NOFILE" not in line]
    except OSError:
        return ""
    return found[0].partition(b"Error ")[2].partition(b": ")[2].decode("utf-8", "replace").strip() if found else ""


def lower_survival() -> None:
    """Make this process a likelier victim of the OOM killer than the harness; not every kernel lets it."""
    try:
        with open("/proc/self/oom_score_adj", "w") as score:
            score.write(OOM_SCORE_ADJ)
    except OSError:
        return


def clear(folder: str) -> None:
    """Remove a folder with all that is in it, as far as that goes."""
    for path, folders, files in os.walk(folder, topdown=False):
        for remove, names in ((os.unlink, files), (os.rmdir, folders)):
            for name in names:
                entry = os.path.join(path, name)
                try:
                    (os.unlink if os.path.islink(entry) else remove)(entry)
                except OSError:
                    continue
    try:
        os.rmdir(folder)
    except OSError:
        return


def signal_name(number: int) -> str:
    """SIGKILL for 9; the number for a signal without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def send(target: int, number: int) -> None:
    """kill(2) to a process, or to a group if negative; one that has gone needs no signal."""
    try:
        os.kill(target, number)
    except ProcessLookupError:
        return
    except OSError as error:
        if error.errno != errno.EPERM:
            raise


def main(become: Become = execute) -> None:
    """Read the launch from stdin and guard it."""
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    line = b""
    while not line.endswith(b"\n"):
        part = os.read(0, READ)
        if not part:
            return
        line += part
    Supervisor(json.loads(line), become).run()


if __name__ == "__main__":
    main()
