"""What a response said: HTTP status, streamed events and their meaning, each with the read that completed it.

Runs after driving. Whatever bytes a server sends, the result is an Answer, never an exception.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httptools

from bench.loadgen import choice as choices
from bench.loadgen.body import Body, Event, Events, is_document
from bench.loadgen.counts import KEYS, Counts, number
from bench.loadgen.sentence import said, shown

_DECODER = json.JSONDecoder()
_WORTH = {kind: place for place, kind in enumerate(choices.KINDS)}
_RARE = frozenset({"error", "usage", "prompt_logprobs", "prompt_distributions"})
# Where log-probabilities list tokens: the chat form, and that of completions.
_LISTED = ("content", "tokens")


class Chunk(NamedTuple):
    """One streamed event: what it carried, and the number of the read that completed it."""

    kind: str
    read: int
    tokens: int | None = None


@dataclass(slots=True)
class Answer:
    """A response, read. The `*_read` marks are read numbers, None where that never came."""

    status: int | None = None
    chunks: list[Chunk] = field(default_factory=list)
    first_chunk_read: int | None = None
    first_token_read: int | None = None
    first_answer_read: int | None = None
    first_argument_read: int | None = None
    last_token_read: int | None = None
    counts: Counts = field(default_factory=Counts)
    finish_reason: str | None = None
    done: bool = False
    # What the server itself called an error, and what was wrong with the form of its answer.
    server_error: str | None = None
    malformed: str | None = None
    # The first event that was understood and meant nothing: where no token came, it may say why.
    aside: str | None = None
    logprobs: list[dict[str, Any]] = field(default_factory=list)
    prompt_logprobs: Any = None
    prompt_distributions: Any = None
    _text: list[str] = field(default_factory=list)
    _index: Any = None
    # The choice that gave the finish reason, and whether an event called `error` came without its data.
    _ended: Any = None
    _announced: bool = False
    # Of the first output event: the tokens that the server had counted by then, those that it lists, its characters.
    _counted: int | None = None
    _listed: int | None = None
    _first_length: int = 0
    _length: int = 0
    _carried: int = 0

    @property
    def text(self) -> str:
        """The answer without its reasoning; where several were asked for, the first."""
        return "".join(self._text)

    @property
    def token_events(self) -> int:
        """Events that carried content, reasoning or a piece of a tool call."""
        return sum(chunk.kind in choices.OUTPUT for chunk in self.chunks)

    @property
    def prompt_tokens(self) -> int | None:
        """As the server counted."""
        return self.counts.prompt

    @property
    def completion_tokens(self) -> int | None:
        """As the server counted."""
        return self.counts.completion

    @property
    def cached_tokens(self) -> int | None:
        """Prompt tokens out of a prefix cache, as the server counted."""
        return self.counts.cached

    @property
    def server_ttft_ms(self) -> float | None:
        """The server's own figure."""
        return self.counts.server_ttft_ms

    @property
    def hidden_tokens(self) -> int:
        """Tokens of reasoning that were counted and never sent: they were made before the first output."""
        n, hidden = self.counts.completion, self.counts.reasoning
        if not n or not hidden or any(chunk.kind == "reasoning" for chunk in self.chunks):
            return 0
        # A server that counts its reasoning and streams it as content hides nothing.
        return hidden if hidden < n and self.token_events <= n - hidden else 0

    @property
    def first_tokens(self) -> int | None:
        """Tokens made by the time of the first output event, that event's own included; None where unknown."""
        if self._counted is not None:
            return self._counted
        hidden = self.hidden_tokens
        if self._listed is not None:
            return hidden + self._listed
        visible = (self.counts.completion or 0) - hidden
        return hidden + 1 if hidden and self.token_events >= 0.8 * visible else None

    @property
    def first_share(self) -> float | None:
        """The same as a share of all tokens, by the characters that the first output event brought."""
        if not self._length:
            return None
        n, hidden = self.counts.completion, self.hidden_tokens
        by_text = self._first_length / self._length
        return (hidden + by_text * (n - hidden)) / n if n else by_text


def answer(reads: list[bytes]) -> Answer:
    """Read a response from its raw reads."""
    result = Answer()
    body = Body()
    parser = httptools.HttpResponseParser(body)
    body.parser = parser
    events = Events()
    whole: list[bytes] = []
    for number_, data in enumerate(reads):
        try:
            parser.feed_data(data)
        except httptools.HttpParserError as error:
            result.malformed = f"the response is not valid HTTP/1.1: {error}"
        result.status = body.status
        if piece := body.take():
            if body.document is None:
                body.document = is_document(body.status, piece)
            if body.document:
                whole.append(piece)
            else:
                for event in events.feed(piece):
                    _interpret(result, event, number_)
        if result.malformed and result.status is None:
            return result
    last = len(reads) - 1
    if whole and not _document(result, b"".join(whole), last):
        for event in events.feed(b"".join(whole)):
            _interpret(result, event, last)
    for event in events.end():
        _interpret(result, event, last)
    if body.refused and result.malformed is None:
        result.malformed = body.refused
    result.counts.settle(result.token_events, result._carried)
    return result


def _document(result: Answer, body: bytes, read: int) -> bool:
    """A body that is one JSON document: an answer that was not streamed, or an error. False if it is neither."""
    if result.status is not None and result.status >= 300:
        result.server_error = said(body)
        return True
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return False
    if isinstance(content, dict) and "choices" not in content:
        result.server_error = said(body)
    else:
        _interpret(result, Event(body), read)
    result.done = True
    return True


def _interpret(result: Answer, event: Event, read: int) -> None:
    if event.malformed is not None:
        _unframed(result, event.malformed)
    announced, result._announced = result._announced, False
    if event.data is None or not (data := event.data.strip()):
        # A blank line between the event's name and its data makes two events of it.
        result._announced = event.name == "error"
        result.chunks.append(Chunk("other" if event.malformed is not None or event.name else "comment", read))
        return
    if data == b"[DONE]":
        result.done = True
        result.chunks.append(Chunk("done", read))
        return
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        _blame(result, f"event {len(result.chunks)} is not valid UTF-8 ({error.reason})", event.data)
        text = data.decode("utf-8", "replace")
    try:
        content, end = _DECODER.raw_decode(text)
        if end != len(text):
            raise ValueError
    except (ValueError, RecursionError):
        if event.name == "error" or announced:
            result.server_error = result.server_error or said(event.data)
        else:
            _blame(result, f"event {len(result.chunks)} is not JSON", event.data)
        result.chunks.append(Chunk("error", read))
        return
    if isinstance(content, list) and len(content) == 1 and isinstance(content[0], dict):
        content = content[0]
    if content == "[DONE]":
        result.done = True
        result.chunks.append(Chunk("done", read))
        return
    if not isinstance(content, dict):
        _blame(result, f"event {len(result.chunks)} is JSON, but not an object", event.data)
        result.chunks.append(Chunk("error", read))
        return
    named = event.name == "error" or (announced and "choices" not in content)
    if named or content.get("error") or content.get("object") == "error":
        result.server_error = result.server_error or said(event.data)
        result.chunks.append(Chunk("error", read))
        return
    _chunk(result, content, read)


def _unframed(result: Answer, lines: bytes) -> None:
    """Lines that are no field of the format. Servers write failures there: as a field `error`, or as bare JSON."""
    field_, _, value = lines.partition(b":")
    if field_.strip().lower() == b"error" and value.strip():
        result.server_error = result.server_error or said(value)
        return
    try:
        content = json.loads(lines)
    except (ValueError, RecursionError):
        content = None
    if isinstance(content, dict) and "choices" not in content:
        result.server_error = result.server_error or said(lines)
    else:
        where = f"event {len(result.chunks)} has a line that is not server-sent-event syntax"
        _blame(result, where, lines)


def _chunk(result: Answer, content: dict[str, Any], read: int) -> None:
    counts = result.counts
    before = counts.completion
    if not content.keys().isdisjoint(KEYS):
        counts.take(content)
    given = content.get("choices")
    found = [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []
    if not found:
        if content.get("usage") is None and result.aside is None and given is None:
            result.aside = said(json.dumps(content, ensure_ascii=False).encode("utf-8", "replace"))
        result.chunks.append(Chunk("usage" if content.get("usage") else "other", read))
        return
    if result.first_chunk_read is None:
        result.first_chunk_read = read
    kind, length, listed = "other", 0, None
    for one in found:
        piece, mine = _choice(result, one, read)
        if _WORTH[piece.kind] < _WORTH[kind]:
            kind = piece.kind
        length += piece.length
        if mine is not None:
            listed = mine + (listed or 0)
    grown = counts.completion is not None and counts.completion > (before or 0)
    if kind in choices.OUTPUT:
        result._length += length
        result._carried += listed or 0
        if result.last_token_read is None:
            result._first_length, result._listed = length, listed
            result._counted = counts.completion if grown else None
        result.last_token_read = read
    tokens = (counts.completion or 0) - (before or 0) if grown else listed
    result.chunks.append(Chunk(kind, read, tokens))


def _choice(result: Answer, one: dict[str, Any], read: int) -> tuple[choices.Fragment, int | None]:
    """Take one choice in; what it carried, and how many tokens it lists."""
    piece = choices.piece(one)
    if one.get("finish_reason"):
        _finish(result, one)
    elif result.finish_reason and piece.kind in choices.OUTPUT and one.get("index") == result._ended:
        # What is followed by more was no end: some say "stop" where only the reasoning stops.
        result.finish_reason = result.finish_reason if choices.broken(result.finish_reason) else None
    if not _RARE.isdisjoint(one):
        if error := one.get("error"):
            result.server_error = result.server_error or said(json.dumps(error).encode())
        result.counts.usage(one.get("usage"))
        result.prompt_logprobs = one.get("prompt_logprobs") or result.prompt_logprobs
        result.prompt_distributions = one.get("prompt_distributions") or result.prompt_distributions
    if piece.kind in ("content", "reasoning"):
        if result.first_token_read is None:
            result.first_token_read = read
            # FastDeploy: seconds since it began to work on the request.
            if result.counts.server_ttft_ms is None and (arrival := number(one.get("arrival_time"))) is not None:
                result.counts.server_ttft_ms = arrival * 1e3
        if piece.text:
            index = one.get("index")
            if result.first_answer_read is None:
                result.first_answer_read = read
                result._index = index
            if index == result._index:
                result._text.append(piece.text)
    if piece.argument and result.first_argument_read is None:
        result.first_argument_read = read
    logprobs = one.get("logprobs")
    if logprobs and isinstance(logprobs, dict):
        result.logprobs.append(logprobs)
    return piece, _listed(one, logprobs) if logprobs or "token_ids" in one else None


def _finish(result: Answer, one: dict[str, Any]) -> None:
    """Why a choice ended; of several, an end that is none stays."""
    why = choices.reason(one)
    if why is None or choices.broken(result.finish_reason):
        return
    result.finish_reason, result._ended = why, one.get("index")
    given = one["finish_reason"]
    if isinstance(given, dict) and choices.broken(why) and given.get("message"):
        result.server_error = result.server_error or said(json.dumps(given).encode())


def _listed(one: dict[str, Any], logprobs: Any) -> int | None:
    """Tokens in a choice, from token ids or log-probabilities."""
    if isinstance(ids := one.get("token_ids"), list):
        return len(ids)
    if isinstance(logprobs, dict):
        for key in _LISTED:
            if isinstance(each := logprobs.get(key), list):
                return len(each)
    return None


def _blame(result: Answer, sentence: str, evidence: bytes) -> None:
    if result.malformed is None:
        result.malformed = f"{sentence}: {shown(evidence)}"
