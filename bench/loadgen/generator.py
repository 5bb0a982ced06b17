"""The load generator as a separate process: the harness's own imports, threads and garbage stay out of the stamps."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict
from typing import IO, Any, Self

from bench import pipes
from bench.errors import InternalError
from bench.loadgen.job import Driven, Frame, Job, Schedule, receive, schedule, send
from bench.loadgen.rows import KINDS, NONE
from bench.record.launches import ClientAccount, ClockAccount

_NULLABLE = ("kernel_ns", "tokens")
_SUMMED = ("cpu_s", "wall_s", "parse_cpu_s", "events", "missed")
# Longer than any message takes, even on a machine that swaps. It is spent in slices: a slice that took longer, because
# this process was stopped in it, counts as one.
_PATIENCE_S = 60.0
_SLICE_S = 1.0
_TAIL = 12
_WORST = ("rss_mib", "loop_lag_p99_ms")


class LoadGenerator:
    """Started on entry or at the first job, kept for the next ones, gone with `close()` or its parent thread."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._stderr: IO[bytes] | None = None
        self._accounts: list[dict[str, Any]] = []

    def __enter__(self) -> Self:
        self._started()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def drive(
        self,
        job: Job,
        progress: Callable[[int, int], None] | None = None,
        first_token: Callable[[], None] | None = None,
    ) -> Driven:
        """Send the job's requests and return when each has been answered or given up; `progress(done, of)`.

        `first_token()` is called once the first request's first token has come, while it is still answered.
        """
        if not job.requests:
            return Driven()
        try:
            return self._drive(job, progress, first_token)
        except BaseException:
            # Whatever the worker still holds of this job must not reach the next one.
            self._stop(kill=True)
            raise

    @property
    def harness_pids(self) -> tuple[int, ...]:
        """The process that drives, which is not part of what is measured."""
        return () if self._process is None else (self._process.pid,)

    def account(self) -> ClientAccount:
        """`Driven.client` of all jobs so far in one: sums, and the worst of what cannot be added up."""
        return ClientAccount(**summed(self._accounts))

    def clock(self) -> ClockAccount:
        """How the wall clock stood against the monotonic one, from the first job to the last; empty before any."""
        clocks = [job["clock"] for job in self._accounts]
        if not clocks:
            return ClockAccount()
        first, last = clocks[0]["offset_before_ns"], clocks[-1]["offset_after_ns"]
        return ClockAccount(first, last, sum(clock["steps"] for clock in clocks), last - first)

    def close(self) -> None:
        """End the process."""
        self._stop(kill=False)

    def _drive(
        self, job: Job, progress: Callable[[int, int], None] | None, first_token: Callable[[], None] | None
    ) -> Driven:
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        head, payload = encoded(job, schedule(job.arrivals, job.requests, job.seed), tell_first=first_token is not None)
        try:
            send(process.stdin.fileno(), head, payload)
        except BrokenPipeError:
            raise self._died() from None
        pipe = process.stdout.fileno()
        while True:
            # It may take its time before a message, and none within one.
            select.select([pipe], [], [])
            try:
                frame = receive(lambda most: next_bytes(pipe, most))
            except TimeoutError:
                silent = "was stopped (SIGSTOP) and not continued" if _stopped(process.pid) else "fell silent"
                process.send_signal(signal.SIGABRT)
                process.send_signal(signal.SIGCONT)
                raise self._died(f"{silent} in mid-message for {_PATIENCE_S:.0f} s") from None
            if frame is None:
                raise self._died()
            head, payload = frame
            if "failed" in head:
                raise InternalError(f"the load generator failed:\n{head['failed']}")
            if "first_token" in head:
                if first_token is not None:
                    first_token()
            elif "done" not in head:
                self._accounts.append(head["client"])
                return decoded(head, payload)
            elif progress is not None:
                progress(head["done"], head["of"])

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self._stop(kill=True)
            self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process that writes to it)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.loadgen.generator_process", str(os.getpid())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                # Ctrl-C goes to the whole foreground group; the worker leaves when its stdin closes.
                process_group=0,
            )
        return self._process

    def _stop(self, *, kill: bool) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        if kill:
            process.kill()
        with suppress(BrokenPipeError):
            process.stdin.close()
        process.stdout.close()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._stderr is not None:
            self._stderr.close()

    def _died(self, why: str | None = None) -> InternalError:
        assert self._process is not None
        assert self._stderr is not None
        try:
            code: int | None = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = None
        self._stderr.seek(0)
        tail = self._stderr.read().decode(errors="replace").strip().splitlines()[-_TAIL:]
        return InternalError("\n".join([f"the load generator's process {why or f'ended with status {code}'}", *tail]))


def summed(jobs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """`Driven.client` of several jobs in one, as ClientAccount has it."""
    total: dict[str, Any] = {key: sum(job[key] for job in jobs) for key in _SUMMED}
    for key in _WORST:
        total[key] = max((job[key] for job in jobs if job[key] is not None), default=None)
    total["scheduling"] = jobs[-1]["scheduling"] if jobs else None
    total["cpu_us_per_event"] = total["cpu_s"] * 1e6 / total["events"] if total["events"] else None
    return total


def next_bytes(pipe: int, most: int) -> bytes:
    """Some bytes from the pipe; TimeoutError if none come."""
    left = _PATIENCE_S
    while left > 0:
        began = time.monotonic()
        if select.select([pipe], [], [], min(_SLICE_S, left))[0]:
            return pipes.read_some(pipe, most)
        left -= min(_SLICE_S, time.monotonic() - began)
    raise TimeoutError


def _stopped(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None


def encoded(job: Job, plan: Schedule, *, tell_first: bool = False) -> Frame:
    """The message that tells the process what to do, and when; `tell_first`: also when the first token has come."""
    requests: list[dict[str, Any]] = []
    bodies: list[bytes] = []
    for request in job.requests:
        body = json.dumps(request.body, ensure_ascii=False, separators=(",", ":"), default=dict)
        bodies.append(body.encode("utf-8", "replace"))
        fields = {name: getattr(request, name) for name in request.__slots__ if name != "body"}
        requests.append(fields | {"size": len(bodies[-1])})
    head = {
        **asdict(plan),
        "host": job.host,
        "port": job.port,
        "tls": job.tls,
        "headers": dict(job.headers),
        "timeout_s": job.timeout_s,
        "keep_text": job.keep_text,
        "keep_logprobs": job.keep_logprobs,
        "tell_first": tell_first,
        "requests": requests,
    }
    return head, b"".join(bodies)


def decoded(head: dict[str, Any], payload: bytes) -> Driven:
    """What the process answers when it is done."""
    chunks: dict[str, list[Any]] = {}
    at = 0
    for name, typecode, count in head["layout"]:
        values: array[int] = array(typecode)
        size = values.itemsize * count
        values.frombytes(payload[at : at + size])
        at += size
        chunks[name] = _column(name, values)
    return Driven(requests=head["requests"], chunks=chunks, client=head["client"], logprobs=head["logprobs"])


def _column(name: str, values: Sequence[int]) -> list[Any]:
    if name == "kind":
        return [KINDS[code] for code in values]
    if name in _NULLABLE:
        return [None if value == NONE else value for value in values]
    return list(values)
