"""Every metric that can be reported, gated or compared, in one table, and how a launch is reduced to them.

docs/metrics.md says the same in words. A metric is either a statistic over the steady requests of a launch
(`ttft.p50`) or one value per launch (`cold_ttft`). What cannot be computed is null.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bench.analyse.estimate import needed
from bench.analyse.pace import unobserved
from bench.errors import UnknownName
from bench.record.launches import LaunchRecord

Values = npt.NDArray[np.float64]
Direction = Literal["lower", "higher", "neither"]
Kind = Literal["quantile", "launch"]

STATISTICS: Mapping[str, float | None] = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "mean": None}


@dataclass(frozen=True, slots=True)
class Family:
    """A per-request (or, for ITL, per-gap) measure, over which statistics are taken."""

    id: str
    title: str
    unit: str
    column: str | None
    doc: str
    direction: Direction = "lower"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric. `needs` is the smallest number of requests in a launch for which it is given.

    `by_difference` marks a share whose healthy value is zero: no ratio to it can be taken, so two are compared in
    percentage points, and so is its margin.
    """

    id: str
    title: str
    unit: str
    direction: Direction
    kind: Kind
    doc: str
    family: str
    q: float | None = None
    needs: int = 1
    by_difference: bool = False


FAMILIES = {
    family.id: family
    for family in (
        Family("ttft", "TTFT", "ms", "ttft_ms", "first non-empty content or reasoning − request sent"),
        Family("ttft_near", "TTFT less round trip", "ms", "ttft_near_ms", "TTFT − the way to a client on another host"),
        Family("ttfr", "TTFR", "ms", "ttfr_ms", "first event with choices, even an empty one − request sent"),
        Family("ttfot", "TTFOT", "ms", "ttfot_ms", "first token that is not reasoning − request sent"),
        Family("ttfa", "TTFA", "ms", "ttfa_ms", "first fragment of a tool call's arguments − request sent"),
        Family("ttft_scheduled", "TTFT scheduled", "ms", "ttft_scheduled_ms", "first token − intended send"),
        Family("dispatch_delay", "dispatch delay", "ms", "dispatch_delay_ms", "request sent − intended send"),
        Family("cap_delay", "wait for the cap", "ms", "cap_delay_ms", "let go by max_in_flight − intended send"),
        Family("client_delay", "client delay", "ms", "client_delay_ms", "late because of the client alone"),
        Family("ttfb", "TTFB", "ms", "ttfb_ms", "first byte of the response − request sent"),
        Family("e2el", "E2EL", "ms", "e2el_ms", "last output − request sent"),
        Family("tpot", "TPOT", "ms", "tpot_ms", "(E2EL − TTFT)/(N − tokens of the first event)"),
        Family("ntpot", "NTPOT", "ms", "ntpot_ms", "E2EL/N"),
        Family("itl", "ITL", "ms", None, "gaps between token-bearing chunks, pooled over the launch"),
        Family("round_trip", "round trip", "ms", "round_trip_ms", "median way to a client on another host and back"),
        Family("connect", "connect", "ms", "connect_ms", "opening a connection, where one was opened"),
        Family("tokens_per_chunk", "tokens per chunk", "tok", "tokens_per_chunk", "N/number of chunks", "neither"),
        Family("client_lag", "client lag", "µs", "client_lag_us", "user stamp − kernel stamp of the first token"),
    )
}

_BY_DIFFERENCE = frozenset({"error_rate", "cached_tokens"})
_BUCKET = re.compile(r"(ttft)\[(\d+)\]")
_LAUNCH: tuple[tuple[str, str, str, Direction, str], ...] = (
    ("cold_ttft", "cold TTFT", "s", "lower", "engine spawned → first token of the workload's first request"),
    ("startup", "startup", "s", "lower", "engine spawned → first token of the launch's first completion"),
    ("warmup", "warm-up", "s", "lower", "ready → the warm-up strategy is satisfied; 0 if it asks for nothing"),
    ("first_ttft", "first-request TTFT", "ms", "lower", "TTFT of the workload's first request"),
    ("output_throughput", "output throughput", "tok/s", "higher", "ΣN/T"),
    ("total_throughput", "total throughput", "tok/s", "higher", "Σ(I + N)/T"),
    ("request_throughput", "request throughput", "req/s", "higher", "completed requests/T"),
    ("goodput", "goodput", "req/s", "higher", "requests that met every SLO/T"),
    ("slo_attainment", "SLO attainment", "", "higher", "requests that met every SLO/requests sent"),
    ("error_rate", "failed requests", "", "lower", "failed requests/requests sent"),
    ("cached_tokens", "cached prompt tokens", "", "neither", "share of prompt tokens served from a prefix cache"),
    ("memory.idle", "memory idle", "MiB", "lower", "memory of the launch before its first workload request"),
    ("memory.peak", "memory peak", "MiB", "lower", "the most memory that the launch held"),
    ("memory.steady", "memory steady", "MiB", "lower", "median memory of the launch during the steady requests"),
    ("energy.startup", "energy of the start", "J", "lower", "energy from spawn to ready"),
    ("energy.warmup", "energy of the warm-up", "J", "lower", "energy from ready to the warm-up's end"),
    ("energy.per_token", "energy per token", "J/tok", "lower", "energy of the steady window/tokens produced in it"),
    ("energy.per_request", "energy per request", "J", "lower", "energy of the steady window/requests completed in it"),
)


def _statistics(family: Family) -> Iterator[Metric]:
    for statistic, q in STATISTICS.items():
        yield Metric(
            id=f"{family.id}.{statistic}",
            title=f"{family.title} {statistic}",
            unit=family.unit,
            direction=family.direction,
            kind="quantile",
            doc=f"{statistic} of {family.doc}",
            family=family.id,
            q=q,
            # A launch's own median stands at any size: the launches, not the requests, carry its error.
            needs=needed(q) if q and q > 0.5 else 1,
        )


METRICS: dict[str, Metric] = {
    **{metric.id: metric for family in FAMILIES.values() for metric in _statistics(family)},
    **{
        name: Metric(name, title, unit, direction, "launch", doc, name, by_difference=name in _BY_DIFFERENCE)
        for name, title, unit, direction, doc in _LAUNCH
    },
}


def family(name: str) -> Family:
    """The family of that id; `ttft[128]` is TTFT of the prompts of 128 tokens alone. KeyError if there is none."""
    if found := _BUCKET.fullmatch(name):
        whole, tokens = FAMILIES[found[1]], found[2]
        return replace(
            whole, id=name, title=f"{whole.title} ({tokens} tokens)", doc=f"{whole.doc}, {tokens}-token prompts"
        )
    return FAMILIES[name]


def metric(name: str) -> Metric:
    """The metric of that id; a bare family means its median. UnknownName says which there are."""
    if name in METRICS:
        return METRICS[name]
    head, _, statistic = name.partition(".")
    try:
        return {item.id: item for item in _statistics(family(head))}[f"{head}.{statistic or 'p50'}"]
    except KeyError:
        raise UnknownName("metric", name, METRICS) from None


def comparable(measure: Metric, values: npt.ArrayLike) -> Values:
    """Values on the scale on which they are compared: logarithms, or the shares themselves."""
    found = np.asarray(values, dtype=np.float64)
    return found if measure.by_difference else np.log(found)


def change(measure: Metric, difference: float) -> float:
    """A difference on that scale as a factor; of a share that is compared by difference, one plus the difference."""
    return 1 + difference if measure.by_difference else math.exp(difference)


def of_launch(
    record: LaunchRecord, requests: pa.Table, samples: Mapping[str, Values], slo: Mapping[str, float]
) -> dict[str, float | None]:
    """Every metric of one launch, by id."""
    return statistics_of(samples) | stamps_of(record) | rates_of(requests, slo)


def samples_of(requests: pa.Table, gaps: Values) -> dict[str, Values]:
    """Per family, the values of a launch's steady, successful requests; nulls are gone. Where prompt lengths are mixed,
    TTFT is there by length too."""
    steady = requests.filter(pc.and_(requests["measured"], requests["ok"]))
    found = {
        family.id: np.asarray(steady[family.column].drop_null().to_numpy(), dtype=np.float64)
        for family in FAMILIES.values()
        if family.column
    }
    buckets = pc.unique(steady["bucket"]).drop_null().to_pylist()
    for tokens in sorted(buckets) if len(buckets) > 1 else ():
        part = steady.filter(pc.equal(steady["bucket"], tokens))["ttft_ms"]
        found[f"ttft[{tokens}]"] = np.asarray(part.drop_null().to_numpy(), dtype=np.float64)
    return found | {"itl": gaps}


def statistics_of(samples: Mapping[str, Values]) -> dict[str, float | None]:
    """Every statistic that the samples of one launch carry; a tail that they do not is null."""
    found: dict[str, float | None] = dict.fromkeys(METRICS)
    for family, values in samples.items():
        wanted = {name: q for name, q in STATISTICS.items() if q and (q <= 0.5 or len(values) >= needed(q))}
        quantiles = np.quantile(values, list(wanted.values())) if len(values) else ()
        found |= dict.fromkeys((f"{family}.{name}" for name in STATISTICS), None)
        found |= {f"{family}.{name}": float(value) for name, value in zip(wanted, quantiles, strict=False)}
        found[f"{family}.mean"] = float(values.mean()) if len(values) else None
    return found


def stamps_of(record: LaunchRecord) -> dict[str, float | None]:
    """What the launch's own stamps say, in seconds."""

    def seconds(end: str, begin: str) -> float | None:
        last, first = record.stamps.get(end), record.stamps.get(begin)
        return None if last is None or first is None else (last - first) / 1e9

    warmup = seconds("warmup_end", "ready")
    return {
        "cold_ttft": seconds("first_token", "spawn"),
        "startup": seconds("ready", "spawn"),
        # Without warm-up requests the workload's own first one makes the launch ready: later than the strategy's end.
        "warmup": warmup if warmup is None else max(0.0, warmup),
    }


def rates_of(requests: pa.Table, slo: Mapping[str, float]) -> dict[str, float | None]:
    """Throughputs over T, from the first steady send to the last steady completion, and what became of the requests."""
    steady = requests.filter(requests["measured"])
    done = steady.filter(steady["ok"])
    begin, end = pc.min(steady["sent_ns"]).as_py(), pc.max(steady["end_ns"]).as_py()
    window = (end - begin) / 1e9 if begin is not None and end is not None and end > begin else None
    produced, asked = _total(done["completion_tokens"]), _total(done["prompt_tokens"])
    good = _good(done, slo)
    sent = len(steady)
    first = requests.filter(pc.equal(requests["stage"], "first"))["ttft_ms"]
    cached, prompt = _total(done["cached_tokens"]), asked
    return {
        "first_ttft": first[0].as_py() if len(first) else None,
        "output_throughput": _ratio(produced, window),
        "total_throughput": _ratio(None if produced is None or asked is None else produced + asked, window),
        "request_throughput": _ratio(float(len(done)) if sent else None, window),
        "goodput": _ratio(good, window),
        "slo_attainment": _ratio(good, sent),
        "error_rate": _ratio(float(sent - len(done)), sent),
        "cached_tokens": _ratio(cached, prompt),
    }


def _good(done: pa.Table, slo: Mapping[str, float]) -> float | None:
    """How many met every limit. A single token has no pace to miss; a pace that cannot be known leaves this null."""
    if not slo:
        return None
    met = np.ones(len(done), dtype=bool)
    for name, limit in slo.items():
        values = done[f"{name}_ms"].to_numpy()
        if name == "tpot":
            if unobserved(done["pace_reason"].to_pylist()):
                return None
            values = np.where(np.isnan(values), 0.0, values)
        met &= values <= limit
    return float(met.sum())


def _total(column: pa.ChunkedArray) -> float | None:
    """The sum, or null where a single one is unknown: a partial sum would pass for a low throughput."""
    return None if column.null_count or not len(column) else float(pc.sum(column).as_py())


def _ratio(numerator: float | None, denominator: float | None) -> float | None:
    return None if numerator is None or not denominator else numerator / denominator
