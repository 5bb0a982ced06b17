"""A response's body out of its raw reads: HTTP framing and compression taken off, stream told from document."""

from __future__ import annotations

import zlib
from typing import Any

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
