"""Server-sent events out of body bytes, wherever the bytes were split."""

from __future__ import annotations

from typing import NamedTuple

_FIELDS = (b"data", b"event", b"id", b"retry")


class Event(NamedTuple):
    """One event. A comment has no data; `malformed` has the lines that are not the format's."""

    data: bytes | None
    name: str | None = None
    malformed: bytes | None = None


class Events:
    """Takes the body piece by piece; gives the events that each piece completed."""

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self._began = False

    def feed(self, piece: bytes) -> list[Event]:
        """Events whose blank line came with this piece."""
        if self._plain(piece):
            self._began = True
            return [Event(piece[6:-2] or None)]
        self._held.append(piece)
        if b"\n" not in piece and b"\r" not in piece:
            return []
        text = b"".join(self._held)
        # A trailing CR may be half of a line's end: it waits for what follows.
        wait = b"\r" if text.endswith(b"\r") else b""
        if b"\r" in text:
            text = text.removesuffix(wait).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *blocks, rest = text.split(b"\n\n")
        self._held = [rest + wait] if rest or wait else []
        return self._events(blocks)

    def end(self) -> list[Event]:
        """What the last piece left without its blank line; servers that stop short of it do exist."""
        text = b"".join(self._held).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        self._held = []
        return self._events(text.split(b"\n\n"))

    def _plain(self, piece: bytes) -> bool:
        """Whether a piece is one whole event in the form that nearly all have."""
        return (
            not self._held
            and piece.startswith(b"data: ")
            and piece.endswith(b"\n\n")
            and piece.find(b"\n") == len(piece) - 2
            and b"\r" not in piece
        )

    def _events(self, blocks: list[bytes]) -> list[Event]:
        if blocks and not self._began:
            self._began = True
            blocks[0] = blocks[0].removeprefix(b"\xef\xbb\xbf")
        return [event for block in blocks if (event := _event(block)) is not None]


def _event(block: bytes) -> Event | None:
    if block.startswith(b"data:") and b"\n" not in block:
        return Event((block[6:] if block[5:6] == b" " else block[5:]) or None)
    data: list[bytes] = []
    name: str | None = None
    malformed: list[bytes] = []
    seen = False
    for line in block.split(b"\n"):
        if not line:
            continue
        seen = True
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            data.append(value)
        elif field == b"event":
            name = value.decode("utf-8", "replace")
        elif field and field not in _FIELDS:
            malformed.append(line)
    if not seen:
        return None
    # An event whose data are empty is not dispatched, says the standard; servers send them to keep a connection alive.
    return Event(b"\n".join(data) or None, name, b"\n".join(malformed) or None)
