"""What the sampler costs: CPU seconds per second at 10 Hz with everything on, against its limit of 1 % of a core.

On a machine that others load too, each wake-up finds cold caches and costs more: the load is printed beside the figure,
and the limit holds only while there is a processor to spare.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bench.probes.context import Watched
from bench.probes.machine import machine
from bench.probes.sampler import Sampler, suitable
from tests.probes.test_engine_metrics import VLLM

SECONDS = 20.0


@pytest.fixture
def metrics_url() -> Iterator[str]:
    """A page as long as a real vLLM's, most of it of no interest here."""
    rest = "".join(f'vllm:iteration_tokens_total_bucket{{le="{n}",model_name="m"}} {n}\n' for n in range(600))
    page = (VLLM + rest).encode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/metrics"
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_the_sampler_takes_at_most_one_percent_of_a_core(tmp_path: Path, metrics_url: str) -> None:
    with machine("agx-orin") as board:
        probes: dict[str, dict[str, Any]] = suitable(board.roots) | {"tegrastats": {}}
        sampler = Sampler.start(
            tmp_path,
            Watched(os.getpid(), (os.getppid(),), metrics_url),
            probes=probes,
            roots=board.roots,
        )
        time.sleep(SECONDS)
        busy = os.getloadavg()[0]
        info = sampler.stop()
    rows = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    own = [(row["t"] / 1e9, row["v"]["cpu_s"]) for row in rows if row["p"] == "sampler"]
    # From the second beat on: building the probes happens before an engine is started.
    share = (own[-1][1] - own[1][1]) / (own[-1][0] - own[1][0])
    fast = sum(row["p"] == "jetson" for row in rows) / SECONDS
    print(f"\nsampler: {share:.2%} of a core at {fast:.1f} Hz, load {busy:.1f}, {info.rss_mib:.0f} MiB")
    for name, account in info.probes.items():
        print(f"  {name:12} {account['cpu_s'] / SECONDS:.3%}  {account['samples']} readings")
    assert info.complete
    assert fast > 8.0
    assert not {name for name, account in info.probes.items() if account["error"]}
    if busy > (os.cpu_count() or 1):
        pytest.skip(f"{share:.2%} at a load of {busy:.1f}: this machine has no processor to spare")
    assert share <= 0.01
