"""Messages between the harness and the load generator's process: a JSON head and raw bytes, both with their length."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

from bench import pipes

_LENGTHS = struct.Struct("<QQ")

Frame = tuple[dict[str, Any], bytes]


def write(descriptor: int, head: dict[str, Any], payload: bytes = b"") -> None:
    """Send one message; half a surrogate pair, which some servers do send, becomes a question mark."""
    encoded = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")
    pipes.write_all(descriptor, _LENGTHS.pack(len(encoded), len(payload)) + encoded)
    pipes.write_all(descriptor, payload)


def read(take: Callable[[int], bytes]) -> Frame | None:
    """Receive one message by `take(most)`: some bytes, none at the end. None once the other side has gone."""
    lengths = _exactly(take, _LENGTHS.size)
    if lengths is None:
        return None
    head_length, payload_length = _LENGTHS.unpack(lengths)
    head = _exactly(take, head_length)
    payload = _exactly(take, payload_length)
    if head is None or payload is None:
        return None
    return json.loads(head), payload


def _exactly(take: Callable[[int], bytes], size: int) -> bytes | None:
    parts: list[bytes] = []
    while size:
        part = take(size)
        if not part:
            return None
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
