"""Who is next: requests in order of arrival, then one token for each that runs, in turn.

One forward pass serves one sequence: a second stream waits for the first one's token, never for its whole answer.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Sequence as Row
from typing import Any, Protocol

import torch

from .answering import Writer, failure
from .detokenizer import Detokenizer, Stops
from .events import Events
from .parsing import Ask
from .picking import Likelihood, distributions, generator, likelihoods, pick
from .runtime import Runtime


class Sink(Protocol):
    """Where an answer goes."""

    def send(self, document: dict[str, Any]) -> None:
        """Put one document on the wire, now."""
        ...

    def gone(self) -> bool:
        """Whether nobody listens any more."""
        ...


class Sequence:
    """One request on its way. `done` is set once `answer`, or the last chunk of a stream, is there."""

    def __init__(self, ask: Ask, writer: Writer, sink: Sink, runtime: Runtime) -> None:
        self.ask = ask
        self.sink = sink
        self.done = threading.Event()
        self.answer: dict[str, Any] | None = None
        self.error: str | None = None
        self.arrived_ns = time.monotonic_ns()
        self.first_token_ns: int | None = None
        self.cache: Any = None
        self.tokens: list[int] = []
        self.finish: str | None = None
        self.source = generator(ask.sampling, runtime.device)
        self._writer = writer
        self._runtime = runtime
        self._text = Detokenizer(runtime.decode, ask.ids)
        self._stops = Stops(ask.stops)
        self._pieces: list[str] = []
        self._found: list[Likelihood] = []
        self._prompt: Row[Likelihood | None] = ()
        self.distributions: dict[str, Any] | None = None

    def open(self, prompt: Row[Likelihood | None]) -> None:
        """The prompt has been read."""
        self._prompt = prompt
        opening = self._writer.opening(prompt) if self.ask.stream else None
        if opening is not None:
            self.sink.send(opening)

    def add(self, logits: torch.Tensor) -> None:
        """Pick the next token from a row of logits and send it."""
        ask, ends = self.ask, self._runtime.ends
        logits = logits.float()
        forbidden = ends if len(self.tokens) < ask.min_tokens else ()
        token = pick(logits, ask.sampling, self.source, forbidden)
        found = None if ask.logprobs is None else likelihoods(logits[None], [token], ask.logprobs)[0]
        self.tokens.append(token)
        ended = token in ends and not ask.ignore_eos
        last = ended or len(self.tokens) >= ask.max_tokens
        piece = self._text.flush() if ended else self._text.push(token)
        if last and not ended:
            piece += self._text.flush()
        piece, stopped = self._stops.push(piece, last)
        self.finish = "stop" if ended or stopped else "length" if last else None
        if self.first_token_ns is None:
            self.first_token_ns = time.monotonic_ns()
        if ask.stream:
            self.sink.send(self._writer.chunk(piece, token, found, self.finish, len(self.tokens)))
        else:
            self._pieces.append(piece)
            if found is not None:
                self._found.append(found)

    def close(self) -> None:
        """The answer is complete."""
        if self.ask.stream:
            closing = self._writer.closing(len(self.tokens))
            if closing is not None:
                self.sink.send(closing)
        else:
            self.answer = self._writer.whole(
                self._pieces, self.tokens, self._found, self.finish, self._prompt, self.distributions
            )
        self.done.set()

    def fail(self, message: str) -> None:
        """The answer cannot be completed."""
        self.error = message
        if self.ask.stream:
            self.sink.send(failure(message, "server_error", code=500))
        self.done.set()


class Scheduler:
    """The loop that owns the model; runs on the thread that loaded it."""

    def __init__(self, runtime: Runtime, events: Events, limit: int) -> None:
        self._runtime = runtime
        self._events = events
        self._limit = limit
        self._arrivals: queue.SimpleQueue[Sequence] = queue.SimpleQueue()
        self._waiting: deque[Sequence] = deque()
        self._running: list[Sequence] = []
        self._first = True

    def submit(self, sequence: Sequence) -> None:
        """Queue a request, from any thread."""
        self._arrivals.put(sequence)

    def run(self) -> None:
        """Serve until the process ends."""
        while True:
            self._receive()
            if self._waiting and len(self._running) < self._limit:
                self._attempt(self._waiting.popleft(), self._start)
            for sequence in tuple(self._running):
                self._attempt(sequence, self._step)

    def _receive(self) -> None:
        """Take in what has arrived; with nothing to do, wait for it."""
        if not self._running and not self._waiting:
            self._runtime.compiler.settle()
            self._waiting.append(self._arrivals.get())
        while not self._arrivals.empty():
            self._waiting.append(self._arrivals.get())

    def _attempt(self, sequence: Sequence, action: Any) -> None:
        """Do one thing for a request: what goes wrong ends that request and not the server."""
        try:
            if sequence.sink.gone():
                sequence.finish = "cancelled"
                self._end(sequence)
                sequence.done.set()
                return
            action(sequence)
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            sequence.finish = "error"
            self._end(sequence)
            sequence.fail(f"{type(error).__name__}: {error}")

    def _start(self, sequence: Sequence) -> None:
        began = time.monotonic_ns()
        runtime, ask = self._runtime, sequence.ask
        sequence.cache = runtime.take_cache()
        self._running.append(sequence)
        every = ask.prompt_logprobs is not None or bool(ask.distributions)
        logits = runtime.forward(ask.ids, sequence.cache, every)
        prompt: list[Likelihood | None] = []
        if ask.prompt_logprobs is not None:
            prompt = [None, *likelihoods(logits[:-1], ask.ids[1:], ask.prompt_logprobs)]
        if ask.distributions:
            sequence.distributions = distributions(logits, ask.distributions)
        self._note_first(began, len(ask.ids))
        sequence.open(prompt)
        self._take(sequence, logits[-1])

    def _step(self, sequence: Sequence) -> None:
        logits = self._runtime.forward(sequence.tokens[-1:], sequence.cache)
        self._take(sequence, logits[-1])

    def _take(self, sequence: Sequence, logits: torch.Tensor) -> None:
        if sequence.ask.max_tokens:
            sequence.add(logits)
        else:
            sequence.finish = "length"
        if sequence.finish is not None:
            sequence.close()
            self._end(sequence)

    def _end(self, sequence: Sequence) -> None:
        if sequence in self._running:
            self._running.remove(sequence)
        if sequence.cache is not None:
            self._runtime.give_back(sequence.cache)
            sequence.cache = None
        self._events.emit(
            "request",
            sequence.arrived_ns,
            time.monotonic_ns(),
            first_token_ns=sequence.first_token_ns,
            prompt_tokens=len(sequence.ask.ids),
            completion_tokens=len(sequence.tokens),
            finish=sequence.finish,
        )

    def _note_first(self, began: int, tokens: int) -> None:
        if self._first:
            self._first = False
            self._events.emit("first_forward", began, time.monotonic_ns(), tokens=tokens)
