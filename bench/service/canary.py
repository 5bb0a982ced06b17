"""One canary: a short completion asked of a served endpoint by our load generator, and what became of it."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic, monotonic_ns
from typing import Any

from bench.loadgen import rows
from bench.loadgen.clock import Clock
from bench.loadgen.driver import Driver
from bench.loadgen.job import Request
from bench.loadgen.target import Target
from bench.programs import ready_process
from bench.programs.ready_process import CHAT, COMPLETIONS, NotReady
from bench.record.schema import ERROR_KINDS
from bench.service.watchlist import CACHED_TIMES, Stream, WatchedEndpoint

# What may become of a canary: no server can add to it.
RESULTS = ("ok", "discovery", "redirect", "key", "html", *ERROR_KINDS)
# Of one answer no more is taken in than this.
MOST_BYTES = 1 << 22
_WORDS = (
    *("winter", "paper", "river", "stone", "green", "table", "music", "light", "water", "garden", "silver", "house"),
    *("morning", "window", "letter", "forest", "summer", "bridge", "corner", "engine", "signal", "market", "island"),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a canary: its row as record.schema's `requests` has it, and the tokens it may have cost."""

    stream: Stream
    result: str
    row: Mapping[str, Any]
    tokens: int
    seconds: float

    @property
    def ok(self) -> bool:
        """Whether it was answered."""
        return self.result == "ok"

    def since_sent_ms(self, stamp: str) -> float | None:
        """From just before the request's sending to a stamp, as in a run, ms; None where either is missing."""
        begun, then = self.row["sent_ns"], self.row[stamp]
        return None if begun is None or then is None else (then - begun) / 1e6

    @property
    def ttft_ms(self) -> float | None:
        """Time to the first token; None for one that failed."""
        return self.since_sent_ms("first_token_ns") if self.ok else None

    @property
    def tpot_ms(self) -> float | None:
        """Mean time of a token after the first; None with fewer than two, or where nobody counted."""
        first, last, number = (self.row[name] for name in ("first_token_ns", "last_token_ns", "completion_tokens"))
        if not self.ok or first is None or last is None or not number or last <= first:
            return None
        more = number - (self.row["first_tokens"] or 1)
        return (last - first) / 1e6 / more if more > 0 else None


class Caller:
    """Asks one endpoint. What has to be found out (model, path) is found out once, and again after a failure."""

    def __init__(self, endpoint: WatchedEndpoint, key: str | None) -> None:
        self.endpoint = endpoint
        self._key = key
        self._asked = ready_process.shaped(endpoint.target, key=key)
        self.model = endpoint.model
        self.path = self._asked.path
        self._number = 0

    async def ask(self, stream: Stream) -> Outcome:
        """Ask once; whatever happens is an outcome."""
        began, self._number = monotonic(), self._number + 1
        try:
            async with asyncio.timeout(self.endpoint.timeout_s):
                return await self._ask(stream, began)
        except TimeoutError:
            return self._failed(stream, "timeout", f"no end within {self.endpoint.timeout_s:g} s", began)

    async def _ask(self, stream: Stream, began: float) -> Outcome:
        if self.model is None:
            try:
                found = await asyncio.to_thread(
                    ready_process.discovered, self._asked, min(self.endpoint.timeout_s, 10.0)
                )
            except NotReady as error:
                return self._failed(stream, "discovery", str(error), began)
            self.model = found.model
        outcome = await self._completion(stream, self.path or CHAT, began)
        if self.path is None:
            if outcome.row["status"] in (404, 405) or (outcome.row["status"] == 400 and "template" in _said(outcome)):
                outcome = await self._completion(stream, COMPLETIONS, began)
                self.path = COMPLETIONS if outcome.ok else None
            elif outcome.ok:
                self.path = CHAT
        if not outcome.ok and self.endpoint.model is None:
            self.model = None
        return outcome

    async def _completion(self, stream: Stream, path: str, began: float) -> Outcome:
        at = self._asked
        request = Request(
            request_id=self._number,
            prompt_id=stream if stream == "cached" else f"{stream}-{self._number}",
            stage="measured",
            path=at.prefix + path,
            body={},
            label=stream,
            measured=stream == "warm",
            output_tokens=self.endpoint.output_tokens,
        )
        turn = rows.Turn(request, stream=0, intended_ns=monotonic_ns(), body=self._body(stream, path))
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        target = Target(at.host, at.port, at.tls, most=MOST_BYTES)
        driver = Driver(target, headers, self.endpoint.timeout_s, lambda _: None)
        clock = Clock()
        clock.sample()
        await driver.closed([[turn]], 1)
        clock.sample()
        row, _ = rows.row(turn, clock, rows.Columns(), keep_text=False)
        if row["error"]:
            row["error"] = self._clean(row["error"])
        reads = turn.exchange.reads if turn.exchange is not None else []
        return self._outcome(stream, _result(row, b"".join(reads[:4])[:4096]), row, began)

    def _failed(self, stream: Stream, result: str, sentence: str, began: float) -> Outcome:
        """A canary that has no exchange to tell of."""
        now = monotonic_ns()
        request = Request(self._number, stream, "measured", "", {}, label=stream, measured=stream == "warm")
        turn = rows.Turn(request, 0, intended_ns=now - round((monotonic() - began) * 1e9))
        turn.failure = (result if result in ERROR_KINDS else "http", sentence)
        clock = Clock()
        clock.sample()
        row, _ = rows.row(turn, clock, rows.Columns(), keep_text=False)
        row["error"] = self._clean(sentence)
        return self._outcome(stream, result, row, began)

    def _outcome(self, stream: Stream, result: str, row: dict[str, Any], began: float) -> Outcome:
        sent = row["sent_ns"] is not None
        planned = self.endpoint.tokens_of(stream)
        # A server may count too little: what was planned is the least, once anything was sent.
        told = (row["prompt_tokens"] or 0) + (row["completion_tokens"] or 0)
        return Outcome(stream, result, row, max(told, planned) if sent else 0, monotonic() - began)

    def _body(self, stream: Stream, path: str) -> bytes:
        words = self.endpoint.words
        if stream == "cached":
            draw = random.Random(self.endpoint.url)
            prompt = " ".join(draw.choice(_WORDS) for _ in range(words * CACHED_TIMES))
        else:
            # Another beginning every time, so that no prefix cache answers for the engine.
            draw = random.Random()
            prompt = " ".join([str(draw.randrange(10**9)), *(draw.choice(_WORDS) for _ in range(max(words - 4, 1)))])
        fields: dict[str, Any] = {
            "model": self.model,
            "max_tokens": self.endpoint.output_tokens,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        fields |= {"messages": [{"role": "user", "content": prompt}]} if path == CHAT else {"prompt": prompt}
        return json.dumps(fields).encode()

    def _clean(self, text: str) -> str:
        """A sentence for logs: on one line, without the key that a server may repeat, and not too long."""
        line = " ".join("".join(one if one.isprintable() else " " for one in text).split())
        return (line.replace(self._key, "***") if self._key else line)[:500]


def _result(row: Mapping[str, Any], begin: bytes) -> str:
    status, kind = row["status"], row["error_kind"]
    if kind is None:
        return "ok"
    if status is not None and 300 <= status < 400:
        return "redirect"
    if status in (401, 403):
        return "key"
    if kind in ("http", "protocol", "empty", "closed") and (b"<html" in begin.lower() or b"<!doctype" in begin.lower()):
        return "html"
    return str(kind)


def _said(outcome: Outcome) -> str:
    return str(outcome.row["error"] or "").lower()
