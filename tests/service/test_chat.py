"""The chat page for people: turns, a stop in mid-answer, and figures that are the server's own truth.

A real Chromium reads the real page of a server that keeps what it was asked and when it sent.
"""

from __future__ import annotations

import json
import re
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from bench.engines.ports import free_port
from bench.environments.environment import environment
from bench.loadgen import chromium
from bench.loadgen.browser import SCRIPT
from bench.loadgen.chromium import Chromium
from bench.service import chat
from tests.waiting import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not environment("chat").ready or not any(map(shutil.which, chromium.NAMES)),
        reason="needs Chainlit and a browser: bench engines install chat; apt install chromium",
    ),
]
FIGURES = re.compile(r"first token (\d+) ms · ([\d.]+) (token|piece)s/s · (\d+) (?:token|piece)s?")


@dataclass
class Answered:
    """One request as the server saw it: its body, the moments of its tokens, and whether the asker left early."""

    body: dict[str, Any]
    came: float
    sent: list[float] = field(default_factory=list)
    left: bool = False


@dataclass
class Keeping:
    """A server that sends `tokens` pieces at its own pace and keeps what happened."""

    tokens: int
    ttft_s: float
    gap_s: float
    asked: list[Answered] = field(default_factory=list)
    url: str = ""

    @contextmanager
    def serving(self) -> Iterator[Keeping]:
        keeping = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                seen = Answered(body, time.monotonic())
                keeping.asked.append(seen)
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.send_header("Connection", "close")
                self.end_headers()
                self.close_connection = True
                try:
                    keeping._stream(seen, self.wfile)
                except OSError:
                    seen.left = True

            def log_message(self, *_: object) -> None:
                pass

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever)
            thread.start()
            self.url = f"http://127.0.0.1:{server.server_port}"
            try:
                yield self
            finally:
                server.shutdown()
                thread.join()

    def _stream(self, seen: Answered, out: Any) -> None:
        def event(**fields: Any) -> None:
            out.write(
                b"data: " + json.dumps({"id": "1", "object": "chat.completion.chunk", **fields}).encode() + b"\n\n"
            )

        time.sleep(self.ttft_s)
        for number in range(self.tokens):
            event(choices=[{"index": 0, "delta": {"content": f"w{len(self.asked)}x{number} "}}])
            seen.sent.append(time.monotonic())
            if number + 1 < self.tokens:
                time.sleep(self.gap_s)
        event(choices=[], usage={"prompt_tokens": 1, "completion_tokens": self.tokens, "total_tokens": 1 + self.tokens})
        out.write(b"data: [DONE]\n\n")


class Person:
    """Who types into the page."""

    def __init__(self, browser: Chromium, port: int) -> None:
        self.browser = browser
        browser.tell("Page.navigate", url=f"http://127.0.0.1:{port}/")
        browser.wait("document.querySelector('#chat-input')", 60.0)
        browser.value(SCRIPT)
        browser.wait("firsttoken.input() && !firsttoken.input().disabled", 60.0)

    def ask(self, text: str) -> None:
        self.browser.value("firsttoken.input().focus()")
        self.browser.tell("Input.insertText", text=text)
        self.browser.wait("firsttoken.button()")
        self.browser.value("firsttoken.button().click()")

    def stop(self) -> None:
        self.browser.value("document.querySelector('#stop-button').click()")

    def answers(self) -> list[str]:
        return list(self.browser.value("firsttoken.answers().map((part) => part.textContent)"))

    def figures(self, number: int) -> str:
        """What stands under the answer of that number, once it is over."""
        self.browser.wait(f"firsttoken.figures().length >= {number} && !firsttoken.busy()", 60.0)
        return str(self.browser.value(f"firsttoken.figures()[{number - 1}].textContent"))


@contextmanager
def page(server: Keeping, folder: Path) -> Iterator[Person]:
    command = chat.words(server.url, "some-model", None, {"max_tokens": 512})
    with chat.page(command, folder, "127.0.0.1", free_port()) as shown, Chromium() as browser:
        yield Person(browser, shown.endpoint.port)


def test_turns_carry_the_conversation_and_each_answer_has_its_own_figures(tmp_path: Path) -> None:
    with Keeping(tokens=12, ttft_s=0.3, gap_s=0.05).serving() as server, page(server, tmp_path) as person:
        questions = ["how warm is it?", "and\nthe pump?", "why?"]
        said = []
        for number, question in enumerate(questions, 1):
            person.ask(question)
            said.append(person.figures(number))
        shown = person.answers()
    whole = ["".join(f"w{turn}x{number} " for number in range(12)) for turn in (1, 2, 3)]
    assert [text.split() for text in shown] == [text.split() for text in whole]
    told: list[dict[str, str]] = []
    for turn, asked in enumerate(server.asked):
        told.append({"role": "user", "content": questions[turn]})
        assert asked.body["messages"] == told
        told.append({"role": "assistant", "content": whole[turn]})
    for figures, asked in zip(said, server.asked, strict=True):
        found = FIGURES.fullmatch(figures)
        assert found is not None, figures
        first_ms, pace, noun, count = float(found[1]), float(found[2]), found[3], int(found[4])
        true_ms = 1000 * (asked.sent[0] - asked.came)
        true_pace = 11 / (asked.sent[-1] - asked.sent[0])
        # Sending the question and hearing of the token are the page's; nothing can come before it was sent.
        assert true_ms - 1 <= first_ms <= true_ms + 150
        assert pace == pytest.approx(true_pace, rel=0.2)
        assert (noun, count) == ("token", 12)


def test_an_answer_that_is_stopped_ends_at_the_server_and_stays_in_the_conversation(tmp_path: Path) -> None:
    with Keeping(tokens=400, ttft_s=0.1, gap_s=0.05).serving() as server, page(server, tmp_path) as person:
        person.ask("tell me everything")
        until(lambda: len((person.answers() or [""])[0].split()) >= 5)
        person.stop()
        figures = person.figures(1)
        until(lambda: server.asked[0].left)
        partly = person.answers()[0].split()
        server.tokens = 3
        person.ask("in short?")
        assert person.figures(2).endswith(" · 3 tokens")
    sent = len(server.asked[0].sent)
    assert 5 <= len(partly) <= sent < 400
    assert partly == [f"w1x{number}" for number in range(len(partly))]
    found = FIGURES.fullmatch(figures)
    assert found is not None, figures
    # The server could not say how many there were any more: pieces are counted.
    assert found[3] == "piece"
    assert len(partly) == int(found[4])
    first, kept, second = server.asked[1].body["messages"]
    assert (first["content"], second["content"]) == ("tell me everything", "in short?")
    assert kept["role"] == "assistant"
    assert kept["content"].split() == partly
