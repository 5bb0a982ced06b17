"""What the harness talks to on another host, through ssh: it keeps a load generator there, and answers for its clock.

    python -m bench.loadgen.outpost_process LEASE_S

Frames in on stdin, frames out on stdout (see job.send). Whoever asks must go on asking: after LEASE_S seconds in which
nothing came in and nothing could be sent, this process ends, and the load generator with it. So a cut link leaves
nothing behind on either side.

It imports next to nothing, and says who it is before anything else: a wrong version is to be told, not to fail.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from bench import pipes
from bench.loadgen.job import Frame, packed, receive, send

# Offsets into struct tcp_info (linux/tcp.h): what the kernel measured of a fresh connection is its handshake.
_RTT, _RETRANSMITTED = 68, 100
# Apart, as requests are: of packets in a row all but the first find every processor on their way awake.
_HANDSHAKES_S, _FEWEST, _PAUSE_S = 3.0, 10, 0.01
_PATIENCE_S = 3.0
_PIECE = 1 << 16
_TAIL = 12


def main() -> None:
    """Serve until stdin closes, the lease ends or the load generator does."""
    lease = float(sys.argv[1])
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Warden(lease).serve()


def release() -> str:
    """The version that is installed on this host."""
    try:
        return version("firsttoken")
    except PackageNotFoundError:
        return "of no release"


def digest() -> str:
    """Names the source of the package as it is on this host: what measures must be the same on both."""
    folder = Path(pipes.__file__).parent
    files = sorted(folder.rglob("*.py"))
    whole = hashlib.sha256()
    for file in files:
        whole.update(f"{file.relative_to(folder)}\0".encode() + file.read_bytes() + b"\0")
    return whole.hexdigest()[:16]


class Warden:
    """The loop: what is asked from afar on one side, the load generator on the other."""

    def __init__(self, lease: float) -> None:
        self._lease = lease
        self._held: Frame | None = None
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process that writes to it)
        self._resent = resent()
        self._errands, self._done = os.pipe()
        self._alive()

    def serve(self) -> None:
        """Until there is nobody to serve."""
        self._tell({
            "said": "hello",
            "version": release(),
            "digest": digest(),
            "sees": (os.environ.get("SSH_CONNECTION") or "").partition(" ")[0],
        })  # fmt: skip
        self._worker = worker = subprocess.Popen(
            [sys.executable, "-m", "bench.loadgen.generator_process", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
        )
        assert worker.stdout is not None
        rows = worker.stdout.fileno()
        while True:
            readable, _, _ = select.select([0, rows, self._errands], [], [])
            if 0 in readable:
                if (frame := receive(self._take)) is None:
                    return
                self._answer(time.monotonic_ns(), *frame)
            if self._errands in readable:
                told = receive(lambda most: pipes.read_some(self._errands, most))
                assert told is not None
                self._tell(*told)
            if rows in readable:
                if (frame := receive(lambda most: pipes.read_some(rows, most))) is None:
                    self._tell({"said": "died", "why": self._last_words()})
                    return
                self._tell({"said": "row", **frame[0]}, frame[1])

    def _answer(self, received: int, head: dict[str, Any], payload: bytes) -> None:
        match head["ask"]:
            case "time":
                self._tell({"said": "time", "received": received, "answered": time.monotonic_ns()})
            case "hold":
                # Kept until it is said when to begin: how long it took to get here is then nobody's delay.
                self._held = (head["job"], payload)
                self._tell({"said": "held"})
            case "go":
                assert self._held is not None
                assert self._worker.stdin is not None
                job, body = self._held
                self._held = None
                # Where the load generator is gone already, its end of the other pipe says so.
                with contextlib.suppress(BrokenPipeError):
                    send(self._worker.stdin.fileno(), job | {"start_ns": head["start_ns"]}, body)
            case "path":
                self._run(lambda: {"said": "path", **handshakes(head["host"], head["port"], head["most"])})
            case "selfcheck":
                self._run(lambda: {"said": "selfcheck", **selfchecked(quick=head["quick"])})
            case "account":
                how = os.WSTOPPED | os.WCONTINUED | os.WNOHANG | os.WNOWAIT
                stopped = os.waitid(os.P_PID, self._worker.pid, how) is not None
                again, before = resent(), self._resent
                grown = None if again is None or before is None else again - before
                self._tell({"said": "account", "stopped": stopped, "resent": grown})

    def _run(self, errand: Any) -> None:
        """What takes its time, beside the answers to the clock."""

        def run() -> None:
            try:
                told = errand()
            except Exception as error:
                told = {"said": "failed", "why": f"{type(error).__name__}: {error}"}
            send(self._done, told)

        threading.Thread(target=run, daemon=True).start()

    def _take(self, most: int) -> bytes:
        some = pipes.read_some(0, most)
        self._alive()
        return some

    def _tell(self, head: dict[str, Any], payload: bytes = b"") -> None:
        for whole in (packed(head, payload), payload):
            for at in range(0, len(whole), _PIECE):
                pipes.write_all(1, whole[at : at + _PIECE])
                self._alive()

    def _alive(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, self._lease)

    def _last_words(self) -> str:
        code = self._worker.wait()
        self._stderr.seek(0)
        tail = self._stderr.read().decode(errors="replace").strip().splitlines()[-_TAIL:]
        return "\n".join([f"ended with status {code}", *tail])


def handshakes(host: str, port: int, most: int) -> dict[str, Any]:
    """Round trips to a port, µs: `most` TCP handshakes as this kernel timed them, and a few seconds of them at most.

    `us` are those whose first packet came through, `lost` counts the others. Each is reset: no port is left waiting.
    """
    us: list[int] = []
    lost, why, end = 0, None, time.monotonic() + _HANDSHAKES_S
    for number in range(most):
        if (number >= _FEWEST and time.monotonic() > end) or lost >= _FEWEST:
            break
        time.sleep(_PAUSE_S)
        try:
            with socket.create_connection((host, port), timeout=_PATIENCE_S) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
        except OSError as error:
            lost, why = lost + 1, str(error)
            continue
        (took,) = struct.unpack_from("I", info, _RTT)
        (again,) = struct.unpack_from("I", info, _RETRANSMITTED)
        if again or not took:
            lost += 1
        else:
            us.append(took)
    return {"us": us, "lost": lost, "why": why}


def resent() -> int | None:
    """TCP segments that this host's kernel has sent again since it booted; None where it does not say."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        names, values = (
            line.split() for line in Path("/proc/net/snmp").read_text().splitlines() if line.startswith("Tcp:")
        )
        return int(values[names.index("RetransSegs")])
    return None


def selfchecked(*, quick: bool) -> dict[str, Any]:
    """`bench selfcheck` on this host."""
    argv = [sys.executable, "-m", "bench", "selfcheck", "--json", *(["--quick"] if quick else [])]
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise RuntimeError((done.stderr or done.stdout).strip()[-500:])
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
