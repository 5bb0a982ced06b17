"""HTTP/1.1 on plain threads: one reads each connection, and the model's own thread writes the tokens to its socket."""

from __future__ import annotations

import json
import platform
import socket
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
import transformers

from .answering import Writer, encode, failure
from .parsing import BadRequest, conversation, known, parse
from .runtime import Runtime
from .schedule import Scheduler, Sequence

# A client that reads nothing may fall this far behind before it counts as gone.
_BEHIND = 4 << 20


class Stream:
    """Server-sent events over one connection, in chunked encoding; one send for each event, never waiting."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._behind = b""
        self._broken = False

    def send(self, document: dict[str, Any]) -> None:
        """Send one event."""
        self.write(b"data: " + encode(document) + b"\n\n")

    def write(self, event: bytes) -> None:
        """Send one chunk; what the socket does not take at once goes with the next."""
        data = self._behind + b"%x\r\n%b\r\n" % (len(event), event)
        try:
            sent = self._connection.send(data, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._broken = True
            return
        self._behind = data[sent:]
        self._broken = self._broken or len(self._behind) > _BEHIND

    def gone(self) -> bool:
        """Whether the client has closed the connection or stopped reading."""
        return self._broken or closed(self._connection)

    def finish(self) -> bool:
        """Wait until all is sent; False if the connection is lost."""
        if not self._broken:
            try:
                self._connection.sendall(self._behind + b"0\r\n\r\n")
            except OSError:
                self._broken = True
        return not self._broken


class Whole:
    """An answer that is sent in one piece by the connection's own thread."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def send(self, document: dict[str, Any]) -> None:
        """Nothing goes out before the end."""

    def gone(self) -> bool:
        """Whether the client has closed the connection."""
        return closed(self._connection)


def closed(connection: socket.socket) -> bool:
    """Whether the other side has closed, seen without reading anything."""
    try:
        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


class Server(ThreadingHTTPServer):
    """The listening socket and what its handlers need."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], runtime: Runtime, scheduler: Scheduler, served: str) -> None:
        self.runtime = runtime
        self.scheduler = scheduler
        self.served = served
        super().__init__(address, Handler)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name is http.server's
        """No line per request: the events file has them."""

    def do_GET(self) -> None:
        """The small documents."""
        runtime = self.server.runtime
        path = self.path.partition("?")[0]
        if path in ("/health", "/ping"):
            self._reply({})
        elif path == "/version":
            self._reply(
                {"version": transformers.__version__, "torch": torch.__version__, "python": platform.python_version()}
            )
        elif path == "/v1/models":
            model = {"id": self.server.served, "object": "model", "owned_by": "firsttoken", "root": runtime.args.model}
            self._reply({"object": "list", "data": [{**model, "max_model_len": runtime.max_tokens}]})
        else:
            self._refuse(BadRequest(f"there is no {path}", status=404))

    def do_POST(self) -> None:
        """Completions and tokenizing."""
        path = self.path.partition("?")[0]
        actions = {
            "/v1/completions": lambda body: self._complete(body, chat=False),
            "/v1/chat/completions": lambda body: self._complete(body, chat=True),
            "/tokenize": self._tokenize,
            "/detokenize": self._detokenize,
        }
        try:
            body = self._body()
            if path not in actions:
                raise BadRequest(f"there is no {path}", status=404)
            actions[path](body)
        except BadRequest as error:
            self._refuse(error)
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def _complete(self, body: Mapping[str, Any], chat: bool) -> None:
        runtime = self.server.runtime
        ask = parse(body, chat, runtime, self.server.served)
        writer = Writer(ask, runtime, self.server.served)
        if not ask.stream:
            sequence = Sequence(ask, writer, Whole(self.connection), runtime)
            self.server.scheduler.submit(sequence)
            sequence.done.wait()
            if sequence.error:
                self._reply(failure(sequence.error, "server_error", code=500), 500)
            elif sequence.answer is not None:
                self._reply(sequence.answer)
            else:
                self.close_connection = True
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Cache-Control", "no-cache")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        stream = Stream(self.connection)
        sequence = Sequence(ask, writer, stream, runtime)
        self.server.scheduler.submit(sequence)
        sequence.done.wait()
        stream.write(b"data: [DONE]\n\n")
        self.close_connection = not stream.finish()

    def _tokenize(self, body: Mapping[str, Any]) -> None:
        runtime = self.server.runtime
        if "messages" in body:
            ids = conversation(body, runtime)
        elif isinstance(body.get("prompt"), str):
            special = bool(body.get("add_special_tokens", True))
            ids = runtime.tokenizer(body["prompt"], add_special_tokens=special)["input_ids"]
        else:
            raise BadRequest("prompt must be a string, or messages a list", "prompt")
        self._reply({"count": len(ids), "max_model_len": runtime.max_tokens, "tokens": ids})

    def _detokenize(self, body: Mapping[str, Any]) -> None:
        tokens = body.get("tokens")
        if not isinstance(tokens, list) or not all(type(token) is int for token in tokens):
            raise BadRequest("tokens must be a list of token ids", "tokens")
        runtime = self.server.runtime
        self._reply({"prompt": runtime.tokenizer.decode(known(tokens, "tokens", runtime))})

    def _body(self) -> Mapping[str, Any]:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            raw = self._chunks()
        else:
            length = self.headers.get("Content-Length", "0")
            if not length.isdigit():
                raise BadRequest(f"Content-Length {length!r} is not a number")
            raw = self.rfile.read(int(length))
        try:
            body = json.loads(raw)
        except ValueError as error:
            raise BadRequest(f"the body is not JSON: {error}") from error
        if not isinstance(body, dict):
            raise BadRequest("the body must be a JSON object")
        return body

    def _chunks(self) -> bytes:
        parts: list[bytes] = []
        while True:
            try:
                size = int(self.rfile.readline(64).partition(b";")[0], 16)
            except ValueError as error:
                self.close_connection = True
                raise BadRequest("the body's chunked encoding is broken") from error
            if size == 0:
                while self.rfile.readline(8192).strip():
                    pass
                return b"".join(parts)
            parts.append(self.rfile.read(size))
            self.rfile.readline(8)

    def _refuse(self, error: BadRequest) -> None:
        kind = "not_found_error" if error.status == 404 else "invalid_request_error"
        self._reply(failure(str(error), kind, error.param, error.status), error.status)

    def _reply(self, document: Any, status: int = 200) -> None:
        data = encode(document)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
