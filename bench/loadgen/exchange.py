"""One request on the wire and all that came back: bytes and stamps, parsed only so far as to find the end."""

from __future__ import annotations

from time import monotonic_ns
from typing import Any

import httptools


class Exchange:
    """One request on the wire and all that came back: raw reads, their stamps, and how it ended.

    `kernel` holds each read's raw timespec, or None; `failure` is (error kind, sentence). More than `most` bytes are a
    failure.
    """

    __slots__ = (
        "_framed",
        "_headed",
        "_keep_alive",
        "_left",
        "_parser",
        "complete",
        "connect_ns",
        "end_ns",
        "failure",
        "kernel",
        "reads",
        "sent_end_ns",
        "sent_ns",
        "user",
    )

    def __init__(self, most: int | None = None) -> None:
        self._left = most
        self.reads: list[bytes] = []
        self.user: list[int] = []
        self.kernel: list[bytes | None] = []
        self.connect_ns: int | None = None
        self.sent_ns: int | None = None
        self.sent_end_ns: int | None = None
        self.end_ns: int | None = None
        self.failure: tuple[str, str] | None = None
        self.complete = False
        self._headed = self._framed = self._keep_alive = False
        self._parser: Any = httptools.HttpResponseParser(self)

    def feed(self, data: bytes, user_ns: int, kernel: bytes | None) -> bool:
        """Keep one read; true once the response is over, well or badly."""
        self.reads.append(data)
        self.user.append(user_ns)
        self.kernel.append(kernel)
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                self.failure = ("protocol", "the answer does not end: more came than any canary's can be long")
                return True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self.failure = ("protocol", f"the response is not valid HTTP/1.1: {error}")
        return self.complete or self.failure is not None

    def eof(self) -> None:
        """The server closed the connection, which is the proper end only of a body without a length of its own."""
        if self._headed and not self._framed:
            self.complete = True
        elif not self.complete and self.failure is None:
            where = (
                f"in the middle of the {'body' if self._headed else 'headers'}" if self.reads else "without an answer"
            )
            self.failure = ("closed", f"the server closed the connection {where}")

    def finish(self) -> bool:
        """Stamp the end and drop the parser; true where the connection may carry another exchange."""
        self.end_ns = monotonic_ns()
        self._parser = None
        return self.complete and self._framed and self._keep_alive

    def on_header(self, name: bytes, _value: bytes) -> None:
        """Called by the parser."""
        self._framed = self._framed or name.lower() in (b"content-length", b"transfer-encoding")

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        self._headed = self._parser.get_status_code() >= 200
        # Once the message is complete the parser has forgotten this.
        self._keep_alive = self._parser.should_keep_alive()

    def on_message_complete(self) -> None:
        """Called by the parser, also at the end of an interim 1xx answer."""
        self.complete = self._headed
