from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from bench.engines import ports
from bench.engines.engine import Endpoint
from bench.errors import LaunchError

Serve = Callable[[int, bytes], Endpoint]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[ThreadingHTTPServer] = []

    def serve(status: int, body: bytes) -> Endpoint:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
                return

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return Endpoint("127.0.0.1", servers[-1].server_port, "")

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(("status", "says"), [(200, ""), (503, "GET /health answers 503"), (401, "answers 401")])
def test_anything_but_200_is_a_problem_in_words(serve: Serve, status: int, says: str) -> None:
    found = ports.problem(serve(status, b""), "/health")
    assert (found == "") == (status == 200)
    assert says in found


def test_a_server_without_a_health_check_has_no_problem(serve: Serve) -> None:
    assert ports.problem(serve(503, b""), None) == ""


def test_nobody_there_is_a_problem_and_no_error() -> None:
    assert "refused" in ports.problem(Endpoint("127.0.0.1", 1, ""), "/health")


def test_an_attached_server_that_wants_a_key_is_not_waited_for(serve: Serve) -> None:
    with pytest.raises(LaunchError, match="is the API key right"):
        ports.problem(serve(403, b""), "/health", attached=True)


def test_the_first_model_gives_the_name_unless_the_scenario_has_one(serve: Serve) -> None:
    endpoint = serve(200, b'{"data": [{"id": "tiny"}, {"id": "other"}]}')
    assert ports.named(endpoint).model == "tiny"
    assert ports.named(Endpoint("127.0.0.1", 1, "mine")).model == "mine"


@pytest.mark.parametrize("body", [b"", b"{}", b'{"data": []}', b"[1]"])
def test_a_server_that_names_no_model_is_told_what_to_set(serve: Serve, body: bytes) -> None:
    with pytest.raises(LaunchError, match="set served_model"):
        ports.named(serve(200, body))
