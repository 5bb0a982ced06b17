"""The client's accuracy and cost against a server that logs when its bytes really leave: the figures we promise."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from bench.cli.selfcheck import table
from bench.loadgen.generator import LoadGenerator
from bench.loadgen.job import Job, Request
from bench.loadgen.selfcheck import FULL, Load, LoadResult, check, server
from bench.scenario.model import Arrivals

pytestmark = pytest.mark.slow

# ms: |TTFT error| at p50 and p99
LIMITS = {"one stream": (0.10, 0.30), "64 streams": (0.5, 1.5)}
CPU_US_PER_EVENT = 15.0
RESIDENT_MIB = 150.0
POISSON_P50_MS = 0.3
# Others on the machine only ever add to an error: a figure reached once is a figure of the client.
ATTEMPTS = 3


def machine() -> str:
    models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    cpu = models[0].split(":")[1].strip() if models else platform.machine()
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    system = f"Linux {platform.release()}, Python {sys.version.split()[0]}"
    return f"{cpu}, {os.cpu_count()} CPUs, {system}, load average {load}"


def reached(reading: LoadResult) -> bool:
    middle, tail = LIMITS[reading.load.name]
    return reading.error_p50_ms <= middle and reading.error_p99_ms <= tail


def measured(load: Load) -> LoadResult:
    for attempt in range(1, ATTEMPTS + 1):
        reading = check(load)
        print(f"\n{machine()}, attempt {attempt} of {ATTEMPTS}\n" + "\n".join(table((reading,))))
        if reached(reading):
            break
    return reading


@pytest.fixture(scope="module")
def readings() -> dict[str, LoadResult]:
    return {load.name: measured(load) for load in FULL}


@pytest.mark.parametrize("name", LIMITS)
def test_the_first_token_is_stamped_within_the_limits(readings: dict[str, LoadResult], name: str) -> None:
    reading, (middle, tail) = readings[name], LIMITS[name]
    assert (reading.failed, reading.stamp_source) == (0, "kernel")
    assert reading.error_p50_ms <= middle
    assert reading.error_p99_ms <= tail


def least_us(load: Load) -> float:
    """What the least possible client pays for an event on this machine now, µs."""
    with server({"ttft_ms": load.ttft_ms, "itl_ms": load.itl_ms}) as port:
        shape = map(str, (port, load.streams, load.requests, load.tokens))
        command = [sys.executable, "-m", "tests.benchmarks.least_client", *shape]
        return float(subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout)


def test_an_event_costs_little_while_driving(readings: dict[str, LoadResult]) -> None:
    """15 µs where the machine allows it; where one bare read costs more than that, no more than the bare read."""
    ours = readings["64 streams"].cpu_us_per_event
    least = least_us(readings["64 streams"].load)
    print(f"\nCPU per event at 64 streams: ours {ours:.1f} µs, the least possible client {least:.1f} µs")
    assert ours <= max(CPU_US_PER_EVENT, 1.1 * least)


def test_the_client_stays_small_while_driving(readings: dict[str, LoadResult]) -> None:
    assert readings["64 streams"].rss_mib <= RESIDENT_MIB


def test_poisson_arrivals_leave_on_time() -> None:
    body = {"prompt": [1], "max_tokens": 4, "stream": True}
    asked = tuple(Request(number, "p", "measured", "/v1/completions", body) for number in range(1000))
    job = partial(Job, "127.0.0.1", requests=asked, arrivals=Arrivals(poisson=200.0))
    with server({"ttft_ms": 20, "itl_ms": 5}) as port, LoadGenerator() as generator:
        for _ in range(ATTEMPTS):
            rows = generator.drive(job(port=port)).requests
            delays = sorted((row["sent_ns"] - row["intended_ns"]) / 1e6 for row in rows)
            print(f"\n200 Poisson arrivals a second leave {delays[500]:.3f} ms (p50), {delays[990]:.3f} ms (p99) late")
            if delays[500] <= POISSON_P50_MS:
                break
    # Timers of whole milliseconds would be half of one late.
    assert delays[500] <= POISSON_P50_MS
