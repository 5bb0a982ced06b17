"""Requests: durations from stamps, exactly as docs/metrics.md defines them. Null stays null."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bench.analyse import way
from bench.analyse.pace import ONE_PIECE, with_pace
from bench.record.launches import RemoteClient

# Column to add → (end, begin), both stamps in ns.
SPANS: Mapping[str, tuple[str, str]] = {
    "ttfb_ms": ("headers_ns", "sent_ns"),
    "ttfr_ms": ("first_chunk_ns", "sent_ns"),
    "ttft_ms": ("first_token_ns", "sent_ns"),
    "ttfot_ms": ("first_answer_ns", "sent_ns"),
    "ttfa_ms": ("first_argument_ns", "sent_ns"),
    "ttft_scheduled_ms": ("first_token_ns", "intended_ns"),
    "dispatch_delay_ms": ("sent_ns", "intended_ns"),
    "cap_delay_ms": ("released_ns", "intended_ns"),
    "e2el_ms": ("last_token_ns", "sent_ns"),
}
ADDED = (
    *SPANS,
    "round_trip_ms",
    "ttft_near_ms",
    "client_delay_ms",
    "connect_ms",
    "tpot_ms",
    "pace_reason",
    "ntpot_ms",
    "tokens_per_chunk",
    "ok",
)
TOKEN_KINDS = pa.array(["content", "reasoning", "tool"])


def with_durations(requests: pa.Table, remotes: Sequence[RemoteClient] = ()) -> pa.Table:
    """The recorded requests with the columns of `ADDED`; `ok` is false where the request failed.

    `remotes` are the launch's clients on other hosts, whose way to the engine is taken off in `ttft_near_ms`.
    """
    for name, (end, begin) in SPANS.items():
        requests = requests.append_column(name, _ms(pc.subtract(requests[end], requests[begin])))
    tokens = pc.cast(requests["completion_tokens"], pa.float64())
    events = pc.cast(requests["chunks"], pa.float64())
    requests = with_pace(requests)
    # Late because of us: neither the cap's wait nor the opening of a connection is the client's doing.
    free = pc.add(pc.coalesce(requests["released_ns"], requests["intended_ns"]), pc.coalesce(requests["connect_ns"], 0))
    way_ms = way.of_requests(requests, remotes)
    for name, column in {
        "round_trip_ms": way_ms,
        "ttft_near_ms": pc.subtract(requests["ttft_ms"], way_ms),
        "client_delay_ms": _ms(pc.subtract(requests["sent_ns"], free)),
        "connect_ms": _ms(requests["connect_ns"]),
        "ntpot_ms": pc.divide(requests["e2el_ms"], _at_least(tokens, 1.0)),
        "tokens_per_chunk": pc.divide(tokens, _at_least(events, 1.0)),
        "ok": pc.is_null(requests["error_kind"]),
    }.items():
        requests = requests.append_column(name, column)
    return requests


def gaps_ms(chunks: pa.Table, requests: pa.Table) -> npt.NDArray[np.float64]:
    """Inter-token latencies of the steady, successful requests: gaps between token-bearing chunks of one stream, ms.

    A stream is stamped by the kernel or by the client throughout, as its request's `stamp_source` says.
    """
    tokens = chunks.filter(pc.is_in(chunks["kind"], value_set=TOKEN_KINDS))
    steady = requests.filter(pc.and_(requests["measured"], requests["ok"]))
    # What came in one piece has no gaps that an engine made.
    steady = steady.filter(pc.not_equal(pc.fill_null(steady["pace_reason"], ""), ONE_PIECE))
    owner = tokens["request_id"].to_numpy()
    kept = np.isin(owner, steady["request_id"].to_numpy())
    by_kernel = steady.filter(pc.equal(steady["stamp_source"], "kernel"))["request_id"].to_numpy()
    user = tokens["user_ns"].to_numpy()
    kernel = pc.coalesce(tokens["kernel_ns"], tokens["user_ns"]).to_numpy()
    stamps = np.where(np.isin(owner, by_kernel), kernel, user)
    owner, stamps, order = owner[kept], stamps[kept], tokens["seq"].to_numpy()[kept]
    by_time = np.lexsort((order, owner))
    owner, stamps = owner[by_time], stamps[by_time]
    same = owner[1:] == owner[:-1]
    return np.asarray(np.diff(stamps)[same] / 1e6, dtype=np.float64)


def _ms(nanoseconds: pa.ChunkedArray) -> pa.ChunkedArray:
    return pc.divide(pc.cast(nanoseconds, pa.float64()), 1e6)


def _at_least(values: pa.ChunkedArray, least: float) -> pa.ChunkedArray:
    """Values below the least become null: there is nothing to divide by."""
    return pc.if_else(pc.greater_equal(values, least), values, None)
