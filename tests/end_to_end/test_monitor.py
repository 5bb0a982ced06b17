"""The real engine under watch: its first tokens recorded, its memory seen, every query of the dashboard answered."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench import Run
from tests.children import ended
from tests.end_to_end.test_serve import SCENARIO
from tests.service.test_dashboard import prometheus, silent
from tests.service.test_monitor import ONE, Watching
from tests.waiting import until

BENCH = Path(sys.executable).parent / "bench"
pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(600)]


def test_the_transformers_engine_is_watched_from_outside(tmp_path: Path) -> None:
    (tmp_path / "kept.yaml").write_text(SCENARIO)
    command = [str(BENCH), "serve", "kept.yaml", "--port", "0", "--json"]
    with ended(subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True)) as serving:
        assert serving.stdout is not None
        try:
            url = json.loads(serving.stdout.readline())["ready"]
            text = ONE.format(url=url).replace("timeout_s: 30", "timeout_s: 60")
            text += "    limits: {latency_ms: {warning: 60000, alarm: 90000}}\n"
            with ExitStack() as stack:
                watching = stack.enter_context(Watching(text, tmp_path / "m"))
                until(lambda: (watching.value("firsttoken_good_canaries_total") or 0) >= 5, 240)
                if shutil.which("prometheus"):
                    address = stack.enter_context(prometheus(f"127.0.0.1:{watching.monitor.port}", tmp_path / "p"))
                    until(lambda: not silent(address), 120)
                held = watching.value("firsttoken_memory_bytes")
        finally:
            serving.send_signal(signal.SIGTERM)
            serving.wait(120)
    # Interpreter, torch and 135 million parameters.
    assert held is not None
    assert held > 300e6
    rows = Run.open(tmp_path / "m").requests
    warm = rows[rows["measured"]]
    assert len(warm) >= 5
    assert warm["error_kind"].isna().all()
    assert (warm["ttft_ms"] > 1).all()
    assert (warm["completion_tokens"] >= 1).all()
    assert (warm["completion_tokens"] <= 8).all()
