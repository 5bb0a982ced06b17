"""What Prometheus reads: one registry per endpoint, rendered when its canary ends, and joined family by family.

Joining is what a scrape costs; rendering hundreds of histograms at once would take longer than a scrape may.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)

from bench import __version__

# When a counter began is of no use to anyone here, and a third of all lines.
disable_created_metrics()  # type: ignore[no-untyped-call]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# OpenTelemetry's bounds for a server's first token, and those that vLLM adds above: 10 ms is too coarse at the bottom.
BOUNDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0),
    *(20.0, 40.0, 80.0, 160.0, 640.0),
)
# Of a text that a server chose, no more than this becomes a label.
LONGEST_LABEL = 128
# name → (help, labels beside the endpoint); units are Prometheus' base units.
GAUGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "firsttoken_canary_success": ("Whether the last canary was answered", ()),
    "firsttoken_latency_seconds": ("First token of the last warm canary with an unseen prompt", ()),
    "firsttoken_first_after_idle_seconds": ("First token of the last canary after a pause", ()),
    "firsttoken_throughput_tokens_per_second": ("Tokens after the first of the last canary, one stream", ()),
    "firsttoken_memory_bytes": ("Resident memory of the engine's processes", ()),
    "firsttoken_processor_cores": ("Processors that the engine kept busy since the round before", ()),
    "firsttoken_availability_ratio": ("Share of the last canaries that were answered", ()),
    "firsttoken_threshold_seconds": ("Limit of a figure that is a time", ("figure", "level")),
    "firsttoken_threshold_tokens_per_second": ("Limit of the throughput", ("level",)),
    "firsttoken_threshold_bytes": ("Limit of the memory", ("level",)),
    "firsttoken_threshold_cores": ("Limit of the processor use", ("level",)),
    "firsttoken_threshold_ratio": ("Limit of the availability", ("level",)),
    "firsttoken_state": ("0 ok, 1 warning, 2 alarm; a figure that is not judged has none", ("figure",)),
    "firsttoken_ttft_window_seconds": ("Exact quantile of the last canaries' first token", ("stream", "q")),
    "firsttoken_last_success_timestamp_seconds": ("When a canary was last answered", ()),
    "firsttoken_last_canary_timestamp_seconds": ("When a canary last ended, well or badly", ()),
    "firsttoken_canary_interval_seconds": ("Pause between two rounds of canaries", ()),
    "firsttoken_idle_seconds": ("Pause before the last canary of the stream idle, as far as we asked", ()),
    "firsttoken_client_lag_seconds": ("How much later than the kernel the client saw the last first token", ()),
    "firsttoken_cached_tokens": ("Prompt tokens of the last cached canary that a prefix cache answered", ()),
    "firsttoken_budget_tokens": ("Tokens that canaries may cost a day", ()),
    "firsttoken_budget_used_tokens": ("Tokens that they have cost today (UTC)", ()),
    "firsttoken_change_evidence_ratio": ("Evidence for a slower first token; at 1 a change is told", ()),
}
COUNTERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "firsttoken_canaries": ("Canaries by what became of them", ("stream", "result")),
    "firsttoken_canaries_skipped": ("Rounds that were not asked, and why", ("reason",)),
    "firsttoken_judged_canaries": ("Canaries that count for attainment: answered warm ones, and all failed ones", ()),
    "firsttoken_good_canaries": ("Of those, the answered ones whose first token came within the warning limit", ()),
    "firsttoken_changes": ("Changes to a slower first token that were told", ()),
}
HISTOGRAMS: Mapping[str, str] = {
    "firsttoken_ttft_seconds": "First token: from sending the request to the first content or reasoning",
    "gen_ai_client_operation_time_to_first_chunk_seconds": "First chunk with choices, whatever it holds",
    "firsttoken_tpot_seconds": "Mean time of a token after the first",
}


class Exposed:
    """One endpoint's series. Set what is known; what is not known any more is taken away, never zero."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.registry = CollectorRegistry()
        self._gauges = {
            name: Gauge(name, text, ("endpoint", *labels), registry=self.registry)
            for name, (text, labels) in GAUGES.items()
        }
        self._counters = {
            name: Counter(name, text, ("endpoint", *labels), registry=self.registry)
            for name, (text, labels) in COUNTERS.items()
        }
        self._histograms = {
            name: Histogram(name, text, ("endpoint", "stream"), buckets=BOUNDS, registry=self.registry)
            for name, text in HISTOGRAMS.items()
        }
        self._info = Gauge(
            "firsttoken_endpoint_info", "What is watched", ("endpoint", "model", "address"), registry=self.registry
        )

    def gauge(self, name: str, value: float | None, *labels: str) -> None:
        """Set a gauge, or take it away."""
        where = (self.endpoint, *labels)
        if value is None:
            # Taking away what is not there is no fault.
            if where in self._gauges[name]._metrics:
                self._gauges[name].remove(*where)
        else:
            self._gauges[name].labels(*where).set(value)

    def count(self, name: str, *labels: str, by: float = 1) -> None:
        """Count up; by zero makes the series appear, so that its first increase is seen."""
        self._counters[name].labels(self.endpoint, *labels).inc(by)

    def observe(self, name: str, stream: str, seconds: float) -> None:
        """Put a duration into its histogram."""
        self._histograms[name].labels(self.endpoint, stream).observe(seconds)

    def info(self, model: str, address: str) -> None:
        """Say what is watched: one series, whatever a server calls its model from time to time."""
        self._info.clear()
        self._info.labels(self.endpoint, model[:LONGEST_LABEL], address[:LONGEST_LABEL]).set(1)

    def families(self) -> dict[str, tuple[str, str]]:
        """name → (HELP and TYPE, samples), as Prometheus' text format has them."""
        return split(generate_latest(self.registry).decode())


def split(text: str) -> dict[str, tuple[str, str]]:
    """A text exposition by family; families without samples are left out."""
    found: dict[str, tuple[str, str]] = {}
    for block in text.split("# HELP ")[1:]:
        first, second, *samples = block.splitlines(keepends=True)
        if samples:
            found[first.partition(" ")[0]] = (f"# HELP {first}{second}", "".join(samples))
    return found


@dataclass(slots=True)
class Exposition:
    """All endpoints' series and the monitor's own."""

    own: CollectorRegistry = field(default_factory=CollectorRegistry)
    _rendered: dict[str, dict[str, tuple[str, str]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ProcessCollector(registry=self.own)
        build = Gauge("firsttoken_build_info", "Version of the monitor", ("version",), registry=self.own)
        build.labels(__version__).set(1)

    def own_counter(self, name: str, text: str) -> Counter:
        """A counter of the monitor itself."""
        return Counter(name, text, registry=self.own)

    def render(self, exposed: Exposed) -> None:
        """Take an endpoint's series as they are now."""
        self._rendered[exposed.endpoint] = exposed.families()

    def text(self) -> str:
        """Everything, for one scrape."""
        return joined([split(generate_latest(self.own).decode()), *self._rendered.values()])

    def of(self, endpoint: str, more: Sequence[tuple[str, str, float]] = ()) -> str:
        """One endpoint's series, and further gauges (name, help, value): the answer to /probe."""
        registry = CollectorRegistry()
        for name, text, value in more:
            Gauge(name, text, registry=registry).set(value)
        return joined([split(generate_latest(registry).decode()), self._rendered.get(endpoint, {})])


def joined(parts: Iterable[Mapping[str, tuple[str, str]]]) -> str:
    """Families of several registries as one text: each family once, with everybody's samples."""
    heads: dict[str, str] = {}
    samples: dict[str, list[str]] = {}
    for part in parts:
        for name, (head, lines) in part.items():
            heads.setdefault(name, head)
            samples.setdefault(name, []).append(lines)
    return "".join(piece for name, head in heads.items() for piece in (head, *samples[name]))
