"""From exchanges to the rows of record.schema's `requests` and `chunks`."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.loadgen.answer import Answer, answer
from bench.loadgen.choice import broken
from bench.loadgen.clock import Clock
from bench.loadgen.exchange import Exchange
from bench.loadgen.job import Request, released

_TIMESPEC = struct.Struct("@ll")
KINDS = ("role", "content", "reasoning", "usage", "finish", "done", "comment", "error", "other", "tool")
_CODE = {kind: code for code, kind in enumerate(KINDS)}
NONE = -1


@dataclass(slots=True)
class Turn:
    """One request with its place in the load, and what became of it; `exchange` is None where nothing was sent."""

    request: Request
    stream: int
    intended_ns: int
    exchange: Exchange | None = None
    failure: tuple[str, str] | None = None
    body: bytes | memoryview = b""
    # when the driver had done with it, whatever became of it
    over_ns: int | None = None


@dataclass(slots=True)
class Columns:
    """The `chunks` table as flat arrays; NONE stands for null, `kind` indexes KINDS."""

    request_id: array[int] = field(default_factory=lambda: array("q"))
    seq: array[int] = field(default_factory=lambda: array("q"))
    kernel_ns: array[int] = field(default_factory=lambda: array("q"))
    user_ns: array[int] = field(default_factory=lambda: array("q"))
    read: array[int] = field(default_factory=lambda: array("q"))
    kind: array[int] = field(default_factory=lambda: array("b"))
    tokens: array[int] = field(default_factory=lambda: array("q"))


def row(turn: Turn, clock: Clock, columns: Columns, *, keep_text: bool) -> tuple[dict[str, Any], Answer]:
    """The request's row; its events are appended to `columns`."""
    exchange = turn.exchange or Exchange()
    said = answer(exchange.reads)
    stamped = [None if raw is None else _nanoseconds(raw) for raw in exchange.kernel]
    kernel = clock.monotonic(stamped, exchange.user)
    trusted = bool(kernel) and None not in kernel
    stamps: list[int] = [stamp for stamp in kernel if stamp is not None] if trusted else exchange.user
    lags = [user - stamp for user, stamp in zip(exchange.user, stamps, strict=True)] if trusted else []
    _append(columns, turn.request.request_id, said, kernel, exchange.user)

    def at(read: int | None) -> int | None:
        return None if read is None else stamps[read]

    reads = [chunk.read for chunk in said.chunks]
    kind, sentence = _verdict(turn, exchange, said)
    request = turn.request
    first = said.first_token_read
    return {
        "request_id": request.request_id,
        "stream": turn.stream,
        "stage": request.stage,
        "label": request.label,
        "measured": request.measured,
        "prompt_id": request.prompt_id,
        "bucket": request.bucket,
        "turn": request.turn,
        "intended_ns": turn.intended_ns,
        "released_ns": None,
        "sent_ns": exchange.sent_ns,
        "sent_end_ns": exchange.sent_end_ns,
        "connect_ns": exchange.connect_ns,
        "status": said.status,
        "headers_ns": at(0 if stamps else None),
        "first_chunk_ns": at(said.first_chunk_read),
        "first_token_ns": at(first),
        "first_answer_ns": at(said.first_answer_read),
        "first_argument_ns": at(said.first_argument_read),
        "last_token_ns": at(said.last_token_read),
        "end_ns": stamps[-1] if stamps and exchange.complete else exchange.end_ns,
        "stamp_source": ("kernel" if trusted else "user") if stamps else None,
        "client_lag_us": lags[first] / 1e3 if lags and first is not None else None,
        "client_lag_max_us": max(lags) / 1e3 if lags else None,
        "chunks": said.token_events,
        "coalesced": len(reads) - len(set(reads)),
        "prompt_tokens": said.prompt_tokens,
        "completion_tokens": said.completion_tokens,
        "cached_tokens": said.cached_tokens,
        "count_reason": said.counts.reason,
        "first_tokens": said.first_tokens,
        "first_share": said.first_share,
        "output_tokens_asked": request.output_tokens,
        "server_ttft_ms": said.server_ttft_ms,
        "server_tpot_ms": said.counts.server_tpot_ms,
        "finish_reason": said.finish_reason,
        "error_kind": kind,
        "error": sentence,
        "text": said.text if keep_text and exchange.reads else None,
    }, said


def release(table: Sequence[dict[str, Any]], conversations: Sequence[Sequence[Turn]], cap: int | None) -> None:
    """Fill in `released_ns` of an open load's rows: when its cap let each conversation begin.

    A place is free when the last byte of the answer that held it was there, not when this client had noticed.
    """
    if cap is None:
        return
    by_id = {row["request_id"]: row for row in table}

    def over(turns: Sequence[Turn]) -> int:
        return int(by_id[turns[-1].request.request_id]["end_ns"] or turns[-1].over_ns or turns[-1].intended_ns)

    times = released([turns[0].intended_ns for turns in conversations], [over(turns) for turns in conversations], cap)
    for turns, time in zip(conversations, times, strict=True):
        by_id[turns[0].request.request_id]["released_ns"] = time


def logprobs(request: Request, said: Answer) -> dict[str, Any] | None:
    """The log-probabilities of one answer, the chat and the completions form brought into one; None without any."""
    if not said.logprobs and said.prompt_logprobs is None:
        return None
    tokens: list[Any] = []
    values: list[Any] = []
    tops: list[Any] = []
    for part in said.logprobs:
        for entry in _dicts(part.get("content")):
            tokens.append(entry.get("token"))
            values.append(entry.get("logprob"))
            tops.append({str(top.get("token")): top.get("logprob") for top in _dicts(entry.get("top_logprobs"))})
        for kept, key in ((tokens, "tokens"), (values, "token_logprobs"), (tops, "top_logprobs")):
            kept += part[key] if isinstance(part.get(key), list) else []
    return {
        "request_id": request.request_id,
        "prompt_id": request.prompt_id,
        "label": request.label,
        "text": said.text,
        "tokens": tokens,
        "token_logprobs": values,
        "top_logprobs": tops,
        "prompt_logprobs": said.prompt_logprobs,
        "prompt_distributions": said.prompt_distributions,
    }


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _nanoseconds(timespec: bytes) -> int:
    seconds, nanoseconds = _TIMESPEC.unpack(timespec)
    return int(seconds * 1_000_000_000 + nanoseconds)


def _append(columns: Columns, request_id: int, said: Answer, kernel: list[int | None], user: list[int]) -> None:
    chunks = said.chunks
    columns.request_id.extend([request_id] * len(chunks))
    columns.seq.extend(range(len(chunks)))
    columns.kernel_ns.extend([NONE if (stamp := kernel[chunk.read]) is None else stamp for chunk in chunks])
    columns.user_ns.extend([user[chunk.read] for chunk in chunks])
    columns.read.extend([chunk.read for chunk in chunks])
    columns.kind.extend([_CODE[chunk.kind] for chunk in chunks])
    columns.tokens.extend([NONE if chunk.tokens is None else chunk.tokens for chunk in chunks])


def _verdict(turn: Turn, exchange: Exchange, said: Answer) -> tuple[str | None, str | None]:
    """The error's kind and sentence, the nearest to the cause first; (None, None) if all is well."""
    if turn.failure is not None:
        return turn.failure
    if said.status is not None and not 200 <= said.status < 300:
        return "http", f"the server answered {said.status}: {said.server_error or 'no reason given'}"
    if said.server_error is not None:
        return "server_event", f"the server reported an error inside the stream: {said.server_error}"
    if exchange.failure is not None:
        kind, sentence = exchange.failure
        return kind, f"{sentence}, after {said.token_events} token events" if said.token_events else sentence
    if said.malformed is not None:
        return "protocol", said.malformed
    if broken(said.finish_reason):
        return "aborted", f"the server broke the answer off (finish_reason {said.finish_reason!r}), {_after(said)}"
    if not said.token_events:
        counted = f", though it counted {said.completion_tokens}" if said.completion_tokens else ""
        aside = f"; it said: {said.aside}" if said.aside else ""
        return "empty", f"the server answered {said.status} and ended without a single token{counted}{aside}"
    if not said.done and said.finish_reason is None:
        aside = f"; it said: {said.aside}" if said.aside else ""
        return "closed", f"the stream ended without finish_reason or [DONE], {_after(said)}{aside}"
    return None, None


def _after(said: Answer) -> str:
    return f"after {said.token_events} token event{'s' * (said.token_events != 1)}"
