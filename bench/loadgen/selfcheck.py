"""How far this client can be trusted on this very host: it is run against a scripted server that logs the truth.

The error of a time to first token is what the client reports less what the server's log says passed between the
arrival of the request's last byte and the sending of the first token's first byte.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.errors import InternalError
from bench.loadgen.generator import LoadGenerator
from bench.loadgen.job import Driven, Job, Request
from bench.scenario.model import Arrivals

SERVER = "bench.emulate.server.program"


@dataclass(frozen=True, slots=True)
class Load:
    """One load of the check: times in ms, tokens per answer."""

    name: str
    streams: int
    requests: int
    ttft_ms: float
    itl_ms: float
    tokens: int


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What one load showed. Errors of the time to first token in ms; `bias` is their mean, the others are absolute.

    `gap_error` is the same for the times between tokens, all of them pooled. `server_late` is how far behind its own
    script the server was, which is not the client's error. `cpu_us_per_event` is spent while driving,
    `parse_us_per_event` afterwards. `capacity_per_s` is the events that one core could take in at this cost, and
    `headroom` how often this load fits into it.
    """

    load: Load
    stamp_source: str
    scheduling: str
    failed: int
    bias_ms: float
    error_p50_ms: float
    error_p99_ms: float
    error_max_ms: float
    gap_error_p50_ms: float
    gap_error_p99_ms: float
    client_lag_p50_ms: float | None
    client_lag_p99_ms: float | None
    server_late_p99_ms: float
    events: int
    coalesced: int
    cpu_us_per_event: float
    parse_us_per_event: float
    capacity_per_s: float
    headroom: float
    rss_mib: float


@dataclass(frozen=True, slots=True)
class SelfCheck:
    """The client's own error on this host, by load."""

    readings: tuple[LoadResult, ...]


FULL = (
    Load("one stream", streams=1, requests=100, ttft_ms=50, itl_ms=5, tokens=32),
    Load("64 streams", streams=64, requests=640, ttft_ms=100, itl_ms=10, tokens=128),
)
QUICK = (
    Load("one stream", streams=1, requests=15, ttft_ms=50, itl_ms=5, tokens=8),
    Load("64 streams", streams=64, requests=128, ttft_ms=100, itl_ms=10, tokens=32),
)


def selfcheck(*, quick: bool = False) -> SelfCheck:
    """Run the client against the scripted server: half a minute, or a few seconds when `quick`."""
    return SelfCheck(tuple(check(load) for load in (QUICK if quick else FULL)))


def check(load: Load) -> LoadResult:
    """One load, driven and compared with the server's log."""
    with tempfile.TemporaryDirectory(prefix="firsttoken-") as folder:
        truth = Path(folder) / "truth.jsonl"
        script = {"ttft_ms": load.ttft_ms, "itl_ms": load.itl_ms}
        with server(script, truth=truth) as port, LoadGenerator() as generator:
            driven = generator.drive(_job(load, port))
        return _reading(load, driven, read_truth(truth))


@contextmanager
def server(script: dict[str, Any], *, truth: Path | None = None, **options: str) -> Iterator[int]:
    """A scripted server in a process of its own while the block runs; gives its port."""
    flags = {"script": json.dumps(script), **({"truth": str(truth)} if truth else {}), **options}
    flags["die-with-parent"] = str(os.getpid())
    argv = [sys.executable, "-m", SERVER, *(f"--{name}={value}" for name, value in flags.items())]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, process_group=0) as process:
        assert process.stdout is not None
        try:
            said = process.stdout.readline()
            if not said.startswith("listening on "):
                raise InternalError(f"the scripted server did not start; it said {said.strip()!r}")
            yield int(said.rsplit(":", 1)[1]) if said.startswith("listening on http") else 0
        finally:
            process.send_signal(signal.SIGTERM)


def read_truth(file: Path) -> dict[int, dict[str, Any]]:
    """The server's log by request id."""
    entries = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return {int(entry["request"].rsplit("-", 1)[1]): entry for entry in entries if entry["request"]}


def true_ttft_ns(entry: dict[str, Any]) -> int:
    """From the arrival of the request's last byte to the sending of the first token's first byte."""
    arrived: int = entry["kernel_ns"] or entry["received_ns"]
    left: int = next(before for _, before, _, kind, _ in entry["sends"] if kind in ("content", "reasoning"))
    return left - arrived


def _job(load: Load, port: int) -> Job:
    asked = tuple(
        Request(
            request_id=number,
            prompt_id=f"selfcheck-{number}",
            stage="measured",
            path="/v1/completions",
            body={
                "prompt": [number, 1, 2, 3],
                "max_tokens": load.tokens,
                "stream": True,
                "stream_options": {"include_usage": True},
            },
            output_tokens=load.tokens,
        )
        for number in range(load.requests)
    )
    return Job("127.0.0.1", port, asked, Arrivals(closed=load.streams), timeout_s=60.0)


def _reading(load: Load, driven: Driven, truth: dict[int, dict[str, Any]]) -> LoadResult:
    answered = [row for row in driven.requests if row["error_kind"] is None]
    if not answered:
        raise InternalError(f"the self-check's requests failed; the first said: {driven.requests[0]['error']}")
    errors = [
        (row["first_token_ns"] - row["sent_ns"] - true_ttft_ns(truth[row["request_id"]])) / 1e6 for row in answered
    ]
    gaps = _gap_errors(driven.chunks, truth)
    late = [(before - due) / 1e6 for row in answered for due, before, *_ in truth[row["request_id"]]["sends"]]
    lags = [row["client_lag_us"] / 1e3 for row in answered if row["client_lag_us"] is not None]
    client, absolute = driven.client, [abs(error) for error in errors]
    cost = client["cpu_s"] * 1e6 / client["events"]
    return LoadResult(
        load=load,
        stamp_source="kernel" if all(row["stamp_source"] == "kernel" for row in answered) else "user",
        scheduling=client["scheduling"],
        failed=len(driven.requests) - len(answered),
        bias_ms=sum(errors) / len(errors),
        error_p50_ms=_quantile(absolute, 0.5),
        error_p99_ms=_quantile(absolute, 0.99),
        error_max_ms=max(absolute),
        gap_error_p50_ms=_quantile(gaps, 0.5),
        gap_error_p99_ms=_quantile(gaps, 0.99),
        client_lag_p50_ms=_quantile(lags, 0.5) if lags else None,
        client_lag_p99_ms=_quantile(lags, 0.99) if lags else None,
        server_late_p99_ms=_quantile(late, 0.99),
        events=client["events"],
        coalesced=sum(row["coalesced"] for row in answered),
        cpu_us_per_event=cost,
        parse_us_per_event=client["parse_cpu_s"] * 1e6 / client["events"],
        capacity_per_s=1e6 / cost,
        headroom=1e6 / cost / (client["events"] / client["wall_s"]),
        rss_mib=client["rss_mib"],
    )


def _gap_errors(chunks: dict[str, list[Any]], truth: dict[int, dict[str, Any]]) -> list[float]:
    """Absolute errors of the gaps between token events, ms."""
    seen: dict[int, list[int]] = {}
    rows = zip(chunks["request_id"], chunks["kind"], chunks["kernel_ns"], chunks["user_ns"], strict=True)
    for request_id, kind, kernel, user in rows:
        if kind in ("content", "reasoning"):
            seen.setdefault(request_id, []).append(user if kernel is None else kernel)
    errors: list[float] = []
    for request_id, stamps in seen.items():
        left = [before for _, before, _, kind, _ in truth[request_id]["sends"] if kind in ("content", "reasoning")]
        pairs = zip(pairwise(stamps), pairwise(left), strict=True)
        errors += [abs((b - a) - (y - x)) / 1e6 for (a, b), (x, y) in pairs]
    return errors


def _quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]
