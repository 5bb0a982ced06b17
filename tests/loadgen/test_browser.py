"""A browser as a client: what a page told becomes rows, and a real Chromium reads the real page."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.engines.ports import free_port, is_open
from bench.environments.environment import environment
from bench.errors import LaunchError
from bench.loadgen import chromium
from bench.loadgen.browser import Browser, _row
from bench.loadgen.job import Job, Request
from bench.scenario.model import Arrivals
from bench.service import chat
from tests.waiting import until

MS = 1_000_000
needs_page = pytest.mark.skipif(
    not environment("chat").ready or not any(map(shutil.which, chromium.NAMES)),
    reason="needs Chainlit and a browser: bench engines install chat; apt install chromium",
)


def told(**more: Any) -> dict[str, Any]:
    known = {"clicked": 10.0, "paints": [[62.0, 3], [78.0, 12]], "text": "the pump was", "ended": "answered"}
    return {**known, "figures": "first token 50 ms · 99.8 tokens/s · 4 tokens", **more}


def question(number: int = 0) -> Request:
    body = {"messages": [{"role": "user", "content": f"question {number}\nin two lines"}]}
    return Request(number, "p", "measured", "/v1/chat/completions", body, measured=True, output_tokens=4)


def test_a_click_is_the_sending_and_frames_that_grew_are_chunks() -> None:
    row, chunks = _row(question(), told(), 1000 * MS)
    assert (row["sent_ns"], row["first_token_ns"], row["last_token_ns"]) == (1010 * MS, 1062 * MS, 1078 * MS)
    assert (row["chunks"], row["completion_tokens"], row["first_share"]) == (2, 4, 0.25)
    assert (row["error_kind"], row["stamp_source"]) == (None, "paint")
    assert chunks["user_ns"] == [1062 * MS, 1078 * MS]
    assert chunks["kernel_ns"] == [None, None]


@pytest.mark.parametrize(
    ("seen", "kind"),
    [
        ({"clicked": None}, "protocol"),
        ({"ended": "timeout"}, "timeout"),
        ({"figures": "no token came", "text": "The server answered 500: scripted failure"}, "server_event"),
        ({"figures": "no token came", "paints": [], "text": ""}, "empty"),
    ],
)
def test_what_goes_wrong_on_a_page_is_a_row(seen: dict[str, Any], kind: str) -> None:
    row, _ = _row(question(), told(**seen), 0)
    assert row["error_kind"] == kind
    assert row["error"]


def test_pieces_that_the_server_did_not_count_are_no_tokens() -> None:
    row, _ = _row(question(), told(figures="first token 50 ms · 99.8 pieces/s · 4 pieces"), 0)
    assert row["completion_tokens"] is None
    assert row["count_reason"] == "the page did not say how many"


def test_a_person_at_a_page_asks_one_question_after_the_other() -> None:
    with pytest.raises(LaunchError, match="closed: 1"):
        Browser().drive(Job("127.0.0.1", 1, (question(), question(1)), Arrivals(closed=2)))


@pytest.mark.slow
@needs_page
def test_a_real_browser_reads_a_real_page_and_neither_is_left(tmp_path: Path) -> None:
    port = free_port()
    script = json.dumps({"ttft_ms": 100, "itl_ms": 20})
    words = ["-m", "bench.emulate.server.program", "--port", str(port), "--script", script]
    server = subprocess.Popen([sys.executable, *words], stdout=subprocess.DEVNULL)
    try:
        until(lambda: is_open("127.0.0.1", port))
        command = chat.words(f"http://127.0.0.1:{port}", "simulated", None, {"max_tokens": 24})
        with chat.page(command, tmp_path, "127.0.0.1", free_port()) as page, Browser() as browser:
            asked = tuple(map(question, range(4)))
            driven = browser.drive(Job("127.0.0.1", page.endpoint.port, asked, Arrivals(closed=1), timeout_s=60))
            assert browser._chromium is not None
            pid = browser._chromium.pid
        assert not is_open("127.0.0.1", page.endpoint.port)
        until(lambda: not Path(f"/proc/{pid}").exists())
    finally:
        server.kill()
        server.wait()
    for row in driven.requests:
        assert row["error"] is None
        assert row["completion_tokens"] == 24
        # Two sentences of twelve tokens, whole.
        assert row["text"].count("inlet pressure") == 2
        # A page can show nothing before the server sent it.
        assert row["first_token_ns"] - row["sent_ns"] > 100 * MS
        assert row["last_token_ns"] - row["sent_ns"] > (100 + 23 * 20) * MS * 0.9
