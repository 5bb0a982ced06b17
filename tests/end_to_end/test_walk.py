"""The whole way: measured, deployed behind nginx, watched by Prometheus, and asked by a person at a page."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bench import Run
from bench.cli import main
from bench.engines.ports import free_port
from bench.environments.environment import environment
from bench.loadgen import chromium
from bench.loadgen.browser import Browser
from bench.loadgen.job import Job
from bench.scenario.model import Arrivals
from bench.service import chat
from tests.end_to_end.test_deploy import SCENARIO, _ready
from tests.loadgen.test_browser import question
from tests.service.test_dashboard import asked, prometheus, silent
from tests.service.test_deploy import change, running
from tests.service.test_monitor import ONE, Watching
from tests.waiting import until

TOOLS = all(map(shutil.which, ("nginx", "prometheus"))) and any(map(shutil.which, chromium.NAMES))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        not TOOLS or not environment("chat").ready,
        reason="needs nginx, prometheus and chromium of Debian's, and `bench engines install chat`",
    ),
]


def test_from_a_run_to_an_answer_in_a_browser_through_nginx_with_prometheus_watching(tmp_path: Path) -> None:
    (tmp_path / "kept.yaml").write_text(SCENARIO)
    results, folder, port = tmp_path / "results", tmp_path / "svc", free_port()
    assert main(["run", str(tmp_path / "kept.yaml"), "--results", str(results), "--no-report"]) == 0
    assert main(["deploy", str(results), str(folder), "--port", str(port), "--nginx", "--monitor"]) == 0
    assert (folder / "evidence.html").is_file()
    # As in the test of the service alone: what one launch took is no limit for a busier moment.
    change(folder, lambda settings: settings["ready"].update(within_ms=60_000, timeout_s=600))
    model = json.loads((folder / "service.json").read_text())["ready"]["model"]
    door = f"http://127.0.0.1:{port}"
    watch = ONE.format(url=door).replace("timeout_s: 30", "timeout_s: 60")
    watch += "    limits: {latency_ms: {warning: 60000, alarm: 90000}}\n"

    with running(folder):
        _ready(folder)
        assert main(["ready", door, "--within", "60s"]) == 0
        with (
            Watching(watch, tmp_path / "m") as watching,
            prometheus(f"127.0.0.1:{watching.monitor.port}", tmp_path / "p") as address,
            chat.page(chat.words(door, model, None, {"max_tokens": 8}), tmp_path, "127.0.0.1", free_port()) as page,
            Browser() as browser,
        ):
            questions = tuple(map(question, range(2)))
            driven = browser.drive(Job("127.0.0.1", page.endpoint.port, questions, Arrivals(closed=1), timeout_s=300))
            until(lambda: (watching.value("firsttoken_good_canaries_total") or 0) >= 3, 300)
            until(lambda: asked(address, "query", query='up{job="firsttoken"} == 1'), 60)
            until(lambda: not silent(address), 300)

    for row in driven.requests:
        assert row["error"] is None
        assert row["text"].strip()
        assert 1 <= row["completion_tokens"] <= 8
        assert row["sent_ns"] < row["first_token_ns"] <= row["last_token_ns"]
    canaries = Run.open(tmp_path / "m").requests
    assert canaries["error_kind"].isna().all()
