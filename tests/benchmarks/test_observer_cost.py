"""Does watching slow the engine down? Paired batches on one running engine, the sampler on and off by turns."""

from __future__ import annotations

import http.client
import json
import os
import statistics
import time
from pathlib import Path

import numpy as np
import pytest

from bench.engines import process
from bench.engines.base import Endpoint, LaunchContext
from bench.engines.transformers import Transformers
from bench.models import sources
from bench.probes.sampler import Sampler
from bench.scenario.load import Scenario

PAIRS = 12
TOKENS = 48
SETTLE_S = 1.5


def ms_per_token(endpoint: Endpoint, seed: int) -> float:
    """One answer of fixed length to a prompt of its own."""
    draw = np.random.default_rng(seed)
    body = {
        "model": endpoint.model,
        "prompt": [int(token) for token in draw.integers(1000, 20000, 16)],
        "max_tokens": TOKENS,
        "temperature": 0,
        "ignore_eos": True,
    }
    connection = http.client.HTTPConnection(endpoint.host, endpoint.port, timeout=300)
    start = time.perf_counter()
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    answer = json.loads(connection.getresponse().read())
    elapsed = time.perf_counter() - start
    connection.close()
    assert answer["usage"]["completion_tokens"] == TOKENS
    return 1000 * elapsed / TOKENS


@pytest.mark.end_to_end
@pytest.mark.slow
def test_sampling_adds_less_than_one_percent_to_a_token(tmp_path: Path) -> None:
    variant = next(v for v in Scenario.load("scenarios/quick.yaml").variants if v.quantization == "bf16")
    checkpoint = sources.resolve(variant.model, variant.quantization)
    spec = Transformers().command(variant, LaunchContext(process.free_port(), tmp_path, checkpoint))
    server = process.start(spec, tmp_path)
    ratios = []
    try:
        server.wait_healthy()
        ms_per_token(server.endpoint, 0)
        for pair in range(PAIRS):
            seen: dict[bool, float] = {}
            # The order alternates, so that a drift of the machine falls on both sides alike.
            for watched in (True, False) if pair % 2 else (False, True):
                sampler = Sampler.start(tmp_path, pid=server.pid, harness_pids=[os.getpid()]) if watched else None
                # What starting a process takes is over before a launch's engine is spawned.
                time.sleep(SETTLE_S)
                seen[watched] = ms_per_token(server.endpoint, pair + 1)
                if sampler is not None:
                    sampler.stop()
            ratios.append(seen[True] / seen[False])
    finally:
        server.stop()
    logs = [float(np.log(ratio)) for ratio in ratios]
    mean, error = statistics.mean(logs), statistics.stdev(logs) / len(logs) ** 0.5
    low, high = np.exp(mean - 1.8 * error) - 1, np.exp(mean + 1.8 * error) - 1
    busy = os.getloadavg()[0]
    print(
        f"\nsampler on/off: {np.exp(mean) - 1:+.2%} a token, 90 % interval {low:+.2%} to {high:+.2%}, load {busy:.1f}"
    )
    # Only an interval that lies wholly above the limit contradicts it; a wide one says that the machine is too busy.
    assert low < 0.01
