"""What a response said: HTTP status, streamed events and their meaning, each with the read that completed it.

Runs after driving. Whatever bytes a server sends, the result is an Answer, never an exception.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httptools

from bench.loadgen.sse import Event, Events

_EXCERPT = 300
_DECODER = json.JSONDecoder()
# Keys under which servers count and time.
_COUNTS = frozenset({"usage", "metrics", "timings"})


class Chunk(NamedTuple):
    """One streamed event: what it carried, and the number of the read that completed it."""

    kind: str
    read: int
    tokens: int | None = None


@dataclass(slots=True)
class Answer:
    """A response, read. The four `*_read` marks are read numbers, None where that never came."""

    status: int | None = None
    chunks: list[Chunk] = field(default_factory=list)
    first_chunk_read: int | None = None
    first_token_read: int | None = None
    first_answer_read: int | None = None
    last_token_read: int | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    server_ttft_ms: float | None = None
    server_tpot_ms: float | None = None
    finish_reason: str | None = None
    done: bool = False
    # What the server itself called an error, and what was wrong with the form of its answer.
    server_error: str | None = None
    malformed: str | None = None
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    prompt_logprobs: Any = None
    prompt_distributions: Any = None
    _text: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The answer without its reasoning."""
        return "".join(self._text)

    @property
    def token_events(self) -> int:
        """Events that carried content or reasoning."""
        return sum(chunk.kind in ("content", "reasoning") for chunk in self.chunks)


def answer(reads: list[bytes]) -> Answer:
    """Read a response from its raw reads."""
    result = Answer()
    body = _Body()
    parser = httptools.HttpResponseParser(body)
    body.parser = parser
    events = Events()
    whole: list[bytes] = []
    for number, data in enumerate(reads):
        try:
            parser.feed_data(data)
        except httptools.HttpParserError as error:
            result.malformed = f"the response is not valid HTTP/1.1: {error}"
        result.status = body.status
        if (piece := body.take()) and body.streamed:
            for event in events.feed(piece):
                _interpret(result, event, number)
        elif piece:
            whole.append(piece)
        if result.malformed and result.status is None:
            return result
    last = len(reads) - 1
    for event in events.end():
        _interpret(result, event, last)
    if whole:
        _document(result, b"".join(whole), last)
    return result


class _Body:
    """httptools' view of a response: the status, and the body's bytes with the framing taken off."""

    def __init__(self) -> None:
        self.parser: Any = None
        self.status: int | None = None
        self.streamed = True
        self._pieces: list[bytes] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"content-type":
            self.streamed = b"json" not in value.lower()

    def on_headers_complete(self) -> None:
        self.status = self.parser.get_status_code()
        # An error's body is a document, whatever its type says.
        self.streamed = self.streamed and self.status < 300

    def on_body(self, data: bytes) -> None:
        self._pieces.append(data)

    def take(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _document(result: Answer, body: bytes, read: int) -> None:
    """A body that is one JSON document: an answer that was not streamed, or an error."""
    if result.status is not None and result.status >= 300:
        result.server_error = _said(body)
    else:
        _interpret(result, Event(body), read)
        result.done = True


def _interpret(result: Answer, event: Event, read: int) -> None:
    if event.malformed is not None:
        _blame(result, f"event {len(result.chunks)} has a line that is not server-sent-event syntax", event.malformed)
    if event.data is None:
        result.chunks.append(Chunk("other" if event.malformed is not None or event.name else "comment", read))
        return
    if event.data.strip() == b"[DONE]":
        result.done = True
        result.chunks.append(Chunk("done", read))
        return
    try:
        text = event.data.decode()
    except UnicodeDecodeError as error:
        _blame(result, f"event {len(result.chunks)} is not valid UTF-8 ({error.reason})", event.data)
        text = event.data.decode("utf-8", "replace")
    try:
        content, end = _DECODER.raw_decode(text := text.strip())
        if end != len(text):
            raise ValueError
    except (ValueError, RecursionError):
        if event.name == "error":
            result.server_error = result.server_error or _said(event.data)
        else:
            _blame(result, f"event {len(result.chunks)} is not JSON", event.data)
        result.chunks.append(Chunk("error", read))
        return
    if not isinstance(content, dict):
        _blame(result, f"event {len(result.chunks)} is JSON, but not an object", event.data)
        result.chunks.append(Chunk("error", read))
        return
    if event.name == "error" or content.get("error") or content.get("object") == "error":
        result.server_error = result.server_error or _said(event.data)
        result.chunks.append(Chunk("error", read))
        return
    _chunk(result, content, read)


def _chunk(result: Answer, content: dict[str, Any], read: int) -> None:
    before = result.completion_tokens
    _usage(result, content)
    choices = content.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(choice, dict):
        result.chunks.append(Chunk("usage" if content.get("usage") else "other", read))
        return
    if result.first_chunk_read is None:
        result.first_chunk_read = read
    if isinstance(reason := choice.get("finish_reason"), str):
        result.finish_reason = reason
    kind = _kind(result, choice)
    if kind in ("content", "reasoning"):
        if result.first_token_read is None:
            result.first_token_read = read
            # FastDeploy: seconds since it began to work on the request.
            if result.server_ttft_ms is None and (arrival := _number(choice.get("arrival_time"))) is not None:
                result.server_ttft_ms = arrival * 1e3
        if kind == "content" and result.first_answer_read is None:
            result.first_answer_read = read
        result.last_token_read = read
    logprobs = choice.get("logprobs")
    if logprobs and isinstance(logprobs, dict):
        result.logprobs.append(logprobs)
    result.prompt_logprobs = choice.get("prompt_logprobs") or result.prompt_logprobs
    result.prompt_distributions = choice.get("prompt_distributions") or result.prompt_distributions
    result.chunks.append(Chunk(kind, read, _tokens(result.completion_tokens, before, choice, logprobs)))


def _kind(result: Answer, choice: dict[str, Any]) -> str:
    """What a choice carries; answer text is kept on the way."""
    delta = choice.get("delta") or choice.get("message") or choice
    if not isinstance(delta, dict):
        return "other"
    text = delta.get("text") if delta is choice else delta.get("content")
    if isinstance(text, str) and text:
        result._text.append(text)
        return "content"
    if any(isinstance(value := delta.get(key), str) and value for key in ("reasoning", "reasoning_content")):
        return "reasoning"
    if delta.get("tool_calls") or delta.get("function_call"):
        return "other"
    if choice.get("finish_reason"):
        return "finish"
    return "role" if "role" in delta or text == "" else "other"


def _usage(result: Answer, content: dict[str, Any]) -> None:
    if content.keys().isdisjoint(_COUNTS):
        return
    usage = content.get("usage")
    if isinstance(usage, dict):
        result.prompt_tokens = _count(usage.get("prompt_tokens"), result.prompt_tokens)
        result.completion_tokens = _count(usage.get("completion_tokens"), result.completion_tokens)
        details = usage.get("prompt_tokens_details")
        if isinstance(details, dict):
            result.cached_tokens = _count(details.get("cached_tokens"), result.cached_tokens)
    # vLLM with per-request metrics, and llama.cpp, which counts from the start of the prompt's processing.
    for key, name in (("metrics", "time_to_first_token_ms"), ("timings", "prompt_ms")):
        given = content.get(key)
        if isinstance(given, dict) and (value := _number(given.get(name))) is not None:
            result.server_ttft_ms = value
    timings = content.get("timings")
    if isinstance(timings, dict):
        result.server_tpot_ms = _tpot(timings) or result.server_tpot_ms
        result.cached_tokens = _count(timings.get("cache_n"), result.cached_tokens)


def _tpot(timings: dict[str, Any]) -> float | None:
    """llama.cpp's time of generation over the tokens after the first, which it counts to the prompt's processing."""
    count, spent = _count(timings.get("predicted_n"), None), _number(timings.get("predicted_ms"))
    return spent / (count - 1) if count is not None and count > 1 and spent is not None else None


def _tokens(total: int | None, before: int | None, choice: dict[str, Any], logprobs: Any) -> int | None:
    """Tokens in this event, from usage that is counted along, token ids or log-probabilities."""
    if total is not None and total > (before or 0):
        return total - (before or 0)
    if isinstance(ids := choice.get("token_ids"), list):
        return len(ids)
    if isinstance(logprobs, dict):
        for key in ("content", "tokens"):
            if isinstance(each := logprobs.get(key), list):
                return len(each)
    return None


def _count(value: Any, otherwise: int | None) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62 else otherwise


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and abs(value) < 1e15 else None


def _blame(result: Answer, sentence: str, evidence: bytes) -> None:
    if result.malformed is None:
        shown = evidence[:60].decode("utf-8", "backslashreplace")
        result.malformed = f"{sentence}: {shown!r}{' …' if len(evidence) > 60 else ''}"


def _said(body: bytes) -> str:
    """The server's own words about its error, as far as they can be found."""
    text = body.decode("utf-8", "replace").strip()
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return text[:_EXCERPT]
    for key in ("error", "message", "detail"):
        if isinstance(content, dict) and content.get(key):
            content = content[key]
    return (content if isinstance(content, str) else json.dumps(content, ensure_ascii=False))[:_EXCERPT]
