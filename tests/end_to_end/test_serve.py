"""`bench serve` on the real engine: ready once a first token came warm, serving, and gone with its children on TERM."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from tests.children import ended

BENCH = Path(sys.executable).parent / "bench"
pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(600)]

SCENARIO = """
scenario: kept
model: {source: default}
engines: {transformers: {engine: transformers, args: {threads: 1}}}
warmups: {requests: {strategy: requests, n: 2, output_tokens: 4}}
matrix: {quantization: [bf16], warmup: [requests]}
workload: {prompts: {kind: random, tokens: 15}, output_tokens: 4}
"""


def test_a_variant_is_kept_warm_on_a_port_until_it_is_told_to_stop(tmp_path: Path) -> None:
    (tmp_path / "kept.yaml").write_text(SCENARIO)
    command = [str(BENCH), "serve", "kept.yaml", "--port", "0", "--json"]
    with ended(subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)) as serving:
        assert serving.stdout is not None
        ready = json.loads(serving.stdout.readline())
        assert 0 < ready["warm_ttft_ms"] < ready["seconds"] * 1000
        family = psutil.Process(serving.pid).children(recursive=True)
        assert family, "the engine runs as a child"

        url = urlsplit(ready["ready"])
        connection = http.client.HTTPConnection(url.hostname or "", url.port, timeout=120)
        body = json.dumps({"model": ready["model"], "prompt": "The pump", "max_tokens": 4, "ignore_eos": True})
        connection.request("POST", f"{url.path}/completions", body, {"Content-Type": "application/json"})
        answer = json.loads(connection.getresponse().read())
        assert answer["usage"]["completion_tokens"] == 4
        connection.close()

        serving.send_signal(signal.SIGTERM)
        assert serving.wait(timeout=60) in (0, 130, 143)
    assert not [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]
