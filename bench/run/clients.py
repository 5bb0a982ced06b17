"""The hosts that the load comes from instead of this machine: found, looked at and checked before the first launch."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from bench.engines.ports import free_port
from bench.errors import LaunchError, UsageError
from bench.loadgen.outpost import Outpost
from bench.loadgen.remote import Clients
from bench.loadgen.selfcheck import LoadResult, SelfCheck
from bench.phrases import listed
from bench.record.documents import parsed
from bench.scenario.load import Scenario
from bench.scenario.model import ClientPlace

# A self-check takes a few seconds, and half a minute when it is not the quick one.
_CHECK_S = 120.0
_LOOPBACK = re.compile(r"127\.|::1$|localhost$")
# Connections that are tried: whether one comes through, not how long it takes.
_TRIES = 3
# Nobody takes the connections that are timed: they must all find room.
_BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class Reached:
    """Hosts that are there, and what their own clients measured of themselves (`bench selfcheck`), by alias."""

    clients: Clients
    checks: dict[str, Any]


def asked(scenario: Scenario, hosts: Sequence[str], python: str | None, address: str | None) -> ClientPlace | None:
    """Where the load is to come from: what a command says, and else the scenario; None for this machine."""
    own = scenario.model.client
    known = own.model_dump(exclude_unset=True) if own is not None else {}
    said = {"hosts": list(hosts) or None, "python": python, "address": address}
    known |= {key: value for key, value in said.items() if value is not None}
    return _valid(known) if known else None


def checked(host: str, python: str | None, *, quick: bool) -> SelfCheck:
    """What the client on another host measured of itself; UsageError where it cannot be asked."""
    wanted = _valid({"hosts": [host]} | ({} if python is None else {"python": python}))
    try:
        with closing(Outpost(host, wanted.python)) as post:
            return SelfCheck(tuple(parsed(LoadResult, one) for one in _checked(post, quick=quick)))
    except LaunchError as error:
        raise UsageError(error.message) from None


def _valid(known: dict[str, Any]) -> ClientPlace:
    try:
        return ClientPlace.model_validate(known)
    except ValidationError as error:
        what = "; ".join(f"client.{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise UsageError(what, hint="a client's host is a name from ~/.ssh/config: --client NAME") from None


def ready(wanted: ClientPlace, scenario: Scenario, *, check: bool) -> Reached:
    """Reach every host, see that it has what it takes and that it sees us. UsageError says which one, and what to do.

    `check` has each host measure its own client's error.
    """
    started = any(variant.engine.engine != "openai" for variant in scenario.variants)
    refuse(wanted, scenario)
    try:
        with ExitStack() as around:
            posts = []
            for number, host in enumerate(wanted.hosts):
                posts.append(Outpost(host, wanted.python, number))
                around.callback(posts[-1].close)
            address = wanted.address or _seen(posts, needed=started)
            if started:
                _reached(posts, address)
            checks = {post.host: _checked(post, quick=True) for post in posts} if check else {}
    except LaunchError as error:
        raise UsageError(error.message, hint="`bench run` without --client measures from this machine") from None
    return Reached(Clients(tuple(wanted.hosts), wanted.python, address), checks)


def refuse(wanted: ClientPlace, scenario: Scenario) -> None:
    """UsageError where the scenario's load cannot come from there as it is asked for."""
    arrivals = scenario.model.workload.arrivals
    if len(set(wanted.hosts)) < len(wanted.hosts):
        raise UsageError(f"client.hosts names a host twice: {listed(wanted.hosts)}")
    if len(wanted.hosts) > 1 and arrivals.closed is None and arrivals.max_in_flight is not None:
        raise UsageError(
            "max_in_flight caps an open load by the answers to all of it, and no one of several hosts sees them all",
            hint="one client, or no cap",
        )
    if arrivals.closed is not None and arrivals.closed < len(wanted.hosts):
        raise UsageError(f"{len(wanted.hosts)} hosts cannot share {arrivals.closed} closed streams: fewer hosts")


@contextmanager
def listening(host: str, port: int) -> Iterator[None]:
    """Somebody listens at the engine's port while the engine does not, so that the very way to it can be timed."""
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(_BACKLOG)
        yield


def _seen(posts: Sequence[Outpost], *, needed: bool) -> str:
    """The address at which the hosts see us: the one that ssh came from."""
    seen = sorted({post.sees for post in posts})
    if len(seen) == 1 and seen[0] and not (needed and _LOOPBACK.match(seen[0])):
        return seen[0]
    if not needed:
        return ""
    how = "nothing of it" if not seen or not seen[0] else listed(seen)
    raise UsageError(
        f"at which address the engine is seen from {listed(post.host for post in posts)} is not plain (ssh says {how})",
        hint="`client.address` or --client-address: this machine's address as the client's host reaches it",
    )


def _reached(posts: Sequence[Outpost], address: str) -> None:
    try:
        port = free_port(address)
    except OSError as error:
        raise UsageError(
            f"no engine can listen at {address}: {error.strerror or error}",
            hint="`client.address` is an address of this machine, as the client's host reaches it",
        ) from None
    with listening(address, port):
        for post in posts:
            told = post.ask(ask="path", host=address, port=port, most=_TRIES)
            if not told["us"]:
                raise UsageError(
                    f"the client's host {post.host!r} does not reach this machine at {address}: {told['why']}",
                    hint="a firewall, or another address: `client.address` or --client-address",
                )


def _checked(post: Outpost, *, quick: bool) -> Any:
    told = post.ask(_CHECK_S, ask="selfcheck", quick=quick)
    return told["readings"]
