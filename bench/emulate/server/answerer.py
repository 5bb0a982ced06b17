"""What a simulated server answers to each request. Standard library only."""

from __future__ import annotations

import json
import random
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench.emulate.server.script import Script, Timing, script
from bench.emulate.server.stream import Piece, Stream, document, stream_head

_DEFAULT_TOKENS = 16


@dataclass
class Request:
    """A parsed request with the times at which its last byte was there: for the server, and for its kernel."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    received_ns: int
    kernel_ns: int | None
    version: str = "HTTP/1.1"

    @property
    def route(self) -> str:
        """The path without what stands before /v1."""
        return self.path[self.path.find("/v1/") + 3 :] if "/v1/" in self.path else self.path

    @property
    def completion(self) -> bool:
        """Whether tokens are asked for."""
        return self.method == "POST" and self.route in ("/completions", "/chat/completions")


@dataclass
class Response:
    """What to send, and whether the connection ends with it."""

    pieces: Iterator[Piece]
    closes: bool = False


class Answerer:
    """Turns requests into what is to be sent, and when."""

    def __init__(self, base: Script, timing: Timing, model: str) -> None:
        self.base = base
        self._timing = timing
        self._model = model
        self._cache = PrefixCache()
        self._number = 0

    def answer(self, request: Request) -> Response:
        """The response to any request."""
        start = request.kernel_ns or request.received_ns
        if request.completion:
            return self._completion(request, start)
        return _at_once(start, self._plain(request), "document")

    def _completion(self, request: Request, start_ns: int) -> Response:
        self._number += 1
        if self.base.never_ready:
            return _refusal(start_ns, 503, "still starting")
        try:
            body = json.loads(request.body)
            plan = script(body.get("simulate") or {}, self.base)
            if request.version == "HTTP/1.0" and plan.transfer == "chunked":
                # Nobody may send chunks to a client of before they were invented: the body ends with the connection.
                plan = replace(plan, transfer="close")
            prompt = _prompt(body)
            prompt_tokens = len(prompt)
            tokens = int(body.get("max_tokens") or body.get("max_completion_tokens") or _DEFAULT_TOKENS)
            include_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            return _refusal(start_ns, 400, f"cannot read the request: {error!r}")
        fault = plan.fault if self._timing.faulty(plan) else None
        if fault in ("http_429", "http_500"):
            return _refusal(start_ns, int(fault[-3:]), "scripted failure")
        if fault == "not_http":
            return _at_once(start_ns, b"220 this is not the protocol you expect\r\n", "fault", closes=True)
        if fault == "reset":
            return _at_once(start_ns, b"", "reset", closes=True)
        usage: dict[str, Any] = {"prompt_tokens": prompt_tokens, "completion_tokens": 0, "total_tokens": prompt_tokens}
        cached = 0
        if plan.prefix_cache:
            cached = self._cache.cached(prompt, plan.prefix_block)
            usage["prompt_tokens_details"] = {"cached_tokens": cached}
        chat = request.route == "/chat/completions"
        stream = Stream(
            plan=plan,
            pace=self._timing.pace(plan, prompt_tokens - cached),
            head=stream_head(self._number, chat, self._model),
            chat=chat,
            tokens=0 if fault == "zero_tokens" else tokens,
            usage=usage,
            include_usage=include_usage,
            fault=fault,
            logprobs=bool(body.get("logprobs")),
        )
        if plan.prefix_cache:
            # What was generated stays too: the next turn of a conversation begins with it.
            self._cache.keep([*prompt, *stream.answer().split()], plan.prefix_block)
        if not body.get("stream"):
            return Response(iter([stream.document(start_ns)]))
        return Response(stream.pieces(start_ns), stream.closes)

    def _plain(self, request: Request) -> bytes:
        if request.route in ("/health", "/"):
            return document(503 if self.base.never_ready else 200, {"ready": not self.base.never_ready})
        if request.route == "/models":
            return document(200, {"object": "list", "data": [{"id": self._model, "object": "model"}]})
        if request.route == "/tokenize" and request.method == "POST":
            return self._tokenize(request)
        return document(404, {"error": {"message": f"nothing at {request.method} {request.path}"}})

    def _tokenize(self, request: Request) -> bytes:
        try:
            words = json.loads(request.body)["prompt"].split()
        except (ValueError, KeyError, TypeError, AttributeError):
            return document(400, {"error": {"message": "needs a JSON object with `prompt`"}})
        ids = [random.Random(word).randrange(self.base.vocab_size) for word in words]
        return document(200, {"tokens": ids, "count": len(ids)})


def _at_once(start_ns: int, data: bytes, kind: str, *, closes: bool = False) -> Response:
    return Response(iter([Piece(start_ns, data, kind)]), closes)


def _refusal(start_ns: int, status: int, message: str) -> Response:
    error = {"error": {"message": message, "type": "simulated", "code": status}}
    return _at_once(start_ns, document(status, error), "error")


def _prompt(body: dict[str, Any]) -> list[Any]:
    """The prompt's tokens: ids, or the words of its text."""
    prompt: Any = body.get("prompt")
    if prompt is None:
        prompt = " ".join(str(message.get("content", "")) for message in body["messages"])
    return prompt.split() if isinstance(prompt, str) else list(prompt)


class PrefixCache:
    """Token sequences by their beginnings, in whole blocks, as engines keep them: 16 tokens in vLLM, 1 in SGLang."""

    def __init__(self) -> None:
        self._seen: set[int] = set()

    def cached(self, tokens: Sequence[Hashable], block: int) -> int:
        """How many of the first tokens are known already; never all of them, since one has to be computed."""
        known = 0
        for end, beginning in _beginnings(tokens, block):
            if end == len(tokens) or beginning not in self._seen:
                break
            known = end
        return known

    def keep(self, tokens: Sequence[Hashable], block: int) -> None:
        """Remember a prompt, or a prompt with its answer."""
        self._seen.update(beginning for _, beginning in _beginnings(tokens, block))


def _beginnings(tokens: Sequence[Hashable], block: int) -> Iterator[tuple[int, int]]:
    """Where each whole block ends, and a digest of all that stands before that end."""
    digest = block
    for end in range(block, len(tokens) + 1, block):
        digest = hash((digest, *tokens[end - block : end]))
        yield end, digest
