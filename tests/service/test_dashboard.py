"""A real Prometheus reads a real monitor: every query of the dashboard has an answer, and the rules are loaded."""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bench.engines.ports import free_port
from bench.service.prometheus import CONFIG, DASHBOARD, Places, files, write
from tests.children import ended
from tests.service.test_monitor import ONE, Watching
from tests.service.test_ready import scripted
from tests.waiting import until


@contextmanager
def prometheus(monitor: str, folder: Path) -> Iterator[str]:
    """The address of a Prometheus that scrapes a monitor every second, by the files as they are written."""
    write(folder, Places(monitor=monitor, scrape_s=1))
    address = f"127.0.0.1:{free_port()}"
    command = ["prometheus", f"--config.file={folder / CONFIG}", f"--web.listen-address={address}"]
    command.append(f"--storage.tsdb.path={folder / 'data'}")
    with ended(subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)) as server:
        try:
            yield f"http://{address}"
        finally:
            server.terminate()


def asked(address: str, path: str, **query: str) -> Any:
    """What Prometheus answers; None while it does not."""
    try:
        with urllib.request.urlopen(f"{address}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
            return json.load(answer)["data"]
    except OSError:
        return None


def queries() -> list[str]:
    """Every query of the dashboard, over all endpoints."""
    panels = json.loads(files()[DASHBOARD])["panels"]
    return [target["expr"].replace("$endpoint", ".*") for panel in panels for target in panel["targets"]]


def silent(address: str) -> list[str]:
    """Queries that have no answer, or none that is a number."""
    found = []
    for query in queries():
        data = asked(address, "query", query=query)
        if not data or not any(one["value"][1] != "NaN" for one in data["result"]):
            found.append(query)
    return found


@pytest.mark.skipif(shutil.which("prometheus") is None, reason="prometheus is not here: install Debian's package")
def test_every_query_of_the_dashboard_is_answered_by_a_real_prometheus(tmp_path: Path) -> None:
    limits = "    limits: {latency_ms: {warning: 5000, alarm: 9000}}\n"
    with (
        scripted(ttft_ms=20, itl_ms=2) as url,
        Watching(ONE.format(url=url) + limits, tmp_path / "m") as watching,
        prometheus(f"127.0.0.1:{watching.monitor.port}", tmp_path / "p") as address,
    ):
        until(lambda: asked(address, "query", query='up{job="firsttoken"} == 1'))
        until(lambda: not silent(address))
        rules = asked(address, "rules")["groups"][0]["rules"]
    assert len(rules) >= 10
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
    assert not [rule["lastError"] for rule in rules if rule.get("lastError")]
