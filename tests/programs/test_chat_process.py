"""The chat page's own rules: who may speak to it, what it says of an answer, and no word of a key."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bench.programs.chat_process import Figures, Guard, allowed


@pytest.mark.parametrize(
    ("host", "origin", "loopback", "ok"),
    [
        ("127.0.0.1:8100", None, True, True),
        ("localhost:8100", "http://localhost:8100", True, True),
        ("127.0.0.1:8100", "http://evil.example", True, False),
        # A name that leads to this machine's own address, as in DNS rebinding.
        ("evil.example:8100", "http://evil.example:8100", True, False),
        ("board.lan:8100", "http://board.lan:8100", False, True),
        ("board.lan:8100", "http://evil.example", False, False),
        ("", None, True, False),
    ],
)
def test_only_the_page_itself_is_answered(host: str, origin: str | None, loopback: bool, ok: bool) -> None:
    assert allowed(host, origin, loopback=loopback) is ok


def through(kind: str, headers: dict[str, str]) -> list[dict[str, Any]]:
    """What is sent for one request, by an application that answers all."""
    sent: list[dict[str, Any]] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def receive() -> dict[str, str]:
        return {"type": f"{kind}.connect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": kind, "headers": [(name.encode(), value.encode()) for name, value in headers.items()]}
    asyncio.run(Guard(application, loopback=True)(scope, receive, send))
    return sent


def test_the_page_may_load_nothing_from_elsewhere() -> None:
    (start,) = through("http", {"host": "127.0.0.1:1"})
    policy = dict(start["headers"])[b"content-security-policy"]
    assert b"default-src 'self'" in policy
    assert b"http" not in policy


def test_another_pages_socket_is_closed_and_its_request_refused() -> None:
    assert through("websocket", {"host": "127.0.0.1:1", "origin": "http://evil.example"})[0]["code"] == 1008
    assert through("http", {"host": "evil.example"})[0]["status"] == 403


def test_an_answers_figures_are_its_first_token_and_its_pace() -> None:
    figures = Figures()
    assert str(figures) == "no token came"
    figures.asked, figures.first, figures.last, figures.pieces = 10.0, 10.25, 12.25, 5
    assert str(figures) == "first token 250 ms · 2.0 pieces/s · 5 pieces"
    figures.counted = 41
    assert str(figures) == "first token 250 ms · 20.0 tokens/s · 41 tokens"
