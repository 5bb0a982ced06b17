"""The hub's own client against a small hub on this machine."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

COMMIT = "a" * 40
FILES = {
    "config.json": json.dumps({"vocab_size": 7}).encode(),
    "model.safetensors": b"weights" * 1000,
    "README.md": b"# no server needs this",
    "pytorch_model.bin": b"another format",
}
# The client reads its address and its cache's place when it is imported, so each fetch is a process of its own.
FETCH = """
import json, sys
from bench.errors import BenchError
from bench.models.checkpoints import resolve
from bench.scenario.model import Model
try:
    found = resolve(Model(source=sys.argv[1]), "bf16", offline=len(sys.argv) > 2)
    print(json.dumps({"path": str(found.path), "digest": found.digest, "vocab_size": found.vocab_size}))
except BenchError as error:
    print(json.dumps({"error": str(error)}))
"""


class Hub(BaseHTTPRequestHandler):
    """As much of a hub as the client asks for."""

    protocol_version = "HTTP/1.1"
    asked: list[str]

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name is http.server's
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        type(self).asked.append(self.path)
        name = self.path.partition("?")[0].rpartition("/")[2]
        if self.path.startswith("/api/models/owner/gone"):
            self._answer(404, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})
        elif self.path.startswith("/api/models/owner/name/tree"):
            tree = [
                {"type": "file", "path": file, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for file, data in FILES.items()
            ]
            self._answer(200, json.dumps(tree).encode(), {"Content-Type": "application/json"})
        elif self.path.startswith("/api/models/owner/name"):
            document = {"id": "owner/name", "sha": COMMIT, "siblings": [{"rfilename": file} for file in FILES]}
            self._answer(200, json.dumps(document).encode(), {"Content-Type": "application/json"})
        elif name in FILES:
            etag = hashlib.sha256(FILES[name]).hexdigest()
            self._answer(200, FILES[name], {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT})
        else:
            self._answer(404, b"")

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture
def hub() -> Iterator[ThreadingHTTPServer]:
    Hub.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def fetch(home: Path, port: int, source: str, *offline: str) -> dict[str, Any]:
    env = {
        **os.environ,
        "FIRSTTOKEN_HOME": str(home / "firsttoken"),
        "HF_HOME": str(home / "hub"),
        "HF_ENDPOINT": f"http://127.0.0.1:{port}",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    env.pop("HF_HUB_OFFLINE", None)
    done = subprocess.run([sys.executable, "-c", FETCH, source, *offline], env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_a_repository_is_fetched_once_without_what_no_server_needs(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    first = fetch(tmp_path, hub.server_port, "hf:owner/name@main")
    assert first["vocab_size"] == 7
    kept = {file.name for file in Path(first["path"]).iterdir()}
    assert kept == {"config.json", "model.safetensors", "entry.json"}
    entry = json.loads((Path(first["path"]) / "entry.json").read_text())
    assert entry["about"]["commit"] == COMMIT
    asked = len(Hub.asked)
    assert fetch(tmp_path, hub.server_port, "hf:owner/name@main", "offline") == first
    assert len(Hub.asked) == asked


def test_a_repository_that_does_not_exist_is_said_in_words(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    error = fetch(tmp_path, hub.server_port, "hf:owner/gone")["error"]
    assert "the hub has no owner/gone at main" in error
    assert "HF_TOKEN" in error


def test_a_hub_that_does_not_answer_is_said_in_words(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    port = hub.server_port
    hub.shutdown()
    hub.server_close()
    error = fetch(tmp_path, port, "hf:owner/name")["error"]
    assert "hf:owner/name@main cannot be fetched" in error
    assert "path:FOLDER" in error
