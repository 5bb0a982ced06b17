"""The harness's own error and cost, beside what it measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bench.analyse import way
from bench.analyse.estimate import quantile
from bench.phrases import listed
from bench.record.launches import ClientAccount, RemoteClient
from bench.report.elements import Block, Cell, Heading, Note, Prose, Section, Table
from bench.report.numbers import count, decimals, number
from bench.report.view import View

Said = Callable[[ClientAccount], float | None]
# What the client said of itself, heading and unit.
ACCOUNT: tuple[tuple[Said, str, str], ...] = (
    (lambda client: client.cpu_us_per_event, "client CPU", "µs per event"),
    (lambda client: client.loop_lag_p99_ms, "loop lag p99", "ms"),
    (lambda client: client.rss_mib, "client memory", "MiB"),
)
LAGS = (
    ("client_lag.p50", "lag p50", "µs"),
    ("client_lag.p99", "lag p99", "µs"),
    ("client_delay.p50", "client delay", "ms"),
    ("client_delay.p99", "client delay p99", "ms"),
)
# Key of a self-check's reading → heading and unit.
SELFCHECK = (
    ("error_p50_ms", "error p50", "ms"),
    ("error_p99_ms", "error p99", "ms"),
    ("error_max_ms", "largest", "ms"),
    ("cpu_us_per_event", "CPU", "µs per event"),
    ("headroom", "headroom", "times the load"),
)


def section(view: View) -> Section | None:
    """One row per variant."""
    if not view.measured:
        return None
    lags = [(name, title, unit) for name, title, unit in LAGS if view.known(name)]
    kept = [(said, title, unit) for said, title, unit in ACCOUNT if any(_account(view, v, said) for v in view.measured)]
    if not lags and not kept:
        return None
    columns = {title: [view.value(variant, name) for variant in view.measured] for name, title, _ in lags}
    columns |= {title: [_median(_account(view, variant, said)) for variant in view.measured] for said, title, _ in kept}
    together = [_coalesced(view, variant) for variant in view.measured]
    rows = [
        (
            Cell(variant, colour=view.colour(variant)),
            *(Cell(number(values[place], decimals(values))) for values in columns.values()),
            Cell("–" if together[place] is None else f"{number(100 * (together[place] or 0.0), 1)} %"),
        )
        for place, variant in enumerate(view.measured)
    ]
    head = (
        Heading("variant"),
        *(Heading(title, unit, numeric=True) for _, title, unit in (*lags, *kept)),
        Heading("coalesced", "of events", numeric=True),
    )
    words = (
        "Lag is how much later the client held the first token than the kernel had received it; stamps are the "
        "kernel's where it gives them. Coalesced events came in one read with an earlier one: they left the server "
        "together, or the client was late. Client delay is how much later a request left than it "
        "could have: waiting for max_in_flight or for a connection is not in it."
    )
    checked = _selfcheck(view.run.manifest.fingerprint.get("client"))
    return Section(
        "client", "The client's own error", (Table(head, tuple(rows)), Prose((words,)), *_hosts(view), *checked)
    )


def notes(view: View) -> Iterator[Note]:
    """That the client was elsewhere, and what the way to it has of every figure."""
    hosts = list(dict.fromkeys(remote.host for remote, _ in _remotes(view)))
    if not hosts:
        return
    trips = [value for variant in view.measured if (value := view.value(variant, "round_trip.p50")) is not None]
    where = f"The load came from {listed(hosts)}"
    if not trips:
        yield Note(f"{where}, and the way from there was not timed.", "", "warn")
        return
    longest = number(max(trips), 2)
    yield Note(
        f"{where}: every TTFT has a round trip of {longest} ms in it (median).",
        "“TTFT less round trip” is what a client beside the engine would have seen; cold TTFT has the way in it too.",
    )


def _remotes(view: View) -> Iterator[tuple[RemoteClient, pa.Table]]:
    """Every host of every launch that counts, with its steady requests."""
    for variant in view.measured:
        for launch in view.valid(variant):
            requests = launch.requests()
            steady = requests.filter(requests["measured"])
            for place, remote in enumerate(launch.record.client.remotes):
                yield remote, steady.filter(pc.fill_null(pc.equal(steady["client"], place), False))


def _hosts(view: View) -> Iterator[Block]:
    """One row per host: the way, its clock, and what it did."""
    by_host: dict[str, list[tuple[RemoteClient, pa.Table]]] = {}
    for remote, mine in _remotes(view):
        by_host.setdefault(remote.host, []).append((remote, mine))
    if not by_host:
        return
    rows = []
    for host, seen in by_host.items():
        trips = np.concatenate([way.round_trips_ms(remote) for remote, _ in seen])
        delays = np.concatenate([mine["client_delay_ms"].drop_null().to_numpy() for _, mine in seen])
        ttft = np.concatenate([mine["ttft_ms"].drop_null().to_numpy() for _, mine in seen])
        near = np.concatenate([mine["ttft_near_ms"].drop_null().to_numpy() for _, mine in seen])
        doubts = [doubt for remote, _ in seen if (doubt := way.doubt_ms(remote)) is not None]
        drifts = [drift for remote, _ in seen if (drift := way.drift_ppm(remote)) is not None]
        resent = [remote.resent for remote, _ in seen if remote.resent is not None]
        values = (
            float(trips.min()) if len(trips) else None,
            quantile(trips, 0.5).value,
            quantile(trips, 0.99).value,
            quantile(ttft, 0.5).value,
            quantile(near, 0.5).value,
            quantile(delays, 0.99).value,
            max(doubts, default=None),
            max(drifts, key=abs, default=None),
        )
        cells = (Cell(number(value, 2)) for value in values)
        sent = sum(len(mine) for _, mine in seen)
        rows.append((Cell(host, count(sent, "request")), *cells, Cell(number(sum(resent), 0) if resent else "–")))
    head = (
        Heading("client's host"),
        Heading("round trip, least", "ms", numeric=True),
        Heading("median", "ms", numeric=True),
        Heading("p99", "ms", numeric=True),
        Heading("TTFT p50", "ms", numeric=True),
        Heading("less round trip", "ms", numeric=True),
        Heading("client delay p99", "ms", numeric=True),
        Heading("clock known to ±", "ms", numeric=True),
        Heading("drift", "ppm", numeric=True),
        Heading("sent again", "packets", numeric=True),
    )
    yield Table(head, tuple(rows), "The load came from other hosts, and this is the way from each of them")
    yield Prose(
        (
            "A round trip is a TCP handshake with the engine's port as the client's kernel timed it, before and after "
            "each launch. The clocks of two hosts are compared by messages through ssh; what these leave open is the "
            "uncertainty of cold TTFT and of whatever else begins on one host and ends on another. A request begins "
            "and ends on the client's. A drift is given where it is larger than the uncertainty.",
        )
    )


def _selfcheck(client: object) -> Iterator[Table]:
    """What the client measured of itself on each of its hosts, against a server that logs when its bytes leave."""
    if not isinstance(client, Mapping):
        return
    hosts = client.get("hosts")
    by_host = hosts if isinstance(hosts, Mapping) else {None: client.get("readings")}
    rows = []
    for host, readings in by_host.items():
        for reading in readings if isinstance(readings, list) else ():
            load = reading.get("load") or {}
            name = str(load.get("name", "–")) + (f", on {host}" if host else "")
            detail = f"{load.get('ttft_ms')} ms to the first token, {load.get('itl_ms')} ms between tokens"
            rows.append((Cell(name, detail), *(Cell(number(_number(reading.get(key)))) for key, _, _ in SELFCHECK)))
    if not rows:
        return
    head = (Heading("load"), *(Heading(title, unit, numeric=True) for _, title, unit in SELFCHECK))
    where = "on its own host" if isinstance(hosts, Mapping) else "on this host"
    words = f"The client against a server that logs when its bytes leave, {where} before the run"
    yield Table(head, tuple(rows), words)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _account(view: View, variant: str, said: Said) -> list[float]:
    found = (said(launch.record.client) for launch in view.valid(variant))
    return [value for value in found if value is not None]


def _median(values: Sequence[float]) -> float | None:
    return median(values) if values else None


def _coalesced(view: View, variant: str) -> float | None:
    requests = view.run.requests
    mine = requests[(requests["variant"] == variant) & requests["measured"]]
    events = float(mine["chunks"].sum())
    return float(mine["coalesced"].sum()) / events if events else None
