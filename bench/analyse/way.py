"""The way between a client on another host and the engine: what it adds to a first token, from the recorded samples."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bench.analyse.estimate import quantile
from bench.record.launches import RemoteClient

Values = npt.NDArray[np.float64]


def round_trips_ms(remote: RemoteClient) -> Values:
    """Every handshake that came through, before and after, ms."""
    both = [trips.us for trips in (remote.before, remote.after) if trips is not None]
    return np.concatenate([np.asarray(us, dtype=np.float64) for us in both]) / 1000 if both else np.empty(0)


def round_trip_ms(remote: RemoteClient) -> float | None:
    """The median round trip, ms: what the way takes of each first token."""
    return quantile(round_trips_ms(remote), 0.5).value


def echoes_ms(remote: RemoteClient, window: tuple[int, int] | None) -> tuple[Values, Values]:
    """Round trips of the messages about the clock, ms: before the window, and within it. They go through ssh, so only
    how they change means anything."""
    at, ways = np.asarray(remote.ways_at_ns), np.asarray(remote.ways_us, dtype=np.float64) / 1000
    if window is None or not len(at):
        return ways, ways[:0]
    return ways[at < window[0]], ways[(at >= window[0]) & (at <= window[1])]


def of_requests(requests: pa.Table, remotes: Sequence[RemoteClient]) -> pa.Array:
    """The round trip of each request's client, ms; null where the client was on this machine, or it is not known."""
    if not remotes:
        return pa.nulls(len(requests), pa.float64())
    known = {number: round_trip_ms(remote) for number, remote in enumerate(remotes)}
    return pa.array([known.get(number) for number in requests["client"].to_pylist()], pa.float64())


def doubt_ms(remote: RemoteClient) -> float | None:
    """By how much stamps of that host may be wrong on our clock, ms: what the messages leave open, and what the clocks
    parted during the launch."""
    if remote.doubt_ns is None or remote.doubt_after_ns is None or remote.moved_ns is None:
        return None
    return (max(remote.doubt_ns, remote.doubt_after_ns) + abs(remote.moved_ns)) / 1e6


def drift_ppm(remote: RemoteClient) -> float | None:
    """How fast the clocks parted, millionths; null where the time between was too short to say it."""
    if remote.moved_ns is None or not remote.apart_s or remote.doubt_ns is None or remote.doubt_after_ns is None:
        return None
    seen = abs(remote.moved_ns) > remote.doubt_ns + remote.doubt_after_ns
    return remote.moved_ns / remote.apart_s / 1000 if seen else None
