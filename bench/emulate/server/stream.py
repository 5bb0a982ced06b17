"""One simulated answer as a stream: its events, framed in HTTP, each with its time and with the scripted fault in it.

Standard library only. Events are made one at a time, when the one before has gone, so that the making delays nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from bench.emulate.server.script import Pace, Script

NEVER = 1 << 62
GIGANTIC_BYTES = 8 << 20
WORDS = ("the", " pump", " was", " stopped", " because", " its", " inlet", " pressure", " fell", " by", " half", ".")
# Faults after which nothing more is sent.
ENDING = ("stall", "close_early", "bad_chunk_size")

_MILLISECOND = 1_000_000
_PHRASES = {200: "OK", 400: "Bad Request", 404: "Not Found", 429: "Too Many Requests", 503: "Service Unavailable"}


@dataclass
class Piece:
    """Bytes, when they are due, and what they are for the truth log."""

    due_ns: int
    data: bytes
    kind: str
    tokens: int = 0


@dataclass(frozen=True)
class Event:
    """One server-sent event, due so long after the request."""

    after_ns: int
    kind: str
    data: bytes
    tokens: int = 0
    text: str = ""


@dataclass
class Stream:
    """One answer. `tokens` are asked for; `usage` counts along while the events are made."""

    plan: Script
    pace: Pace
    head: dict[str, Any]
    chat: bool
    tokens: int
    usage: dict[str, Any]
    include_usage: bool
    fault: str | None
    logprobs: bool = False

    @property
    def closes(self) -> bool:
        """Whether the connection ends with the answer."""
        return self.plan.transfer == "close" or self.plan.close_after or self.fault in ("close_early", "bad_chunk_size")

    def pieces(self, start_ns: int) -> Iterator[Piece]:
        """The response, in the order in which it is sent."""
        pieces = self._spoiled(start_ns)
        if self.plan.transfer == "length":
            made = list(pieces)
            missing = 1000 if self.fault in ENDING else 0
            pieces = self._headed(start_ns, made, sum(len(piece.data) for piece in made) + missing)
        else:
            pieces = self._headed(start_ns, pieces, None)
        return _split(pieces, self.plan) if self.plan.split_bytes else pieces

    def document(self, start_ns: int) -> Piece:
        """The response where no stream was asked for."""
        events = list(self._events())
        text = "".join(event.text for event in events)
        held: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
        if self.logprobs and not self.chat:
            held["logprobs"] = {"tokens": [text], "token_logprobs": [self.plan.logprob]}
        content = self.head | {"choices": [{"index": 0, **held, "finish_reason": "length"}], "usage": self.usage}
        return Piece(start_ns + events[-1].after_ns, document(200, content), "document", self.tokens)

    def answer(self) -> str:
        """All that is said in the end, reasoning left out, as it never comes back in the next turn."""
        size, first = self.plan.tokens_per_chunk, self.plan.reasoning_tokens if self.chat else 0
        starts = [at for at in range(0, self.tokens, size) if at >= first]
        return "".join(self._said(at, min(size, self.tokens - at)) for at in starts)

    def _said(self, sent: int, size: int) -> str:
        return self.plan.text or "".join(WORDS[(sent + i) % len(WORDS)] for i in range(size))

    def _headed(self, start_ns: int, pieces: Iterable[Piece], length: int | None) -> Iterator[Piece]:
        head = _head(200, "text/event-stream; charset=utf-8", self.closes)
        if self.plan.transfer == "chunked":
            head += b"Transfer-Encoding: chunked\r\n"
        elif length is not None:
            head += b"Content-Length: %d\r\n" % length
        head += b"\r\n"
        if not self.plan.headers_with_first:
            yield Piece(start_ns + int(self.plan.headers_ms * _MILLISECOND), head, "headers")
            head = b""
        for piece in pieces:
            piece.data = head + piece.data
            head = b""
            yield piece

    def _spoiled(self, start_ns: int) -> Iterator[Piece]:
        """The framed events with the fault worked in at the event that it meets."""
        chunked = self.plan.transfer == "chunked"
        events = -(-self.tokens // self.plan.tokens_per_chunk) + (self.chat and self.plan.role_first)
        met = max(min(self.plan.fault_after, events - 1), 0)
        due = start_ns
        for index, event in enumerate(self._events()):
            due, data = start_ns + event.after_ns, event.data
            if self.fault is not None and index == met:
                if self.fault in ENDING:
                    yield from _ending(self.fault, due)
                    return
                data = _damaged(self.fault, data)
            framed = b"%x\r\n%b\r\n" % (len(data), data) if chunked else data
            yield Piece(due, framed, event.kind, event.tokens)
        if chunked:
            yield Piece(due, b"0\r\n\r\n", "end")

    def _events(self) -> Iterator[Event]:
        plan, end = self.plan, b"\r\n\r\n" if self.plan.crlf else b"\n\n"
        prefix = b"data: " + json.dumps(self.head, ensure_ascii=False).encode()[:-1] + b", "

        def event(after_ms: float, kind: str, content: dict[str, Any], tokens: int = 0, text: str = "") -> Event:
            inner = json.dumps(content, ensure_ascii=False).encode()[1:]
            return Event(int(after_ms * _MILLISECOND), kind, prefix + inner + end, tokens, text)

        at = self.pace.first_ms
        if self.chat and plan.role_first:
            role = {"role": "assistant", "content": ""}
            opening = {"choices": [{"index": 0, "delta": role, "finish_reason": None}]}
            yield event(max(0.0, at - plan.role_lead_ms), "role", opening)
        sent = number = 0
        last = at
        while sent < self.tokens:
            if plan.sse_comments and number % plan.sse_comments == 0:
                yield Event(int(at * _MILLISECOND), "comment", b": keep-alive" + end)
            size = min(plan.tokens_per_chunk, self.tokens - sent)
            reasoning = self.chat and sent < plan.reasoning_tokens
            said = self._said(sent, size)
            sent, number, last = sent + size, number + 1, at
            self.usage["completion_tokens"] = sent
            self.usage["total_tokens"] = self.usage["prompt_tokens"] + sent
            choice: dict[str, Any] = {"index": 0}
            if self.chat:
                choice["delta"] = {plan.reasoning_field if reasoning else "content": said}
            else:
                choice["text"] = said
            choice["finish_reason"] = "length" if sent == self.tokens and self.fault != "no_end" else None
            if plan.server_ttft:
                choice["arrival_time"] = at / 1e3
            content: dict[str, Any] = {"choices": [choice]}
            if plan.continuous_usage:
                content["usage"] = self.usage
            kind = "reasoning" if reasoning else "content"
            yield event(at, kind, content, size, "" if reasoning else said)
            at += sum(self.pace.gap_ms() for _ in range(size))
        if self.include_usage and self.fault != "no_usage":
            yield event(last, "usage", {"choices": [], "usage": self.usage})
        if self.fault != "no_end":
            yield Event(int(last * _MILLISECOND), "done", b"data: [DONE]" + end)


def document(status: int, content: Any) -> bytes:
    """A whole response with a JSON body."""
    body = json.dumps(content, ensure_ascii=False).encode()
    return _head(status, "application/json", False) + b"Content-Length: %d\r\n\r\n" % len(body) + body


def stream_head(number: int, chat: bool, model: str) -> dict[str, Any]:
    """The fields that every event of an answer repeats."""
    kind = "chat.completion.chunk" if chat else "text_completion"
    return {"id": f"sim-{number}", "object": kind, "created": int(time.time()), "model": model}


def _head(status: int, content_type: str, closes: bool) -> bytes:
    phrase, connection = _PHRASES.get(status, "Error"), "close" if closes else "keep-alive"
    lines = (f"HTTP/1.1 {status} {phrase}", f"Content-Type: {content_type}", f"Connection: {connection}", "")
    return "\r\n".join(lines).encode()


def _ending(fault: str, due_ns: int) -> Iterator[Piece]:
    if fault == "stall":
        yield Piece(NEVER, b"", "stall")
    elif fault == "bad_chunk_size":
        yield Piece(due_ns, b"zz\r\nnot a size\r\n", "fault")
    else:
        yield Piece(due_ns, b"", "fault")


def _damaged(fault: str, data: bytes) -> bytes:
    """An event as the fault leaves it."""
    if fault == "malformed_sse":
        return b"this is not an event\n\n" + data
    if fault == "malformed_json":
        return data.rstrip()[:-1] + b"\n\n"
    if fault == "invalid_utf8":
        return data.replace(b'": "', b'": "\xff\xfe', 1)
    if fault == "error_event":
        message = {"error": {"message": "EngineCore encountered an issue", "type": "InternalServerError", "code": 500}}
        return b"data: " + json.dumps(message).encode() + b"\n\n" + data
    if fault == "gigantic_line":
        return b": " + b"x" * GIGANTIC_BYTES + b"\n\n" + data
    return data


def _split(pieces: Iterable[Piece], plan: Script) -> Iterator[Piece]:
    earliest = 0
    for piece in pieces:
        due = max(piece.due_ns, earliest)
        for at in range(0, max(len(piece.data), 1), plan.split_bytes):
            part = piece.data[at : at + plan.split_bytes]
            whole = at + plan.split_bytes >= len(piece.data)
            yield Piece(due, part, piece.kind if whole else "part", piece.tokens if whole else 0)
            due += int(plan.split_gap_ms * _MILLISECOND)
        earliest = due
