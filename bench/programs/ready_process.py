"""Is a server ready? Its first token has come once, and once more within a limit: a gate for any OpenAI-compatible one.

Standard library only, one file: deployed folders and container images carry a copy of it, where nothing of bench is.
A server that answers its health check may still have to compile for minutes; one that has answered twice has not.

    python3 ready.py http://127.0.0.1:8000 --within-ms 200 --timeout 600
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import os
import random
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, Union
from urllib.parse import urlsplit

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
READY, NOT_READY, USAGE = 0, 1, 4
# A pause between two attempts, growing: a server that loads for minutes is not asked ten times a second.
PAUSE_S, PAUSE_MAX_S, PAUSE_GROWTH = 0.1, 2.0, 1.5
NOTHING = "nothing was asked"
# Never read more of one answer than this: a page without an end is no completion.
LONGEST = 1 << 22
# Where a token may stand in a piece of an answer.
_PLACES = ("content", "reasoning_content", "reasoning", "text")
_WORDS = ("water", "stone", "light", "green", "house", "river", "paper", "music", "winter", "garden", "silver", "table")


# One step of a warm-up: words and output tokens of a request, or a path to POST to.
Round = Union[tuple[int, int], str]  # noqa: UP007 (also for a Python that has no | of types)


class NotReady(Exception):
    """Why a server is not ready. `passes` says whether waiting may help."""

    def __init__(self, message: str, passes: bool = True) -> None:
        super().__init__(message)
        self.passes = passes


class OutOfTime(NotReady):
    """The gate's own time was over: what it had heard before says more about the server, if it had heard anything."""


@dataclass(frozen=True)
class Target:
    """Whom to ask, and how. `prefix` is the path before /v1; `path` is CHAT or COMPLETIONS, or None to find out."""

    host: str
    port: int
    tls: bool = False
    prefix: str = ""
    model: str | None = None
    path: str | None = None
    key: str | None = field(default=None, repr=False)
    # Words of the prompt, each about a token.
    words: int = 12
    output_tokens: int = 4

    @property
    def url(self) -> str:
        """Its base address."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{self.prefix}"


@dataclass(frozen=True)
class Answer:
    """One completion, ms from the last moment before the request was sent."""

    ttft_ms: float
    total_ms: float
    streamed: bool


@dataclass(frozen=True)
class Verdict:
    """What the gate says. `first` is the first completion, `warm` the last one after it; None where there was none."""

    ready: bool
    reason: str
    seconds: float
    first: Answer | None = None
    warm: Answer | None = None
    within_ms: float | None = None
    asked: int = 0


class Clock(Protocol):
    """What waiting goes by: the module `time`, or a test's own."""

    def monotonic(self) -> float:
        """Seconds."""

    def sleep(self, seconds: float, /) -> None:
        """Wait so long."""


def parse(url: str) -> Target:
    """Host, port, TLS and prefix of a base URL, with or without /v1 at its end; ValueError says what is wrong."""
    parts = urlsplit(url if "//" in url else f"http://{url}")
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is not http://host[:port] or https://host[:port]")
    if parts.username or parts.password:
        raise ValueError("the address holds a password: put the key into an environment variable and name that")
    tls = parts.scheme == "https"
    path = parts.path.rstrip("/")
    return Target(
        host=parts.hostname,
        port=parts.port or (443 if tls else 80),
        tls=tls,
        prefix=path.removesuffix("/v1"),
    )


def gate(
    target: Target,
    within_ms: float | None,
    timeout_s: float,
    rounds: Sequence[Round] = (),
    told: Callable[[str], None] = lambda _: None,
    clock: Clock = time,
) -> Verdict:
    """Ask until a completion after the first begins within the limit, or until the time is over or can't help.

    Without a limit any second completion will do. `rounds` are what is asked after the first completion, in order:
    requests of so many words and output tokens, or paths to POST to. `told` hears why it is still waiting, each reason
    once.
    """
    before = list(rounds)
    began = clock.monotonic()
    first: Answer | None = None
    warm: Answer | None = None
    asked, pause, reason = 0, PAUSE_S, NOTHING

    def verdict(ready: bool) -> Verdict:
        return Verdict(ready, reason, clock.monotonic() - began, first, warm, within_ms, asked)

    while True:
        left = timeout_s - (clock.monotonic() - began)
        passes, heard = True, reason
        try:
            target = discovered(target, left)
            asked += 1
            while first and before:
                _carry_out(target, before[0], timeout_s - (clock.monotonic() - began))
                del before[0]
            answer = ask(target, timeout_s - (clock.monotonic() - began))
        except OutOfTime as error:
            reason = heard if heard != NOTHING else str(error)
            return verdict(False)
        except NotReady as error:
            passes, reason = error.passes, str(error)
        else:
            if first is None:
                first, reason = answer, "it has answered once, and not again"
                continue
            warm = answer
            if within_ms is None or answer.ttft_ms <= within_ms:
                reason = "its first token is warm"
                return verdict(True)
            reason = f"its first token still takes {answer.ttft_ms:.1f} ms; the limit is {within_ms:.1f} ms"
        if not passes or clock.monotonic() - began + pause >= timeout_s:
            return verdict(False)
        if reason != heard:
            told(reason)
        clock.sleep(pause)
        pause = min(pause * PAUSE_GROWTH, PAUSE_MAX_S)


def _carry_out(target: Target, step: Round, left_s: float) -> None:
    """One step of a warm-up: a request, or a call that must answer 200."""
    if isinstance(step, str):
        with _exchange(target, left_s) as connection:
            connection.request("POST", target.prefix + step, b"", _headers(target))
            answer = connection.getresponse()
            try:
                _refused(target, answer, f"POST {step}")
            except _NoChat as error:
                raise NotReady(f"{error}: a warm-up calls it", False) from None
            _rest(answer)
    else:
        ask(shaped(target, words=step[0], output_tokens=step[1]), left_s)


def discovered(target: Target, left_s: float) -> Target:
    """The target with a model: the first that /v1/models names, where none is given. NotReady if none is named."""
    if target.model is not None:
        return target
    path = f"{target.prefix}/v1/models"
    with _exchange(target, left_s) as connection:
        connection.request("GET", path, headers=_headers(target))
        answer = connection.getresponse()
        _refused(target, answer, path)
        text = _rest(answer)
    try:
        name = json.loads(text)["data"][0]["id"]
    except (ValueError, LookupError, TypeError):
        raise NotReady(f"GET {path} names no model{_shown(target, text)}: name one with --model", False) from None
    return shaped(target, model=str(name))


def ask(target: Target, left_s: float) -> Answer:
    """One short completion, streamed; NotReady if it fails or is not over in time."""
    if target.path is not None:
        return _completion(target, left_s)
    began = time.monotonic()
    try:
        return _completion(shaped(target, path=CHAT), left_s)
    except _NoChat as error:
        try:
            return _completion(shaped(target, path=COMPLETIONS), left_s - (time.monotonic() - began))
        except _NoChat:
            raise NotReady(str(error), error.passes) from None


class _NoChat(NotReady):
    """It does not know that path, or has no chat template."""


def _completion(target: Target, left_s: float) -> Answer:
    assert target.path is not None
    path = target.prefix + target.path
    body = json.dumps(_body(target)).encode()
    with _exchange(target, left_s) as connection:
        connection.connect()
        sent = time.monotonic()
        connection.request("POST", path, body, {**_headers(target), "Content-Type": "application/json"})
        answer = connection.getresponse()
        _refused(target, answer, path)
        first: float | None = None
        streamed = True
        seen = b""
        for piece, streamed in _pieces(answer):  # noqa: B007 (its last value is used)
            seen = (seen + json.dumps(piece).encode())[:200]
            if piece.get("error"):
                raise NotReady(f"POST {path} answers an error{_shown(target, _words(piece['error']))}")
            if first is None and _token(piece):
                first = time.monotonic()
        if first is None:
            raise NotReady(f"POST {path} answers without a token{_shown(target, seen)}")
        return Answer((first - sent) * 1e3, (time.monotonic() - sent) * 1e3, streamed)


def _body(target: Target) -> dict[str, Any]:
    # Another beginning every time: a prefix cache that answers for the engine would call a cold one warm.
    number = random.SystemRandom().randrange(10**9)
    draw = random.Random(number)
    prompt = " ".join([str(number), *(draw.choice(_WORDS) for _ in range(max(target.words - 4, 1)))])
    common = {"model": target.model, "max_tokens": target.output_tokens, "temperature": 0, "stream": True}
    if target.path == CHAT:
        return {**common, "messages": [{"role": "user", "content": prompt}]}
    return {**common, "prompt": prompt}


@contextlib.contextmanager
def _exchange(target: Target, left_s: float) -> Iterator[http.client.HTTPConnection]:
    """A connection that is cut off when its time is over, however slowly the server drips; failures as NotReady."""
    if left_s <= 0:
        raise OutOfTime("no time was left for an answer")
    connection: http.client.HTTPConnection
    if target.tls:
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection(target.host, target.port, timeout=left_s, context=context)
    else:
        connection = http.client.HTTPConnection(target.host, target.port, timeout=left_s)
    over = threading.Event()

    def cut() -> None:
        over.set()
        if (sock := connection.sock) is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    watch = threading.Timer(left_s, cut)
    watch.daemon = True
    watch.start()
    where = f"{target.host}:{target.port}"
    try:
        yield connection
        if over.is_set():
            raise OutOfTime(f"{where} did not end its answer within {left_s:.1f} s")
    except NotReady as error:
        # An answer that was cut off here looks like an empty one.
        if over.is_set():
            raise OutOfTime(f"{where} did not end its answer within {left_s:.1f} s") from None
        raise error
    except (OSError, http.client.HTTPException, ValueError) as error:
        if over.is_set() or isinstance(error, TimeoutError):
            raise OutOfTime(f"{where} did not answer within {left_s:.1f} s") from None
        raise _explained(where, error) from None
    finally:
        watch.cancel()
        connection.close()


def _explained(where: str, error: Exception) -> NotReady:
    if isinstance(error, ConnectionRefusedError):
        return NotReady(f"nothing listens on {where} (connection refused)")
    if isinstance(error, socket.gaierror):
        return NotReady(f"{where} cannot be found ({error.strerror})")
    if isinstance(error, ssl.SSLCertVerificationError):
        return NotReady(f"{where} shows a certificate that is not trusted ({error.verify_message})", False)
    if isinstance(error, ssl.SSLError):
        return NotReady(f"{where} does not speak TLS: is it http://?", False)
    if isinstance(error, http.client.RemoteDisconnected):
        return NotReady(f"{where} closed the connection without an answer")
    if isinstance(error, http.client.BadStatusLine):
        return NotReady(f"{where} does not speak HTTP (or speaks TLS: is it https://?)", False)
    return NotReady(f"talking to {where} failed ({error or type(error).__name__})")


def _refused(target: Target, answer: http.client.HTTPResponse, path: str) -> None:
    """Raise what a status or a web page means; return where the answer may be read."""
    status, kind = answer.status, (answer.getheader("Content-Type") or "").lower()
    if 300 <= status < 400:
        to = answer.getheader("Location") or "nowhere"
        raise NotReady(f"{target.url} redirects {path} to {_clean(target, to)}: give the address it really has", False)
    if status in (401, 403):
        why = "refuses the key" if target.key else "wants a key: name its variable with --key-env"
        raise NotReady(f"{target.url} {why} ({status})", False)
    if "html" in kind:
        raise NotReady(f"{target.url} answers {path} with a web page ({status}), not as an API", status >= 500)
    if status == http.HTTPStatus.OK:
        return
    text = _rest(answer)
    message = f"{path} answers {status}{_shown(target, text)}"
    if status in (404, 405) or (status == 400 and b"chat template" in text.lower()):
        raise _NoChat(message, passes=status == 404)
    # What a client did wrong stays wrong; "too early" and "too many" don't.
    raise NotReady(message, passes=status >= 500 or status in (408, 425, 429))


def _pieces(answer: http.client.HTTPResponse) -> Iterator[tuple[Mapping[str, Any], bool]]:
    """The documents of an answer: of each event of a stream (true), or the one that it is (false)."""
    buffer, size, begun = b"", 0, False
    while piece := answer.read1(1 << 16):
        size += len(piece)
        if size > LONGEST:
            raise NotReady(f"its answer is longer than {LONGEST >> 20} MiB", False)
        buffer += piece
        if not begun:
            head = buffer.lstrip(b"\xef\xbb\xbf \t\r\n")[:1]
            if head in (b"{", b"["):
                document = json.loads(buffer + _rest(answer))
                yield document if isinstance(document, dict) else {}, False
                return
            if head == b"<":
                raise NotReady("it answers with a web page, not as an API", False)
            begun = bool(head)
        *lines, buffer = buffer.split(b"\n")
        for line in lines:
            yield from _event(line)
    yield from _event(buffer)


def _event(line: bytes) -> Iterator[tuple[Mapping[str, Any], bool]]:
    if not line.startswith(b"data:"):
        return
    data = line[len(b"data:") :].strip()
    if not data or data == b"[DONE]":
        return
    try:
        document = json.loads(data)
    except ValueError:
        raise NotReady("an event of its stream is not JSON") from None
    if isinstance(document, dict):
        yield document, True


def _token(piece: Mapping[str, Any]) -> bool:
    for choice in piece.get("choices") or ():
        places = [choice, choice.get("delta") or {}, choice.get("message") or {}]
        if any(place.get(name) for place in places for name in _PLACES) or any(
            place.get("tool_calls") for place in places
        ):
            return True
    return False


def _rest(answer: http.client.HTTPResponse) -> bytes:
    return answer.read(LONGEST)


def _headers(target: Target) -> dict[str, str]:
    return {"Accept-Encoding": "identity", **({"Authorization": f"Bearer {target.key}"} if target.key else {})}


def shaped(target: Target, **changed: Any) -> Target:
    """The target with some of its fields replaced."""
    return Target(**{**{name: getattr(target, name) for name in target.__dataclass_fields__}, **changed})


def _words(error: Any) -> bytes:
    found = error.get("message", error) if isinstance(error, dict) else error
    return str(found).encode()


def _shown(target: Target, text: bytes) -> str:
    """The beginning of what it said, on one line and without the key."""
    said = " ".join(text.decode("utf-8", "replace").split())[:160]
    return f": {_clean(target, said)}" if said else ""


def _clean(target: Target, text: str) -> str:
    printable = "".join(character if character.isprintable() else " " for character in text)
    return printable.replace(target.key, "***") if target.key else printable


def described(verdict: Verdict, url: str) -> str:
    """Two lines for people: the verdict, and both completions."""
    limit = "no limit given" if verdict.within_ms is None else f"limit {verdict.within_ms:.1f} ms"
    first, warm = (f"{one.ttft_ms:.1f} ms" if one else "none" for one in (verdict.first, verdict.warm))
    word = "ready    " if verdict.ready else "not ready"
    return (
        f"{word}  {url}  after {verdict.seconds:.1f} s: {verdict.reason}\n"
        f"           first token {first} at first, {warm} warm ({limit})"
    )


def _rounds(text: str) -> list[Round]:
    if text.startswith("/"):
        return [text]
    words, tokens, number = (int(part) for part in text.split(":"))
    return [(words, tokens)] * number


def main() -> int:
    """The gate as a command; 0 ready, 1 not ready, 4 wrongly called."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("url")
    parser.add_argument("--within-ms", type=float, help="limit on the warm first token")
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds to wait for it in all")
    parser.add_argument("--model", help="name to ask for; the first of /v1/models by default")
    parser.add_argument("--path", choices=(CHAT, COMPLETIONS), help="which endpoint; found out by default")
    parser.add_argument("--words", type=int, default=12, help="length of the prompt, about a token each")
    parser.add_argument(
        "--warm-up",
        nargs="*",
        default=[],
        metavar="WORDS:TOKENS:N|/PATH",
        help="after the first request, in order: N requests of a shape, or a POST to a path",
    )
    parser.add_argument("--after", metavar="FILE", help="not ready before that file is there: nothing is asked")
    parser.add_argument("--key-env", help="environment variable that holds the API key")
    chosen = parser.parse_args()
    try:
        target = parse(chosen.url)
        rounds = [shape for text in chosen.warm_up for shape in _rounds(text)]
    except ValueError as error:
        print(f"ready: {error}", file=sys.stderr)
        return USAGE
    key = os.environ.get(chosen.key_env, "").strip() if chosen.key_env else None
    if key == "":
        print(f"ready: {chosen.key_env} is not set", file=sys.stderr)
        return USAGE
    if chosen.after and not os.path.exists(chosen.after):  # noqa: PTH110 (pathlib is not loaded for this)
        print(f"not ready  {target.url}: it is still being warmed ({chosen.after} is not there)", flush=True)
        return NOT_READY
    target = shaped(target, model=chosen.model, path=chosen.path, words=chosen.words, key=key)
    verdict = gate(target, chosen.within_ms, chosen.timeout, rounds)
    print(described(verdict, target.url), flush=True)
    return READY if verdict.ready else NOT_READY


if __name__ == "__main__":
    sys.exit(main())
