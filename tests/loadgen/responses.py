"""Responses as bytes, and the cutting of them."""

import json
from itertools import pairwise
from typing import Any


def cut(data: bytes, at: list[int]) -> list[bytes]:
    marks = sorted({min(mark, len(data)) for mark in at} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(marks)]


def sse(*contents: Any) -> bytes:
    texts = [content if isinstance(content, str) else json.dumps(content, ensure_ascii=False) for content in contents]
    return "".join(f"data: {text}\n\n" for text in texts).encode()


def delta(finish: str | None = None, **fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": finish}]}


def chunked(body: bytes, size: int = 40) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    framed = b"".join(f"{len(part):x}\r\n".encode() + part + b"\r\n" for part in parts)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + framed + b"0\r\n\r\n"


def sized(body: bytes, status: int = 200, kind: str = "text/event-stream") -> bytes:
    return f"HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def closing(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n" + body


WHOLE = sse(
    delta(role="assistant", content=""),
    delta(reasoning_content="Hm. "),
    delta(content="Die Pumpe "),
    delta(content="läuft 水泵"),
    delta(finish="stop"),
    {
        "choices": [],
        "usage": {"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}},
    },
    "[DONE]",
)
TEXT = "Die Pumpe läuft 水泵"
