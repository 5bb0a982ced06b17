"""nginx before a service, the real one: tokens go on as they come, an engine that dies is told, callers are limited."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench.cli import main
from bench.errors import UsageError
from bench.service.nginx import Nginx, configuration
from tests.service.test_deploy import BINARIES, PATIENCE_S, change, ready, running
from tests.waiting import until

pytestmark = pytest.mark.skipif(
    shutil.which("nginx", path=BINARIES) is None, reason="needs nginx (apt-get install nginx-light)"
)
TOKENS = 12


def free_ports(number: int) -> int:
    """The first of so many free ports in a row."""
    for _ in range(100):
        with socket.socket() as first:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
        try:
            for following in range(port, port + number):
                with socket.socket() as sock:
                    sock.bind(("127.0.0.1", following))
        except (OSError, OverflowError):
            continue
        return port
    raise AssertionError("no free ports in a row")


def deployed(measured: Path, folder: Path, *words: str, **script: float) -> int:
    """A folder of two instances of the scripted server behind nginx; the port in front."""
    port = free_ports(3)
    own = ["deploy", str(measured), str(folder), "--variant", "none", "--port", str(port), "--instances", "2"]
    assert main([*own, *words]) == 0
    change(folder, lambda settings: settings["ready"].update(within_ms=20_000))
    old = json.dumps({"ttft_ms": 20, "itl_ms": 1})
    change(
        folder,
        lambda settings: settings.update(argv=[word.replace(old, json.dumps(script)) for word in settings["argv"]]),
    )
    return port


def body(**more: Any) -> bytes:
    return json.dumps({"model": "simulated", "prompt": "hello", "max_tokens": TOKENS, **more}).encode()


def reads(port: int) -> list[int]:
    """Events in each read of one streamed completion."""
    request = body(stream=True)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(request)}\r\nConnection: close\r\n\r\n"
    counts = []
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.sendall(head.encode() + request)
        while piece := sock.recv(1 << 16):
            if events := piece.count(b"data: {"):
                counts.append(events)
    return counts


def asked(port: int) -> tuple[int, dict[str, Any], dict[str, str]]:
    """Status, document and headers of one completion."""
    try:
        request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/completions", body())
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return answer.status, json.load(answer), dict(answer.headers)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error), dict(error.headers)


def served(folder: Path, number: int) -> int:
    """How many completions an instance was asked for, by its own account."""
    return len((folder / "state" / str(number) / "truth.jsonl").read_text().splitlines())


@pytest.fixture
def slow(measured: Path, tmp_path: Path) -> Iterator[tuple[Path, int]]:
    folder = tmp_path / "svc"
    port = deployed(measured, folder, ttft_ms=1500, itl_ms=1)
    with running(folder):
        ready(folder)
        yield folder, port


def test_tokens_come_through_it_as_they_come_from_the_engine(measured: Path, tmp_path: Path) -> None:
    folder = tmp_path / "svc"
    port = deployed(measured, folder, ttft_ms=20, itl_ms=25)
    with running(folder):
        ready(folder)
        straight, through = reads(port + 1), reads(port)
    assert sum(straight) == sum(through) >= TOKENS
    assert len(straight) >= TOKENS, "far enough apart for a read of its own each"
    assert len(through) == len(straight)


def test_an_engine_that_dies_is_told_nothing_is_asked_twice_and_the_next_is_served(slow: tuple[Path, int]) -> None:
    folder, port = slow
    before = [served(folder, 1), served(folder, 2)]
    said: list[tuple[int, dict[str, Any], dict[str, str]]] = []
    caller = threading.Thread(target=lambda: said.append(asked(port)))
    caller.start()
    end = time.monotonic() + PATIENCE_S
    busy = None
    while busy is None and time.monotonic() < end:
        time.sleep(0.02)
        busy = next((number for number in (1, 2) if connected(port + number)), None)
    assert busy is not None
    os.kill(int((folder / "state" / str(busy) / "ready").read_text()), signal.SIGKILL)
    caller.join(PATIENCE_S)
    ((status, document, _),) = said
    assert status == 502
    assert "the request was not sent again" in document["error"]["message"]
    other = 3 - busy
    assert served(folder, other) == before[other - 1], "the other instance never saw it"
    status, document, _ = asked(port)
    assert (status, document["choices"][0]["finish_reason"]) == (200, "length")
    # It makes its note once the answer has left.
    until(lambda: served(folder, other) > before[other - 1])
    assert served(folder, other) == before[other - 1] + 1


def connected(port: int) -> bool:
    """Whether anybody is connected to a port (/proc/net/tcp)."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return any(row[1].endswith(f":{port:04X}") and row[3] == "01" for row in rows)


def test_all_of_it_ends_together(measured: Path, tmp_path: Path) -> None:
    folder = tmp_path / "svc"
    port = deployed(measured, folder, ttft_ms=20, itl_ms=1)
    with running(folder) as process:
        front = ready(folder)
        engines = [int((folder / "state" / str(number) / "ready").read_text()) for number in (1, 2)]
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in (front, *engines))
    with socket.socket() as sock:
        assert sock.connect_ex(("127.0.0.1", port)) != 0


def test_nginx_killed_is_started_again(measured: Path, tmp_path: Path) -> None:
    folder = tmp_path / "svc"
    port = deployed(measured, folder, ttft_ms=20, itl_ms=1)
    with running(folder):
        front = ready(folder)
        workers = psutil.Process(front).children()
        assert workers
        os.kill(front, signal.SIGKILL)
        assert ready(folder, after=front) != front
        assert asked(port)[0] == 200
        assert not any(worker.is_running() for worker in workers), "the old one's workers would answer for ever"


def test_nothing_is_left_of_a_keeper_that_was_killed(measured: Path, tmp_path: Path) -> None:
    folder = tmp_path / "svc"
    port = deployed(measured, folder, ttft_ms=20, itl_ms=1)
    with running(folder) as process:
        ready(folder)
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 6, "two keepers with an engine each, nginx and its worker"
        process.kill()
        until(lambda: not any(one.is_running() for one in family))
    with socket.socket() as sock:
        assert sock.connect_ex(("127.0.0.1", port)) != 0


def test_who_asks_more_than_is_allowed_is_told_when_to_come_again(measured: Path, tmp_path: Path) -> None:
    folder = tmp_path / "svc"
    port = deployed(measured, folder, "--rate", "2", ttft_ms=1, itl_ms=1)
    with running(folder):
        ready(folder)
        answers = [asked(port) for _ in range(12)]
    statuses = {status for status, _, _ in answers}
    assert statuses == {200, 429}
    _, document, headers = next(answer for answer in answers if answer[0] == 429)
    assert headers["Retry-After"] == "1"
    assert document["error"]["type"] == "rate_limit_exceeded"
    assert "2r/s" in document["error"]["message"]


@pytest.mark.parametrize(("per_s", "rate", "burst"), [(10, "10r/s", 10), (0.5, "30r/m", 1), (2.5, "150r/m", 3)])
def test_a_rate_is_told_in_nginx_s_units(per_s: float, rate: str, burst: int) -> None:
    text = configuration(Nginx(1, per_s), "127.0.0.1", 8000, 600)
    assert f"rate={rate};" in text
    assert f"burst={burst} nodelay" in text


def test_a_rate_that_nginx_cannot_count_is_refused() -> None:
    with pytest.raises(UsageError, match="fewer than one"):
        configuration(Nginx(1, 0.01), "127.0.0.1", 8000, 600)


def test_ports_beyond_the_last_are_refused(measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["deploy", str(measured), str(tmp_path / "svc"), "--variant", "none", "--port", "65535", "--nginx"]
    assert main(words) == 4
    assert "need ports above 65535" in capsys.readouterr().err
