"""The gate: a cold server is waited for, a warm one is let through, and what no waiting mends is said at once."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.analyse.run import Run
from bench.cli import main
from bench.errors import RecordError, UnknownName
from bench.programs import ready_process
from bench.programs.ready_process import CHAT, COMPLETIONS, gate, parse, shaped
from bench.service.ready import CLIENT_MS, WarmLimit, check, of_run, prediction_bound
from tests.children import ended
from tests.runs import Behaviour, synthetic_run


@contextmanager
def scripted(**script: Any) -> Iterator[str]:
    """The scripted server's address."""
    command = [sys.executable, "-m", "bench.emulate.server.program", "--script", json.dumps(script)]
    with ended(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) as server:
        assert server.stdout is not None
        try:
            yield server.stdout.readline().removeprefix("listening on ").strip()
        finally:
            server.terminate()


@contextmanager
def raw(answer: Callable[[bytes], bytes | None]) -> Iterator[str]:
    """A server that answers every request with bytes of the test's choice, or holds its tongue for None."""
    listener = socket.create_server(("127.0.0.1", 0))
    held: list[socket.socket] = []

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            request = b""
            while b"\r\n\r\n" not in request and (piece := connection.recv(65536)):
                request += piece
            # All of it: a socket that is closed with something unread resets the answer on its way.
            head, _, body = request.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            while length and len(body) < int(length[1]) and (piece := connection.recv(65536)):
                body += piece
            said = answer(request)
            if said is None:
                held.append(connection)
                continue
            connection.sendall(said)
            connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        # A blocked accept is woken by shutdown, not by close.
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)
        for connection in held:
            connection.close()


def http(status: str, body: str, kind: str = "application/json", *more: str) -> bytes:
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Type: {kind}", "Connection: close", *more])
    return f"{head}\r\n\r\n{body}".encode()


def asked(url: str, within_ms: float | None = None, timeout_s: float = 10.0, **more: Any) -> ready_process.Verdict:
    return gate(shaped(parse(url), **more), within_ms, timeout_s)


def test_a_server_that_answers_twice_is_ready_and_both_first_tokens_are_told() -> None:
    with scripted(ttft_ms=30, itl_ms=1, cold_ms=300) as url:
        verdict = asked(url, within_ms=300)
    assert verdict.ready
    assert verdict.first is not None
    assert verdict.warm is not None
    # The script adds 300 ms to the first request and half of that to the next one.
    assert verdict.first.ttft_ms >= 330
    assert 30 <= verdict.warm.ttft_ms <= 300
    assert verdict.warm.streamed


def test_a_cold_server_is_asked_until_it_is_warm() -> None:
    with scripted(ttft_ms=20, itl_ms=1, cold_ms=1600) as url:
        # 1620, 820, 420, 220, 120 ms: the fifth is the first below the limit, whatever the machine does.
        verdict = asked(url, within_ms=200, timeout_s=60)
    assert verdict.ready
    assert verdict.asked >= 5
    assert verdict.warm is not None
    assert 20 <= verdict.warm.ttft_ms <= 200


def test_one_that_stays_slow_is_not_ready_and_says_by_how_much() -> None:
    with scripted(ttft_ms=150, itl_ms=1) as url:
        verdict = asked(url, within_ms=100, timeout_s=1.5)
    assert not verdict.ready
    assert "still takes 1" in verdict.reason
    assert "the limit is 100.0 ms" in verdict.reason


def test_the_first_completion_is_never_the_warm_one() -> None:
    with scripted(ttft_ms=1, itl_ms=1) as url:
        verdict = asked(url, within_ms=1000)
    assert verdict.asked == 2


class Hands:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float, /) -> None:
        self.now += seconds


def test_the_clock_that_waiting_goes_by_may_be_any() -> None:
    told: list[str] = []
    with closed_port() as url:
        verdict = gate(parse(url), None, 600.0, (), told.append, Hands())
    assert not verdict.ready
    assert 595 < verdict.seconds <= 600
    assert told == [verdict.reason]
    assert "connection refused" in verdict.reason


@contextmanager
def closed_port() -> Iterator[str]:
    """An address at which nobody listens, and nobody else can: it is bound and not listened on."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


MODELS = json.dumps({"data": [{"id": "m"}]})


def completing(answer: bytes) -> Callable[[bytes], bytes]:
    return lambda request: http("200 OK", MODELS) if request.startswith(b"GET") else answer


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (http("200 OK", "<html>hello", "text/html"), "with a web page (200)"),
        (http("200 OK", "  <!doctype html>", "text/plain"), "with a web page"),
        (http("307 Temporary Redirect", "", "text/plain", "Location: https://else/v1"),
         "to https://else/v1: give the"),
        (http("401 Unauthorized", "{}"), "wants a key: name its variable with --key-env (401)"),
        (http("422 Unprocessable", '{"error": "no such field"}'), 'answers 422: {"error": "no such field"}'),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not speak HTTP"),
    ],
)  # fmt: skip
def test_what_no_waiting_mends_is_said_at_once(answer: bytes, words: str) -> None:
    with raw(completing(answer)) as url:
        verdict = asked(url, timeout_s=60)
    assert words in verdict.reason
    assert not verdict.ready
    assert verdict.seconds < 30, "it did not wait for its time to end"
    assert verdict.asked == 1


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (http("503 Service Unavailable", "loading"), "answers 503: loading"),
        (http("429 Too Many Requests", ""), "answers 429"),
        (http("200 OK", "data: [DONE]\n\n", "text/event-stream"), "answers without a token"),
        (http("200 OK", 'data: {"error": {"message": "dead"}}\n\n', "text/event-stream"), "an error: dead"),
        (http("200 OK", "data: {oops\n\n", "text/event-stream"), "an event of its stream is not JSON"),
    ],
)  # fmt: skip
def test_what_may_pass_is_asked_again(answer: bytes, words: str) -> None:
    with raw(completing(answer)) as url:
        verdict = asked(url, timeout_s=0.6)
    assert words in verdict.reason
    assert not verdict.ready
    assert verdict.asked > 1


def test_a_server_that_hangs_costs_no_more_than_the_time_given() -> None:
    with raw(lambda request: http("200 OK", MODELS) if request.startswith(b"GET") else None) as url:
        began = time.monotonic()
        verdict = asked(url, timeout_s=0.7)
        assert time.monotonic() - began < 5
    assert not verdict.ready
    assert "did not answer within 0." in verdict.reason


def test_a_server_that_drips_is_cut_off_although_bytes_keep_coming() -> None:
    with scripted(ttft_ms=1, itl_ms=60, split_bytes=1, split_gap_ms=100) as url:
        began = time.monotonic()
        verdict = asked(url, timeout_s=1.5, model="m")
        assert time.monotonic() - began < 6
    assert not verdict.ready
    assert "did not end its answer within" in verdict.reason or "did not answer within" in verdict.reason


@pytest.mark.parametrize(
    "delta",
    [
        {"delta": {"content": "a"}},
        {"delta": {"reasoning_content": "a"}},
        {"delta": {"reasoning": "a"}},
        {"text": "a"},
        {"delta": {"tool_calls": [{"function": {"name": "f"}}]}},
    ],
)
def test_a_token_is_a_token_in_every_dialect(delta: dict[str, Any]) -> None:
    with raw(completing(http("200 OK", f"data: {json.dumps({'choices': [delta]})}\n\n", "text/event-stream"))) as url:
        assert asked(url).ready


def test_a_role_alone_is_no_token() -> None:
    event = json.dumps({"choices": [{"delta": {"role": "assistant", "content": ""}}]})
    with raw(completing(http("200 OK", f"data: {event}\n\n", "text/event-stream"))) as url:
        assert "without a token" in asked(url, timeout_s=0.5).reason


def test_an_answer_in_one_document_counts_and_is_marked() -> None:
    document = json.dumps({"choices": [{"message": {"content": "hello"}}]})
    with raw(completing(http("200 OK", document))) as url:
        verdict = asked(url)
    assert verdict.ready
    assert verdict.warm is not None
    assert not verdict.warm.streamed


def test_a_server_without_chat_is_asked_for_plain_completions() -> None:
    def answer(request: bytes) -> bytes:
        if request.startswith(b"GET"):
            return http("200 OK", MODELS)
        if CHAT.encode() in request:
            return http("400 Bad Request", '{"error": "the tokenizer has no chat template"}')
        return http("200 OK", 'data: {"choices": [{"text": "a"}]}\n\n', "text/event-stream")

    with raw(answer) as url:
        assert asked(url).ready


def test_the_key_is_sent_and_never_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("OUR_KEY", "sk-very-secret")
    seen: list[bytes] = []

    def answer(request: bytes) -> bytes:
        seen.append(request)
        return http("422 Unprocessable", '{"error": "Bearer sk-very-secret is odd"}')

    with raw(answer) as url:
        assert main(["ready", url, "--key-env", "OUR_KEY", "--timeout", "5s"]) == 1
    said = "".join(capsys.readouterr())
    assert b"Authorization: Bearer sk-very-secret" in seen[0]
    assert "Bearer *** is odd" in said
    assert "sk-very-secret" not in said


def test_two_prompts_never_begin_alike() -> None:
    bodies = [json.dumps(ready_process._body(shaped(parse("h:1"), model="m", path=COMPLETIONS))) for _ in range(50)]
    assert len(set(bodies)) == 50


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("http://h:8000/v1", "http://h:8000"),
        ("http://h:8000/", "http://h:8000"),
        ("h:8000", "http://h:8000"),
        ("https://h/llm/v1/", "https://h:443/llm"),
        ("http://[::1]:9", "http://[::1]:9"),
    ],
)
def test_an_address_is_read_as_people_write_it(url: str, base: str) -> None:
    assert parse(url).url == base


@pytest.mark.parametrize("url", ["ftp://h", "http://", "http://me:pw@h/v1", "http://h:notaport"])
def test_an_address_that_is_none_is_refused(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ready", url]) == 4
    assert "Traceback" not in capsys.readouterr().err


def test_the_limit_of_a_run_bounds_one_more_request_like_its_own(tmp_path: Path) -> None:
    run = Run.open(synthetic_run(tmp_path, {"a": Behaviour(ttft=100, jitter=0.05)}, blocks=5, requests=40))
    limit = of_run(run, "a")
    rows = run.requests
    ttfts = np.sort(rows[rows["measured"]]["ttft_ms"].to_numpy(dtype=float))
    assert len(ttfts) == 200
    # ⌈0.99 · 201⌉ = 199: the second largest of two hundred.
    assert limit.within_ms == pytest.approx(ttfts[198] + CLIENT_MS)
    assert limit.path == COMPLETIONS


def test_of_few_requests_the_largest_bounds_the_next_and_its_level_is_said() -> None:
    bound, level = prediction_bound(np.array([3.0, 1.0, 2.0]))
    assert (bound, level) == (3.0, 0.75)


def test_the_bound_holds_as_often_as_it_says() -> None:
    draw = np.random.default_rng(5)
    held = [draw.lognormal() <= prediction_bound(draw.lognormal(size=150))[0] for _ in range(4000)]
    # ⌈0.99 · 151⌉ / 151 = 0.9934; four standard errors of 4000 trials are 0.005.
    assert abs(np.mean(held) - 150 / 151) < 0.006


def test_a_run_that_measured_nothing_sets_no_limit(tmp_path: Path) -> None:
    failed = dict.fromkeys(range(3), ("failed", "port", "taken"))
    run = Run.open(synthetic_run(tmp_path, {"a": Behaviour(status=failed)}))
    with pytest.raises(RecordError, match="no measured first token of a"):
        of_run(run, "a")
    with pytest.raises(UnknownName, match="'b'"):
        of_run(run, "b")


def test_the_command_takes_its_limit_from_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = synthetic_run(tmp_path, {"a": Behaviour(ttft=5000)}, blocks=3, requests=40)
    with scripted(ttft_ms=20, itl_ms=1) as url:
        assert main(["ready", url, "--run", str(run), "--variant", "a", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["ready"]
        assert found["within_ms"] == pytest.approx(5000 + CLIENT_MS, rel=0.01)
        assert main(["ready", url, "--within", "10ms", "--timeout", "1s"]) == 1
        assert "the limit is 10.0 ms" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--within", "soon"], "--within soon: write a duration such as 200ms"),
        (["--within", "0"], "--within 0: write a duration"),
        (["--key-env", "NOT_SET_HERE"], "--key-env names NOT_SET_HERE, which is not set"),
        (["--variant", "a"], "--variant belongs to --run"),
        (["--within", "1s", "--run", "x"], "both set the limit"),
        (["--run", "nowhere"], "nowhere does not exist"),
    ],
)
def test_wrong_words_are_refused(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ready", "http://127.0.0.1:9", *arguments]) == 4
    assert words in capsys.readouterr().err


def test_the_gate_runs_as_one_file_without_this_project(tmp_path: Path) -> None:
    copy = tmp_path / "ready.py"
    copy.write_text(Path(ready_process.__file__).read_text())
    with scripted(ttft_ms=5, itl_ms=1) as url:
        # -I and -S: neither this folder, nor site-packages, nor any variable.
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(copy), url, "--within-ms", "2000"], capture_output=True, text=True
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("ready ")


def test_a_limit_decides_how_the_server_is_asked() -> None:
    seen: list[bytes] = []

    def answer(request: bytes) -> bytes:
        seen.append(request)
        return http("200 OK", MODELS if request.startswith(b"GET") else '{"choices": [{"text": "a"}]}')

    with raw(answer) as url:
        assert check(parse(url), WarmLimit(1000, "said", COMPLETIONS, 40), 10).ready
    asked_for = [request for request in seen if request.startswith(b"POST")]
    assert all(request.startswith(f"POST {COMPLETIONS} ".encode()) for request in asked_for)


def test_a_name_that_is_not_given_and_not_told_is_asked_for() -> None:
    with raw(lambda _: http("200 OK", "{}")) as url:
        assert "names no model: {}: name one with --model" in asked(url).reason


def test_a_warm_up_s_calls_are_made_in_their_place_and_once() -> None:
    heard: list[str] = []

    def answer(request: bytes) -> bytes:
        heard.append(" ".join(request.split(b" ", 2)[n].decode() for n in (0, 1)))
        event = b'data: {"choices": [{"text": "a"}]}\n\ndata: [DONE]\n\n'
        return b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n" + event

    with raw(answer) as url:
        target = shaped(parse(url), model="m", path=COMPLETIONS)
        verdict = gate(target, 10_000, 30, [(8, 4), "/sleep?level=1", "/wake_up"])
    assert verdict.ready, verdict.reason
    asked = f"POST {COMPLETIONS}"
    assert heard == [asked, asked, "POST /sleep?level=1", "POST /wake_up", asked]


def test_a_call_that_the_server_does_not_know_is_said_at_once() -> None:
    def answer(request: bytes) -> bytes:
        if request.startswith(b"POST /sleep"):
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        event = b'data: {"choices": [{"text": "a"}]}\n\n'
        return b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n" + event

    with raw(answer) as url:
        began = time.monotonic()
        verdict = gate(shaped(parse(url), model="m", path=COMPLETIONS), None, 60, ["/sleep?level=1"])
    assert not verdict.ready
    assert "POST /sleep?level=1 answers 404: a warm-up calls it" in verdict.reason
    assert time.monotonic() - began < 30, "waiting would not mend it"


def test_nothing_is_asked_before_the_mark_is_there(tmp_path: Path) -> None:
    mark = tmp_path / "ready"
    with scripted(ttft_ms=5) as url:
        words = [sys.executable, ready_process.__file__, url, "--after", str(mark), "--timeout", "30"]
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 1
        assert "it is still being warmed" in done.stdout
        mark.touch()
        assert subprocess.run(words, capture_output=True, text=True).returncode == 0
