"""Load generators on other hosts that work as one: the same job, dealt out, begun together, gathered row by row."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any, Self

from bench.loadgen.echo import Echo, best
from bench.loadgen.generator import decoded, encoded, summed
from bench.loadgen.job import Driven, Job
from bench.loadgen.outpost import Outpost
from bench.loadgen.parts import Part, shares
from bench.record.launches import ClientAccount, ClockAccount, RemoteClient, RoundTrips
from bench.record.schema import REQUESTS

# What a load generator needs between being told and beginning, beside two ways there and back.
_LEAD_NS = 100_000_000
# So many answers about the clock are waited for before the first job.
_ECHOES = 8
_ECHOES_S = 10.0
# Handshakes of a look: as many before as after, so that both together carry a p99 where the way is short.
_HANDSHAKES = 190
_DURATIONS = frozenset({"connect_ns"})
_STAMPS = tuple(one.name for one in REQUESTS if one.name.endswith("_ns") and one.name not in _DURATIONS)


@dataclass(frozen=True, slots=True)
class Clients:
    """Where the load comes from instead of this machine, and the address at which the engine is seen from there."""

    hosts: tuple[str, ...]
    python: str
    address: str


class RemoteLoad:
    """What LoadGenerator is, with its processes on other hosts. LaunchError (`client_lost`) where one is lost."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._posts: list[Outpost] = []
        self._inbox: queue.Queue[tuple[Outpost, dict[str, Any], bytes]] = queue.Queue()
        self._around = ExitStack()
        self._jobs: list[list[dict[str, Any]]] = [[] for _ in clients.hosts]
        self._first: dict[int, Echo] = {}
        self._trips: list[list[RoundTrips]] = [[] for _ in clients.hosts]
        self._remotes: list[RemoteClient] | None = None

    def __enter__(self) -> Self:
        try:
            for number, host in enumerate(self._clients.hosts):
                post = Outpost(host, self._clients.python, number, self._inbox)
                self._around.callback(post.close)
                self._posts.append(post)
        except BaseException:
            self._around.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def harness_pids(self) -> tuple[int, ...]:
        """The processes on this machine: those that lead to the others."""
        return tuple(post.pid for post in self._posts)

    def look(self, host: str, port: int) -> None:
        """Time the way from every host to a port of ours, while nothing else is under way."""
        for post in self._posts:
            post.say({"ask": "path", "host": host, "port": port, "most": _HANDSHAKES})
        for number, told in self._gathered("path").items():
            if not told["us"]:
                raise self._posts[number].failure(f"it cannot reach the engine's port: {told['why']}")
            self._trips[number].append(RoundTrips(told["us"], told["lost"]))

    def drive(
        self,
        job: Job,
        progress: Callable[[int, int], None] | None = None,
        first_token: Callable[[], None] | None = None,
    ) -> Driven:
        """Send the job's requests and return when each has been answered or given up; see LoadGenerator.drive."""
        if not job.requests:
            return Driven()
        try:
            return self._drive(job, progress, first_token)
        except BaseException:
            # Whatever is under way there must not reach the next job.
            self.close()
            raise

    def _drive(
        self, job: Job, progress: Callable[[int, int], None] | None, first_token: Callable[[], None] | None
    ) -> Driven:
        dealt = shares(job, len(self._posts))
        for share in dealt:
            # The first request is the first host's.
            tell = first_token is not None and share.number == 0
            head, payload = encoded(share.job, share.plan, tell_first=tell)
            self._posts[share.number].say({"ask": "hold", "job": head}, payload)
        self._gathered("held", [share.number for share in dealt])
        echoes = {share.number: self._echo(share.number) for share in dealt}
        self._first = {**echoes, **self._first}
        start = time.monotonic_ns() + _LEAD_NS + 2 * max(echo.way_ns for echo in echoes.values())
        for share in dealt:
            # One alone begins when it is ready.
            begin = start + echoes[share.number].offset_ns if len(self._posts) > 1 else None
            self._posts[share.number].say({"ask": "go", "start_ns": begin})
        parts = self._rows(dealt, progress, first_token, len(job.requests))
        for share in dealt:
            self._jobs[share.number].append(parts[share.number].client)
            moved(parts[share.number], share.number, len(self._posts), echoes[share.number].offset_ns)
        return gathered([parts[share.number] for share in dealt])

    def _rows(
        self,
        dealt: Sequence[Part],
        progress: Callable[[int, int], None] | None,
        first_token: Callable[[], None] | None,
        of: int,
    ) -> dict[int, Driven]:
        parts: dict[int, Driven] = {}
        done: dict[int, int] = {}
        while len(parts) < len(dealt):
            post, head, payload = self._heard("row")
            if "failed" in head:
                raise post.failure(f"the load generator there failed:\n{head['failed']}")
            if "first_token" in head:
                if first_token is not None:
                    first_token()
            elif "done" in head:
                done[post.number] = head["done"]
                if progress is not None:
                    progress(sum(done.values()), of)
            else:
                parts[post.number] = decoded(head, payload)
                done[post.number] = len(parts[post.number].requests)
        return parts

    def _gathered(self, kind: str, numbers: Sequence[int] | None = None) -> dict[int, dict[str, Any]]:
        """One answer of a kind from each of some hosts, all of them by default."""
        wanted = range(len(self._posts)) if numbers is None else numbers
        found: dict[int, dict[str, Any]] = {}
        while len(found) < len(wanted):
            post, head, _ = self._heard(kind)
            found[post.number] = head
        return found

    def _heard(self, kind: str) -> tuple[Outpost, dict[str, Any], bytes]:
        """The next message of a kind; LaunchError for bad news."""
        while True:
            post, head, payload = self._inbox.get()
            if head["said"] == kind:
                return post, head, payload
            if head["said"] in ("lost", "failed"):
                raise post.failure(head["why"])

    def _echo(self, number: int) -> Echo:
        """What is known now of a host's clock; a few answers are waited for."""
        post, end = self._posts[number], time.monotonic() + _ECHOES_S
        while len(post.echoes) < _ECHOES and post.lost is None and time.monotonic() < end:
            time.sleep(0.01)
        if not post.echoes:
            raise post.failure(post.lost or "it does not say what time it is")
        return best(post.echoes, time.monotonic_ns())

    def account(self) -> ClientAccount:
        """All hosts in one, and each of them by itself."""
        whole = [client for jobs in self._jobs for client in jobs]
        longest = max((sum(client["wall_s"] for client in jobs) for jobs in self._jobs), default=0.0)
        remotes = self._remotes if self._remotes is not None else [self._remote(post) for post in self._posts]
        return ClientAccount(**(summed(whole) | {"wall_s": longest}), remotes=remotes)

    def clock(self) -> ClockAccount:
        """Of this machine nothing: its kernel stamped no answer."""
        return ClockAccount()

    def close(self) -> None:
        """End them all; what they said of themselves is kept."""
        if self._remotes is None:
            self._remotes = [self._remote(post) for post in self._posts]
        self._around.close()

    def _remote(self, post: Outpost) -> RemoteClient:
        told: dict[str, Any] = {}
        if post.lost is None:
            try:
                post.say({"ask": "account"})
                told = self._gathered("account", [post.number])[post.number]
            except Exception:
                # Lost while asked: what is not known stays null.
                told = {}
        trips = self._trips[post.number]
        own = {key: value for key, value in summed(self._jobs[post.number]).items() if key in _OWN}
        record = RemoteClient(
            post.host,
            before=trips[0] if trips else None,
            after=trips[1] if len(trips) > 1 else None,
            ways_at_ns=[echo.heard for echo in post.echoes],
            ways_us=[echo.way_ns // 1000 for echo in post.echoes],
            resent=told.get("resent"),
            stopped=told.get("stopped"),
            **own,
        )
        first = self._first.get(post.number)
        if first is None:
            return record
        last = best(post.echoes, time.monotonic_ns())
        return replace(
            record,
            offset_ns=first.offset_ns,
            doubt_ns=first.way_ns // 2,
            moved_ns=last.offset_ns - first.offset_ns,
            doubt_after_ns=last.way_ns // 2,
            apart_s=(last.heard - first.heard) / 1e9,
        )


_OWN = ("cpu_s", "wall_s", "missed", "rss_mib", "loop_lag_p99_ms", "scheduling")


def moved(driven: Driven, number: int, hosts: int, offset_ns: int) -> None:
    """Put a host's rows on our clock, all by the same offset, and say whose they are."""
    for row in driven.requests:
        for name in _STAMPS:
            if row[name] is not None:
                row[name] -= offset_ns
        row["client"] = number
        # Streams are numbered as they would be on one host.
        row["stream"] = row["stream"] * hosts + number
    for name in ("kernel_ns", "user_ns"):
        driven.chunks[name] = [None if stamp is None else stamp - offset_ns for stamp in driven.chunks[name]]


def gathered(parts: Sequence[Driven]) -> Driven:
    """The rows of all hosts in the order of the requests, as from one."""
    whole = Driven(client=summed([part.client for part in parts]))
    whole.requests = sorted((row for part in parts for row in part.requests), key=lambda row: int(row["request_id"]))
    for part in parts:
        for name, values in part.chunks.items():
            whole.chunks.setdefault(name, []).extend(values)
        whole.logprobs += part.logprobs
    return whole
