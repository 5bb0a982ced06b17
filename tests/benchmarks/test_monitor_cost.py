"""What watching costs: a scrape of many endpoints, processor time of a canary, and memory over a day's canaries."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from bench.engines.ports import free_port
from bench.service.exposition import Exposition
from bench.service.states import FIGURES
from bench.service.watchlist import MOST_ENDPOINTS
from tests.service.test_exposition import filled
from tests.service.test_ready import scripted
from tests.waiting import until

ENDPOINTS = 200
# A day at a canary every ten seconds.
DAY = 8640
ONE = """
watch: soak
endpoints:
  e: {{url: '{url}', interval_s: {interval}, jitter: 0, share: 1, tokens_per_day: 2000000000, streams: [warm]}}
"""


def test_a_scrape_of_200_endpoints_takes_at_most_20_ms() -> None:
    exposition = Exposition()
    for number in range(ENDPOINTS):
        exposition.render(filled(f"endpoint-{number}"))
    times = []
    for _ in range(20):
        begun = time.perf_counter()
        data = exposition.text().encode()
        times.append(time.perf_counter() - begun)
    best, median = min(times) * 1e3, statistics.median(times) * 1e3
    print(f"\nscrape of {ENDPOINTS} endpoints: {best:.1f} ms at best, median {median:.1f}; {len(data) / 1e6:.1f} MB")
    assert len(FIGURES) == 6
    assert ENDPOINTS <= MOST_ENDPOINTS
    assert best <= 20


class Soaked:
    """A monitor of its own process."""

    def __init__(self, folder: Path, url: str, interval: float) -> None:
        file = folder / "w.yaml"
        file.write_text(ONE.format(url=url, interval=interval))
        self.port = free_port()
        listen = f"127.0.0.1:{self.port}"
        command = [sys.executable, "-m", "bench", "monitor", str(file), "--into", str(folder / "m"), "--listen", listen]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
        self.itself = psutil.Process(self.process.pid)

    def canaries(self) -> float:
        """How many were asked."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            return 0
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith("firsttoken_canaries_total{"))

    def rss_mb(self) -> float:
        """Resident memory, MB."""
        return float(self.itself.memory_info().rss) / 1e6

    def __enter__(self) -> Soaked:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(120)


@pytest.mark.slow
def test_a_days_canaries_leave_the_memory_flat(tmp_path: Path) -> None:
    with scripted(ttft_ms=1, itl_ms=0.1) as url, Soaked(tmp_path, url, 0.05) as soaked:
        until(lambda: soaked.canaries() >= DAY / 10, 1200)
        early = soaked.rss_mb()
        most = early
        while (asked := soaked.canaries()) < DAY:
            most = max(most, soaked.rss_mb())
            time.sleep(2)
        late, spent = soaked.rss_mb(), sum(soaked.itself.cpu_times()[:2])
    print(
        f"\n{asked:.0f} canaries: RSS {early:.1f} MB after a tenth, {late:.1f} at the end, {most:.1f} at most; "
        f"{spent / asked * 1e3:.2f} ms of processor a canary, {spent / asked / 10:.3%} of a core at one every 10 s"
    )
    assert most <= 80
    assert late - early <= 3
    # Of one core, at one canary every ten seconds.
    assert spent / asked / 10 <= 0.005
