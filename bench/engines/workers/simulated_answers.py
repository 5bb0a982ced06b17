"""What a simulated server answers: the pieces of a response, each with its time. Standard library only."""

from __future__ import annotations

import json
import math
import random
import time
from dataclasses import dataclass
from typing import Any

from bench.engines.workers.simulated_script import Noise, Script, script

GIGANTIC_BYTES = 8 << 20
WORDS = ("the", " pump", " was", " stopped", " because", " its", " inlet", " pressure", " fell", " by", " half", ".")

_MILLISECOND = 1_000_000


@dataclass
class Piece:
    """Bytes with the time at which they are due, and what they are, for the truth log."""

    due_ns: int
    data: bytes
    kind: str
    tokens: int = 0


@dataclass
class Request:
    """A parsed request with the times at which its last byte was there: for the kernel, and for us."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    received_ns: int
    kernel_ns: int | None


class Timing:
    """Response times with the noise of one launch on them."""

    def __init__(self, base: Noise, launch: str, block: int, position: int) -> None:
        self._noise = base
        self._draw = random.Random(f"{base.seed}/{launch}")
        drift = (1 + base.drift_per_block * block) * (1 + base.per_position * position)
        self._launch = math.exp(self._draw.gauss(0, base.launch_sd)) * drift
        self._served = 0

    def first_ms(self, plan: Script, prompt_tokens: int) -> float:
        """Time to the first token of the next request."""
        base = plan.ttft_ms + plan.prefill_ms_per_token * prompt_tokens
        cold = plan.cold_ms * 0.5**self._served
        self._served += 1
        noise = self._noise
        factor = self._launch * plan.slowdown * math.exp(self._draw.gauss(0, noise.request_sd))
        if self._draw.random() < noise.spike_probability:
            factor *= 1 + self._draw.expovariate(1 / noise.spike_scale)
        return base * factor + cold + self._jitter(plan)

    def gap_ms(self, plan: Script) -> float:
        """Time from one token to the next."""
        return max(0.0, plan.itl_ms * self._launch * plan.slowdown + self._jitter(plan))

    def faulty(self, plan: Script) -> bool:
        """Whether this request meets the script's fault."""
        return plan.fault is not None and self._draw.random() < plan.fault_share

    def _jitter(self, plan: Script) -> float:
        return self._draw.uniform(-plan.jitter_ms, plan.jitter_ms) if plan.jitter_ms else 0.0


class Answerer:
    """Turns a completion request into the pieces to send."""

    def __init__(self, base: Script, timing: Timing, model: str) -> None:
        self.base = base
        self.model = model
        self._timing = timing
        self._seen: set[int] = set()
        self._number = 0

    def pieces(self, request: Request, start_ns: int) -> tuple[list[Piece], bool]:
        """What to send and when, and whether the connection ends with it."""
        self._number += 1
        try:
            body = json.loads(request.body)
            plan = script(body.get("simulate") or {}, self.base)
            prompt_tokens, digest = _prompt(body)
            tokens = int(body.get("max_tokens") or body.get("max_completion_tokens") or 16)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return [Piece(start_ns, document(400, {"error": {"message": str(error)}}), "error")], False
        fault = plan.fault if self._timing.faulty(plan) else None
        if fault in ("http_429", "http_500"):
            status = int(fault[-3:])
            message = {"error": {"message": "scripted failure", "type": "simulated", "code": status}}
            return [Piece(start_ns, document(status, message), "error")], False
        if fault == "not_http":
            return [Piece(start_ns, b"220 this is not the protocol you expect\r\n", "error")], True
        if fault == "reset":
            return [Piece(start_ns, b"", "reset")], True
        chat = request.path.endswith("/chat/completions")
        cached = prompt_tokens - 1 if plan.prefix_cache and digest in self._seen else 0
        self._seen.add(digest)
        usage = {"prompt_tokens": prompt_tokens, "completion_tokens": 0, "total_tokens": prompt_tokens}
        if plan.prefix_cache:
            usage["prompt_tokens_details"] = {"cached_tokens": cached}  # type: ignore[assignment]
        events = self._events(plan, chat, tokens if fault != "zero_tokens" else 0, usage, prompt_tokens - cached, fault)
        if not body.get("stream"):
            text = "".join(word for _, _, _, word in events)
            return [self._whole(chat, text, usage, start_ns + max(due for due, *_ in events))], False
        if fault == "no_usage" or not (body.get("stream_options") or {}).get("include_usage"):
            events = [event for event in events if event[1] != "usage"]
        return self._framed(plan, fault, events, start_ns)

    def _events(
        self, plan: Script, chat: bool, tokens: int, usage: dict[str, Any], fresh: int, fault: str | None
    ) -> list[tuple[int, str, bytes, str]]:
        """(ns after the start, kind, event bytes, text) of each event of the stream."""
        end = b"\r\n\r\n" if plan.crlf else b"\n\n"
        head = {
            "id": f"sim-{self._number}",
            "object": "chat.completion.chunk" if chat else "text_completion",
            "created": int(time.time()),
            "model": self.model,
        }

        def event(content: dict[str, Any]) -> bytes:
            return b"data: " + json.dumps(head | content, ensure_ascii=False).encode() + end

        def choice(delta: dict[str, Any] | str, finish: str | None = None, **more: Any) -> dict[str, Any]:
            held = {"delta": delta} if chat else {"text": delta}
            return {"choices": [{"index": 0, **held, "finish_reason": finish, **more}]}

        first = self._timing.first_ms(plan, fresh)
        made: list[tuple[int, str, bytes, str]] = []
        at = first
        if chat and plan.role_first:
            role = first if plan.role_ms is None else plan.role_ms
            made.append((int(role * _MILLISECOND), "role", event(choice({"role": "assistant", "content": ""})), ""))
        sent = 0
        while sent < tokens:
            size = min(plan.tokens_per_chunk, tokens - sent)
            reasoning = chat and sent < plan.reasoning_tokens
            said = "".join(WORDS[(sent + i) % len(WORDS)] for i in range(size)) if plan.text is None else plan.text
            sent += size
            more: dict[str, Any] = {"arrival_time": at / 1e3} if plan.server_ttft else {}
            delta: dict[str, Any] | str = said
            if chat:
                delta = {plan.reasoning_field: said} if reasoning else {"content": said}
            content = choice(delta, "length" if sent == tokens and fault != "no_end" else None, **more)
            usage["completion_tokens"] = sent
            usage["total_tokens"] = usage["prompt_tokens"] + sent
            if plan.continuous_usage:
                content["usage"] = dict(usage)
            if plan.sse_comments and len(made) % plan.sse_comments == 0:
                made.append((int(at * _MILLISECOND), "comment", b": keep-alive" + end, ""))
            kind = "reasoning" if reasoning else "content"
            made.append((int(at * _MILLISECOND), kind, event(content), "" if reasoning else said))
            at += self._timing.gap_ms(plan) * size
        last = made[-1][0] if made else int(first * _MILLISECOND)
        made.append((last, "usage", event({"choices": [], "usage": dict(usage)}), ""))
        if fault != "no_end":
            made.append((last, "done", b"data: [DONE]" + end, ""))
        return made

    def _framed(
        self, plan: Script, fault: str | None, events: list[tuple[int, str, bytes, str]], start_ns: int
    ) -> tuple[list[Piece], bool]:
        """The events inside an HTTP response, with the fault worked into them."""
        chunked = plan.transfer == "chunked"
        closes = plan.transfer == "close" or plan.close_after or fault in ("close_early", "bad_chunk_size")
        body: list[Piece] = []
        after = min(plan.fault_after, max(len(events) - 1, 0))
        for index, (due, kind, data, text) in enumerate(events):
            if index == after and fault is not None:
                data, ends = _spoiled(fault, data)
                if ends:
                    if data:
                        body.append(Piece(start_ns + due, data, "fault"))
                    break
            framed = f"{len(data):x}\r\n".encode() + data + b"\r\n" if chunked else data
            body.append(Piece(start_ns + due, framed, kind, plan.tokens_per_chunk if text else 0))
        if chunked and fault not in ("stall", "close_early", "bad_chunk_size"):
            body.append(Piece(body[-1].due_ns if body else start_ns, b"0\r\n\r\n", "end"))
        head = _head(200, "text/event-stream; charset=utf-8", closes)
        if chunked:
            head += b"Transfer-Encoding: chunked\r\n\r\n"
        elif plan.transfer == "length":
            missing = 1000 if fault in ("stall", "close_early") else 0
            head += b"Content-Length: %d\r\n\r\n" % (sum(len(piece.data) for piece in body) + missing)
        else:
            head += b"\r\n"
        if plan.headers_with_first and body:
            body[0].data = head + body[0].data
        else:
            body.insert(0, Piece(start_ns + int(plan.headers_ms * _MILLISECOND), head, "headers"))
        if fault == "stall":
            body.append(Piece(1 << 62, b"", "stall"))
        return (_split(body, plan) if plan.split_bytes else body), closes

    def _whole(self, chat: bool, text: str, usage: dict[str, Any], due_ns: int) -> Piece:
        held: dict[str, Any] = {"message": {"role": "assistant", "content": text}} if chat else {"text": text}
        content = {
            "id": f"sim-{self._number}",
            "object": "chat.completion" if chat else "text_completion",
            "model": self.model,
            "choices": [{"index": 0, **held, "finish_reason": "length"}],
            "usage": usage,
        }
        return Piece(due_ns, document(200, content), "document", usage["completion_tokens"])


def _spoiled(fault: str, data: bytes) -> tuple[bytes, bool]:
    """An event as the fault leaves it, and whether the stream ends there."""
    if fault in ("stall", "close_early"):
        return b"", True
    if fault == "bad_chunk_size":
        return b"zz\r\nnot a size\r\n", True
    if fault == "malformed_sse":
        return b"this is not an event\n\n" + data, False
    if fault == "malformed_json":
        return data.rstrip()[:-1] + b"\n\n", False
    if fault == "invalid_utf8":
        return data.replace(b' "', b' "\xff\xfe', 1), False
    if fault == "error_event":
        message = {"error": {"message": "EngineCore encountered an issue", "type": "InternalServerError", "code": 500}}
        return b"data: " + json.dumps(message).encode() + b"\n\n" + data, False
    if fault == "gigantic_line":
        return b": " + b"x" * GIGANTIC_BYTES + b"\n\n" + data, False
    return data, False


def _split(pieces: list[Piece], plan: Script) -> list[Piece]:
    made: list[Piece] = []
    earliest = 0
    for piece in pieces:
        due = max(piece.due_ns, earliest)
        for at in range(0, max(len(piece.data), 1), plan.split_bytes):
            part = piece.data[at : at + plan.split_bytes]
            last = at + plan.split_bytes >= len(piece.data)
            made.append(Piece(due, part, piece.kind if last else "part", piece.tokens if last else 0))
            due += int(plan.split_gap_ms * _MILLISECOND)
        earliest = due
    return made


def _prompt(body: dict[str, Any]) -> tuple[int, int]:
    """The prompt's length in tokens (ids, or words of its text), and a digest of it."""
    prompt: Any = body.get("prompt")
    if prompt is None:
        prompt = " ".join(str(message.get("content", "")) for message in body["messages"])
    if isinstance(prompt, str):
        return len(words(prompt)), hash(prompt)
    return len(prompt), hash(tuple(prompt))


def words(text: str) -> list[str]:
    """A text in the only tokens that this server knows."""
    return text.split()


def _head(status: int, content_type: str, closes: bool) -> bytes:
    phrase = {200: "OK", 400: "Bad Request", 404: "Not Found", 429: "Too Many Requests"}.get(status, "Error")
    connection = "close" if closes else "keep-alive"
    return (
        f"HTTP/1.1 {status} {phrase}\r\nServer: simulated\r\nContent-Type: {content_type}\r\n"
        f"Connection: {connection}\r\n"
    ).encode()


def document(status: int, content: Any) -> bytes:
    """A whole response with a JSON body."""
    body = json.dumps(content).encode()
    return _head(status, "application/json", False) + b"Content-Length: %d\r\n\r\n" % len(body) + body
