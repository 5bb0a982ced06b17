"""A chat page before an OpenAI-compatible server, with the first token's time and the pace of each answer under it.

    chat_process.py --url http://127.0.0.1:8000 --model NAME --port 8100

Runs in the environment `chat`: Chainlit shows, httpx asks. One file, imported by Chainlit a second time for its
handlers; what they need to know stands in one environment variable, a key only by the name of its own. The page loads
nothing from elsewhere, tells nobody anything, and is spoken to by no page of another origin.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

SETTINGS = "FIRSTTOKEN_CHAT"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
# Styles and scripts of the page stand inside it; whatever it names elsewhere is not fetched.
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'self' 'unsafe-inline'; "
    "connect-src 'self' ws: wss:; frame-ancestors 'none'"
)
QUIET = {
    "TRACELOOP_TELEMETRY": "false",
    "DO_NOT_TRACK": "1",
    "LITERAL_DISABLE": "true",
    "ANONYMIZED_TELEMETRY": "false",
}
PATIENCE_S = 600.0
# Socket.IO begins by polling and goes over to a WebSocket, unless it is told one of them.
TRANSPORTS = ("websocket", "polling")
# What Chainlit keeps beside an app, as it is wanted here.
CONFIG = """\
[project]
allow_origins = []
{transports}[features]
unsafe_allow_html = false
edit_message = false
[features.spontaneous_file_upload]
enabled = false
[UI]
name = {name}
cot = "full"
custom_css = "/public/figures.css"
confirm_new_chat = false
[meta]
generated_by = "2.12.0"
"""
# Figures are no answer: small, and without a face.
STYLE = """\
[data-step-type="system_message"] { padding-top: 0; margin-top: -2.75rem; padding-left: 2.25rem; pointer-events: none; }
[data-step-type="system_message"] .ai-message > span:first-child,
[data-step-type="system_message"] .message-content + div { display: none; }
[data-step-type="system_message"] [role="article"] { font-size: 0.8rem; font-style: normal; opacity: 0.65; }
[data-step-type="assistant_message"] .message-content + div { justify-content: flex-end; width: 100%; }
"""
WELCOME = "# {name}\n\nEach answer says how long its first token took, and how many came a second after it.\n"


class Refused(Exception):
    """Why there is no answer, or no more of it."""


class Guard:
    """Between the network and Chainlit: other origins are refused, and the page is told to load nothing of others."""

    def __init__(self, app: Any, loopback: bool) -> None:
        self.app = app
        self.loopback = loopback

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request or connection, in ASGI's words."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if not allowed(headers.get("host", ""), headers.get("origin"), loopback=self.loopback):
            await refuse(scope["type"], receive, send)
            return

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                more = [(b"content-security-policy", POLICY.encode()), (b"referrer-policy", b"no-referrer")]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        await self.app(scope, receive, guarded)


def allowed(host: str, origin: str | None, *, loopback: bool) -> bool:
    """Whether a request is of the page itself: no other site's, and no other name's for this machine's own address."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
    if loopback and name not in LOOPBACK:
        return False
    return origin is None or origin.partition("://")[2] == host


async def refuse(kind: str, receive: Any, send: Any) -> None:
    """Close the door."""
    if kind == "websocket":
        await receive()
        await send({"type": "websocket.close", "code": 1008})
        return
    await send({"type": "http.response.start", "status": 403, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": b"this page is for its own address only\n"})


async def events(
    client: Any, settings: dict[str, Any], messages: list[dict[str, str]]
) -> AsyncIterator[dict[str, Any]]:
    """The events of one answer; Refused with the server's own words where there is none."""
    import httpx

    body = {"model": settings["model"], "messages": messages, "stream": True}
    body |= {"stream_options": {"include_usage": True}, **settings["body"]}
    key = os.environ.get(settings["key_env"] or "", "").strip()
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        async with client.stream(
            "POST", f"{settings['url']}/v1/chat/completions", json=body, headers=headers
        ) as answer:
            if answer.status_code != 200:
                said = (await answer.aread()).decode("utf-8", "replace")[:400]
                raise Refused(f"The server answered {answer.status_code}: {said}")
            async for line in answer.aiter_lines():
                if line.startswith("data:") and (data := line[5:].strip()) != "[DONE]":
                    event = json.loads(data)
                    if error := event.get("error"):
                        said = error.get("message", error) if isinstance(error, dict) else error
                        raise Refused(f"The server broke off: {said}")
                    yield event
    except httpx.HTTPError as error:
        raise Refused(f"No answer from {settings['url']}: {error or type(error).__name__}") from None
    except ValueError as error:
        raise Refused(f"The server sent what is not JSON: {error}") from None


class Figures:
    """When the tokens of one answer came."""

    def __init__(self) -> None:
        self.asked = time.perf_counter()
        self.first: float | None = None
        self.last = self.asked
        self.pieces = 0
        self.counted: int | None = None

    def token(self) -> None:
        """A piece of text is here."""
        self.last = time.perf_counter()
        self.first = self.first or self.last
        self.pieces += 1

    def __str__(self) -> str:
        if self.first is None:
            return "no token came"
        tokens = self.counted or self.pieces
        noun = "token" if self.counted else "piece"
        words = [f"first token {1000 * (self.first - self.asked):.0f} ms"]
        if tokens > 1 and self.last > self.first:
            words.append(f"{(tokens - 1) / (self.last - self.first):.1f} {noun}s/s")
        return " · ".join([*words, f"{tokens} {noun}{'s' * (tokens != 1)}"])


def handlers() -> None:
    """What Chainlit calls: at the beginning of a chat, and for each question."""
    import chainlit as cl
    import httpx
    from chainlit.server import app

    settings = json.loads(os.environ[SETTINGS])
    app.add_middleware(Guard, loopback=settings["loopback"])
    # One for all chats: connections to the server are kept.
    client = httpx.AsyncClient(timeout=httpx.Timeout(PATIENCE_S, connect=10.0))

    async def start() -> None:
        cl.user_session.set("messages", [])

    async def question(message: Any) -> None:
        messages = cl.user_session.get("messages")
        messages.append({"role": "user", "content": message.content})
        reply, figures, thoughts = cl.Message(content=""), Figures(), None
        try:
            async for event in events(client, settings, messages):
                figures.counted = (event.get("usage") or {}).get("completion_tokens") or figures.counted
                delta = ((event.get("choices") or [{}])[0]).get("delta") or {}
                if thought := delta.get("reasoning_content") or delta.get("reasoning"):
                    figures.token()
                    thoughts = thoughts or cl.Step(name="thinking", type="llm")
                    await thoughts.stream_token(thought)
                if text := delta.get("content"):
                    figures.token()
                    await reply.stream_token(text)
        except Refused as refusal:
            await cl.ErrorMessage(content=str(refusal)).send()
        finally:
            # A stopped answer stays in the conversation as far as it came.
            if reply.content:
                messages.append({"role": "assistant", "content": reply.content})
            else:
                messages.pop()
            if thoughts is not None:
                await thoughts.update()
            if reply.content:
                await reply.update()
            await cl.Message(content=str(figures), author="figures", type="system_message").send()

    cl.on_chat_start(start)
    cl.on_message(question)


def main() -> int:
    """Make the folder that Chainlit wants beside an app, and serve the page until told to end."""
    parser = argparse.ArgumentParser(description="a chat page before an OpenAI-compatible server")
    parser.add_argument("--url", required=True, help="base URL of the server, without /v1")
    parser.add_argument("--model", required=True, help="what the server calls its model")
    parser.add_argument("--key-env", help="variable that holds the API key")
    parser.add_argument("--body", default="{}", help="JSON object: more fields of every request")
    parser.add_argument("--name", help="what stands above the page; the model's name by default")
    parser.add_argument("--transport", choices=TRANSPORTS, help="how pieces reach the page; both by default")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", required=True)
    options = parser.parse_args()
    url = options.url.rstrip("/").removesuffix("/v1")
    settings = {"url": url, "model": options.model, "key_env": options.key_env, "body": json.loads(options.body)}
    settings["loopback"] = options.host in LOOPBACK
    name = options.name or options.model
    with tempfile.TemporaryDirectory(prefix="bench-chat-") as folder:
        (Path(folder) / ".chainlit").mkdir()
        # A JSON string is a TOML string.
        transports = f"transports = {json.dumps([options.transport])}\n" if options.transport else ""
        config_text = CONFIG.format(name=json.dumps(name), transports=transports)
        (Path(folder) / ".chainlit" / "config.toml").write_text(config_text, encoding="utf-8")
        (Path(folder) / "public").mkdir()
        (Path(folder) / "public" / "figures.css").write_text(STYLE, encoding="utf-8")
        (Path(folder) / "chainlit.md").write_text(WELCOME.format(name=name), encoding="utf-8")
        os.environ |= {**QUIET, SETTINGS: json.dumps(settings), "CHAINLIT_APP_ROOT": folder}
        os.environ |= {"CHAINLIT_HOST": options.host, "CHAINLIT_PORT": options.port}
        os.chdir(folder)
        from chainlit.cli import config, run_chainlit

        config.run.headless = True
        run_chainlit(str(Path(__file__).absolute()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
elif SETTINGS in os.environ:
    handlers()
