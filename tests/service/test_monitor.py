"""Endpoints that are well, slow, gone, hanging, lying and hostile, watched by a real monitor over real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import socketserver
import stat
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from bench import Run
from bench.errors import RecordError, UsageError
from bench.service.journal import FOLDER, lines
from bench.service.monitor import Monitor
from bench.service.otlp import Pusher
from bench.service.watchlist import parse
from tests.children import ended
from tests.service.test_ready import http, raw, scripted
from tests.waiting import until

ONE = """
watch: edge
endpoints:
  e:
    url: {url}
    interval_s: 0.1
    share: 1
    tokens_per_day: 1000000000
    timeout_s: 30
"""

SIX = (
    *("latency_seconds", "first_after_idle_seconds", "throughput_tokens_per_second", "memory_bytes"),
    *("processor_cores", "availability_ratio"),
)


class Watching:
    """A monitor in a thread of its own, with what it said."""

    def __init__(self, text: str, folder: Path, pusher: Pusher | None = None) -> None:
        self.said: list[str] = []
        self.monitor = Monitor(parse(text), text, folder, self.said.append, pusher=pusher)
        self._ready = threading.Event()
        self._task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._task = asyncio.create_task(self.monitor.run(("127.0.0.1", 0), self._ready.set))
        await asyncio.wait([self._task])

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.monitor.port}{path}", timeout=30) as answer:
            return str(answer.read().decode())

    def value(self, series: str) -> float | None:
        """A series of /metrics by its beginning; None if it is not there."""
        found = [line for line in self.get("/metrics").splitlines() if line.startswith(series)]
        return float(found[0].rpartition(" ")[2]) if found else None

    def __enter__(self) -> Watching:
        self.monitor.__enter__()
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._loop is not None
        assert self._task is not None
        self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(60)
        self.monitor.__exit__()


def canaries(folder: Path) -> list[dict[str, Any]]:
    """Canaries of the journals that no tables are made of yet."""
    found = [line for path in sorted((folder / FOLDER).glob("*.jsonl")) for line in lines(path)]
    return [line for line in found if line["kind"] == "canary"]


def first(url: str, folder: Path, more: str = "") -> dict[str, Any]:
    """The first canary of an endpoint."""
    with Watching(ONE.format(url=url) + more, folder) as watching:
        until(lambda: canaries(folder))
        found = canaries(folder)[0]
        until(lambda: watching.value("firsttoken_canaries_total"))
        return found


def test_a_healthy_endpoint_has_all_that_can_be_seen_and_becomes_a_run(tmp_path: Path) -> None:
    limits = "    limits: {latency_ms: {warning: 5000, alarm: 9000}}\n"
    with scripted(ttft_ms=20, itl_ms=2, prefix_cache=True, prefill_ms_per_token=0.5) as url:
        with Watching(ONE.format(url=url) + limits, tmp_path) as watching:
            until(lambda: (watching.value("firsttoken_good_canaries_total") or 0) >= 6)
            # A figure that one canary could not tell, the next one does.
            for name in SIX:
                until(partial(watching.value, f'firsttoken_{name}{{endpoint="e"}} '))
            text = watching.get("/metrics")
        assert watching.said == []
    assert 'firsttoken_state{endpoint="e",figure="latency"} 0.0' in text
    assert 'firsttoken_threshold_seconds{endpoint="e",figure="latency",level="alarm"} 9.0' in text
    assert 'firsttoken_endpoint_info{address="http://127.0.0.1' in text
    run = Run.open(tmp_path)
    assert run.variants == ("e",)
    requests = run.requests
    assert set(requests["label"]) == {"idle", "warm", "cached"}
    assert set(requests.loc[requests["measured"], "label"]) == {"warm"}
    assert requests["error_kind"].isna().all()
    # 20 ms, and half a millisecond for each of the prompt's tokens that no cache has.
    assert requests.loc[requests["label"] == "warm", "ttft_ms"].min() >= 20
    assert run.summary().query("metric == 'ttft.p50'")["value"].iloc[0] >= 20
    assert (requests.loc[requests["label"] == "cached", "cached_tokens"].iloc[1:] > 0).all()
    assert set(run.samples["field"]) == {"idle_s", "memory_mib", "processor_cores"}
    assert not list((tmp_path / FOLDER).glob("*"))


def test_a_slow_one_alarms_and_the_command_hears_of_it_without_the_key(tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    command = json.dumps(["sh", "-c", f"cat > {heard}.part; env >> {heard}.part; mv {heard}.part {heard}"])
    more = (
        f"    key_env: SOME_KEY\n    limits: {{latency_ms: {{warning: 1, alarm: 2}}}}\nalarms: {{command: {command}}}\n"
    )
    os.environ["SOME_KEY"] = "sk-very-secret"
    try:
        with scripted(ttft_ms=20, itl_ms=1) as url, Watching(ONE.format(url=url) + more, tmp_path / "m") as watching:
            until(heard.exists)
            until(lambda: watching.value('firsttoken_state{endpoint="e",figure="latency"}') == 2)
    finally:
        del os.environ["SOME_KEY"]
    told = json.loads(heard.read_text().partition("\n")[0].partition("}")[0] + "}")
    assert (told["endpoint"], told["figure"], told["to"]) == ("e", "latency", "alarm")
    assert "e: latency ok → alarm" in watching.said[0]
    everything = [path.read_bytes() for path in [heard, *(tmp_path / "m").rglob("*")] if path.is_file()]
    assert not any(b"very-secret" in data for data in everything)


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (http("200 OK", "<!doctype html><html>sign in</html>", "text/html"), "html"),
        (http("302 Found", "", "text/plain", "Location: http://127.0.0.1:1/"), "redirect"),
        (http("401 Unauthorized", '{"error": "sk-very-secret is wrong"}'), "key"),
        (http("500 Internal Server Error", '{"error": "boom"}'), "http"),
        (b"garbage\r\n\r\n", "protocol"),
        (http("200 OK", "data: {}\n\ndata: [DONE]\n\n", "text/event-stream"), "empty"),
    ],
)
def test_what_is_no_answer_is_told_by_its_kind(
    answer: bytes, result: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-very-secret")
    with raw(lambda _: answer) as url:
        found = first(url, tmp_path, "    model: m\n    path: chat\n    key_env: SOME_KEY\n")
    assert found["result"] == result
    assert "very-secret" not in json.dumps(found)


class _Endless(socketserver.BaseRequestHandler):
    """Begins a stream and never ends it."""

    def handle(self) -> None:
        self.request.recv(65536)
        with suppress(OSError):
            self.request.sendall(http("200 OK", "", "text/event-stream"))
            while True:
                self.request.sendall(b"data: {}\n\n" * 10_000)


def test_an_answer_without_an_end_is_given_up_before_it_fills_the_memory(tmp_path: Path) -> None:
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Endless) as server:
        threading.Thread(target=server.serve_forever).start()
        try:
            more = "    model: m\n    path: chat\n"
            found = first(f"http://127.0.0.1:{server.server_address[1]}", tmp_path, more)
        finally:
            server.shutdown()
    assert found["result"] == "protocol"
    assert "does not end" in found["row"]["error"]


def test_one_that_hangs_is_skipped_and_counted_and_the_other_goes_on(tmp_path: Path) -> None:
    with raw(lambda _: None) as hanging, scripted(ttft_ms=5, itl_ms=1) as url:
        more = f"  hung: {{url: '{hanging}', model: m, interval_s: 0.1, tokens_per_day: 1000000000, share: 1}}\n"
        with Watching(ONE.format(url=url) + more, tmp_path) as watching:
            until(
                lambda: (watching.value('firsttoken_canaries_skipped_total{endpoint="hung",reason="hanging"}') or 0) > 3
            )
            until(lambda: (watching.value('firsttoken_good_canaries_total{endpoint="e"}') or 0) > 3)


def test_one_that_vanishes_and_comes_back_is_told_both_times(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    text = ONE.format(url=f"http://127.0.0.1:{port}")
    command = [sys.executable, "-m", "bench.emulate.server.program", "--port", str(port), "--script", '{"ttft_ms": 5}']
    with Watching(text, tmp_path) as watching:
        until(lambda: any("availability" in one and "→ alarm" in one for one in watching.said))
        with ended(subprocess.Popen(command, stdout=subprocess.DEVNULL)) as server:
            until(lambda: any("availability alarm → " in one for one in watching.said))
            server.terminate()
        assert watching.value("firsttoken_last_success_timestamp_seconds") is not None


def test_a_spent_budget_stops_canaries_and_a_lying_count_does_not_stretch_it(tmp_path: Path) -> None:
    # The server counts nothing at all.
    with scripted(ttft_ms=1, itl_ms=0, fault="no_usage", fault_share=1.0) as url:
        text = ONE.format(url=url).replace("interval_s: 0.1", "interval_s: 80").replace("1000000000", "320000")
        with Watching(text, tmp_path) as watching:
            watch = watching.monitor.watches["e"]
            # A round of three: what was planned, since nothing was counted.
            until(lambda: watch.spent >= 72 + 72 + 144)
            until(lambda: "firsttoken_probe_fresh 1.0" in watching.get("/probe?target=e"))
            assert watch.spent == 72 + 72 + 144 + 72
            watch.spent = 320_000 - 71
            assert "firsttoken_probe_fresh 0.0" in watching.get("/probe?target=e")
            assert watch.spent == 320_000 - 71
            until(lambda: watching.value('firsttoken_canaries_skipped_total{endpoint="e",reason="budget"}') == 1)


def test_canaries_keep_to_their_share_of_the_engines_time(tmp_path: Path) -> None:
    with scripted(ttft_ms=100, itl_ms=1) as url:
        with Watching(ONE.format(url=url).replace("share: 1", "share: 0.1"), tmp_path) as watching:
            until(lambda: (watching.value("firsttoken_good_canaries_total") or 0) >= 2)
            assert (watching.value('firsttoken_canaries_skipped_total{endpoint="e",reason="share"}') or 0) > 3
        rows = Run.open(tmp_path).requests
    busy = (rows["end_ns"] - rows["sent_ns"]).sum()
    assert busy / (rows["intended_ns"].iloc[-1] - rows["intended_ns"].iloc[0]) < 0.3


def test_a_probe_asks_afresh_and_only_what_is_watched(tmp_path: Path) -> None:
    with (
        scripted(ttft_ms=5, itl_ms=1) as url,
        Watching(ONE.format(url=url).replace("interval_s: 0.1", "interval_s: 600"), tmp_path) as watching,
    ):
        until(lambda: watching.monitor.watches["e"].last)
        until(
            lambda: (
                "firsttoken_probe_fresh 1.0" in (text := watching.get("/probe?target=e"))
                and "probe_success 1.0" in text
            )
        )
        for target, status in (("http://169.254.169.254/", 404), ("%00%22%0A<script>", 404), ("", 400)):
            with pytest.raises(urllib.error.HTTPError) as caught:
                watching.get(f"/probe?target={target}")
            assert caught.value.code == status
            assert b"script" not in caught.value.read()


def test_a_second_monitor_on_one_folder_is_refused_with_the_first_ones_process(tmp_path: Path) -> None:
    text = ONE.format(url="http://127.0.0.1:1")
    with Watching(text, tmp_path), pytest.raises(RecordError, match=f"another monitor .process {os.getpid()}"):
        Monitor(parse(text), text, tmp_path, print).__enter__()
    with Watching(text, tmp_path):
        pass


def test_a_key_that_is_not_set_is_told_before_anything_is_asked(tmp_path: Path) -> None:
    text = ONE.format(url="http://127.0.0.1:1") + "    key_env: NO_SUCH_KEY\n"
    with pytest.raises(UsageError, match="NO_SUCH_KEY"):
        Monitor(parse(text), text, tmp_path, print)


def test_a_flood_of_scrapes_and_slow_clients_leave_canaries_their_time(tmp_path: Path) -> None:
    with scripted(ttft_ms=5, itl_ms=1) as url, Watching(ONE.format(url=url), tmp_path) as watching:
        until(lambda: watching.monitor.watches["e"].last)
        # Whoever connects and says nothing, and whoever scrapes without a pause.
        with ExitStack() as stack:
            for _ in range(20):
                stack.enter_context(socket.create_connection(("127.0.0.1", watching.monitor.port or 0)))
            before = watching.monitor.watches["e"].spent
            for _ in range(300):
                assert "firsttoken_build_info" in watching.get("/metrics")
            assert watching.monitor.watches["e"].spent > before


@contextmanager
def hook(status: int) -> Iterator[tuple[str, list[bytes]]]:
    """A webhook that answers so."""
    heard: list[bytes] = []

    class Hook(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Hook)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook-secret", heard
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_a_webhook_is_told_and_one_that_is_down_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    more = "    limits: {latency_ms: {warning: 1, alarm: 2}}\nalarms: {webhook_env: SOME_HOOK}\n"
    with scripted(ttft_ms=10, itl_ms=1) as server:
        with hook(200) as (address, heard):
            monkeypatch.setenv("SOME_HOOK", address)
            with Watching(ONE.format(url=server) + more, tmp_path / "a"):
                until(lambda: heard)
        assert json.loads(heard[0])["to"] == "alarm"
        monkeypatch.setenv("SOME_HOOK", address)
        with Watching(ONE.format(url=server) + more, tmp_path / "b") as watching:
            until(lambda: any("webhook" in one for one in watching.said))
            before = watching.value("firsttoken_judged_canaries_total") or 0
            until(lambda: (watching.value("firsttoken_judged_canaries_total") or 0) > before)
            assert watching.value("firsttoken_alarms_lost_total") == 1
    assert not any("hook-secret" in one for one in watching.said)


def command(file: Path, folder: Path) -> list[str]:
    return [sys.executable, "-m", "bench", "monitor", str(file), "--into", str(folder), "--listen", "127.0.0.1:0"]


def test_kill_9_loses_no_whole_line_and_a_torn_one_is_left_aside(tmp_path: Path) -> None:
    folder = tmp_path / "m"
    with scripted(ttft_ms=5, itl_ms=1) as url:
        (tmp_path / "w.yaml").write_text(ONE.format(url=url))
        with ended(subprocess.Popen(command(tmp_path / "w.yaml", folder), stderr=subprocess.DEVNULL)) as watching:
            until(lambda: len(canaries(folder)) > 5)
            watching.send_signal(signal.SIGKILL)
        whole = len(canaries(folder))
        (journal,) = (folder / FOLDER).glob("*.jsonl")
        with journal.open("ab") as file:
            file.write(b'{"kind": "canary", "endpoint": "e", "row": {"requ')
        (folder / "launches" / ".x-e.partial").mkdir(parents=True)
        with ended(subprocess.Popen(command(tmp_path / "w.yaml", folder), stderr=subprocess.DEVNULL)) as watching:
            until(lambda: not journal.exists())
            watching.send_signal(signal.SIGINT)
            assert watching.wait(60) == 0
    run = Run.open(folder)
    assert len(run.all) == 2
    assert len(run.requests[run.requests["launch"].str.startswith(journal.stem)]) == whole
    assert not list((folder / "launches").glob(".*"))
    assert stat.S_IMODE((folder / "state.json").stat().st_mode) & 0o022 == 0


def test_a_full_disk_is_said_once_and_canaries_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted(ttft_ms=5, itl_ms=1) as url:
        text = ONE.format(url=url)
        with Watching(text, tmp_path) as watching:
            until(lambda: canaries(tmp_path))
            # What the kernel gives for a disk without room, on a real file.
            descriptor = os.open("/dev/full", os.O_WRONLY)
            journal = watching.monitor.journal
            assert journal._file is not None
            os.dup2(descriptor, journal._file)
            until(lambda: (watching.value("firsttoken_record_faults_total") or 0) > 3)
            before = watching.value("firsttoken_good_canaries_total") or 0
            until(lambda: (watching.value("firsttoken_good_canaries_total") or 0) > before)
            os.close(descriptor)
    assert sum("no space left" in one for one in watching.said) == 1
