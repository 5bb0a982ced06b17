"""A response's body out of its raw reads: HTTP framing and compression taken off, stream told from document.

Of a stream, the server-sent events, wherever the bytes were split.
"""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

_FIELDS = (b"data", b"event", b"id", b"retry")
_PACKED = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}


class Body:
    """httptools' view of a response: the status, and the body's bytes with framing and compression taken off.

    `document` is None until the body's first bytes tell a stream from one document.
    """

    def __init__(self) -> None:
        self.parser: Any = None
        self.status: int | None = None
        self.document: bool | None = None
        self.refused: str | None = None
        self._pieces: list[bytes] = []
        self._unpack: Any = None

    def on_header(self, name: bytes, value: bytes) -> None:
        """Called by the parser."""
        # Some compress whether asked to or not.
        if name.lower() == b"content-encoding" and (how := value.strip().lower()) not in (b"", b"identity"):
            if how in _PACKED:
                self._unpack = zlib.decompressobj(_PACKED[how])
            else:
                named = how.decode("latin-1")
                self.refused = f"the server compressed its answer ({named}) although it was asked not to"

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self.status = self.parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        """Called by the parser."""
        self._pieces.append(data)

    def take(self) -> bytes:
        """The body's bytes since the last call."""
        pieces, self._pieces = self._pieces, []
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if self.refused:
            return b""
        if self._unpack is None or not data:
            return data
        try:
            return bytes(self._unpack.decompress(data))
        except zlib.error as error:
            self.refused = f"the server's compressed answer cannot be unpacked: {error}"
            return b""


def is_document(status: int | None, piece: bytes) -> bool | None:
    """Whether a body that begins so is one document, whatever its type says; None where nothing tells yet."""
    if status is not None and status >= 300:
        return True
    # Of a byte order mark, a part may be here.
    begin = piece.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
    return None if not begin else begin in b"{["


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
