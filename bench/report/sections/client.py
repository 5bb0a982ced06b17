"""The harness's own error and cost, beside what it measured."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median

from bench.record.launches import ClientAccount
from bench.report.elements import Cell, Heading, Prose, Section, Table
from bench.report.numbers import decimals, number
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
    return Section("client", "The client's own error", (Table(head, tuple(rows)), Prose((words,)), *checked))


def _selfcheck(client: object) -> Iterator[Table]:
    """What the client measured of itself on this host, against a server that logs when its bytes leave."""
    readings = client.get("readings") if isinstance(client, Mapping) else None
    if not isinstance(readings, list) or not readings:
        return
    rows = []
    for reading in readings:
        load = reading.get("load") or {}
        detail = f"{load.get('ttft_ms')} ms to the first token, {load.get('itl_ms')} ms between tokens"
        cells = (Cell(number(_number(reading.get(key))), tone="") for key, _, _ in SELFCHECK)
        rows.append((Cell(str(load.get("name", "–")), detail), *cells))
    head = (Heading("load"), *(Heading(title, unit, numeric=True) for _, title, unit in SELFCHECK))
    yield Table(
        head, tuple(rows), "The client against a server that logs when its bytes leave, on this host before the run"
    )


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
