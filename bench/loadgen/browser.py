"""A browser as a client: questions typed into a chat page and sent with a click, answers as they are painted.

It takes a job and gives rows as the load generator does, with stamps of its own: `sent_ns` is the click as the browser
noted it, and a chunk is a frame in which the answer grew, stamped right after it was painted. What came from the server
in between cannot be told apart, so a chunk may be several tokens. Frames are 16.7 ms apart: that much is the page's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any, Self

from bench.errors import LaunchError
from bench.loadgen.chromium import Chromium
from bench.loadgen.job import Driven, Job, Request
from bench.record.launches import ClientAccount, ClockAccount

STAMPS = "paint"
# A page that grows moves its button: a click that went past it is made again, so often.
CLICKS = 20
# What our page says under an answer of which nothing came.
SILENT = "no token came"
# A page that is not there by then, or not ready for the next question.
PATIENCE_S = 60.0
# In the page: what Chainlit calls its parts, and `ask`, which waits for the end of the answer to a click still to come.
SCRIPT = """
window.firsttoken = {
  input: () => document.querySelector('#chat-input'),
  button: () => document.querySelector('#chat-submit:not([disabled])'),
  answers: () => [...document.querySelectorAll('[data-step-type="assistant_message"] .message-content')],
  figures: () => [...document.querySelectorAll('[data-step-type="system_message"] .message-content')],
  busy: () => !!document.querySelector('#stop-button'),
  ask: (patience) => new Promise((done) => {
    const told = {clicked: null, paints: [], text: '', figures: '', ended: null};
    let length = 0, waiting = false;
    const noted = (event) => { if (event.target.closest('#chat-submit')) told.clicked ??= event.timeStamp; };
    const end = (why) => {
      watcher.disconnect(); clearTimeout(timer); document.removeEventListener('click', noted, true);
      told.ended = why; done(told);
    };
    const look = () => {
      const text = firsttoken.answers().map((part) => part.textContent).join('');
      const grown = text.length > length;
      if (grown) { length = text.length; told.text = text; }
      return grown;
    };
    const frame = () => {
      const grown = look(), channel = new MessageChannel();
      const figures = firsttoken.figures()[0]?.textContent, over = figures && !firsttoken.busy();
      // What a frame shows is painted when the next task runs; what changes until then belongs to the next frame.
      channel.port1.onmessage = () => {
        waiting = false;
        if (grown) told.paints.push([performance.now(), length]);
        if (told.clicked !== null && over) { told.figures = figures; end('answered'); }
      };
      channel.port2.postMessage(0);
    };
    const watcher = new MutationObserver(() => {
      if (!waiting) { waiting = true; requestAnimationFrame(frame); }
    });
    firsttoken.taken = () => told.clicked !== null;
    firsttoken.cancel = () => end('cancelled');
    watcher.observe(document.body, {childList: true, subtree: true, characterData: true, attributes: true});
    document.addEventListener('click', noted, true);
    const timer = setTimeout(() => end('timeout'), patience);
  }),
};
"""
EMPTY = (
    "!document.querySelector('[data-step-type]') && firsttoken.input() && !firsttoken.input().disabled"
    " && !firsttoken.busy()"
)
# Begins to watch and says where to click; null while the page is drawing its button anew.
BEGIN = """
(() => {
  const box = firsttoken.button()?.getBoundingClientRect();
  if (!box) return null;
  window.told = firsttoken.ask(%d);
  return [box.x + box.width / 2, box.y + box.height / 2];
})()
"""


class Browser:
    """Started on entry, one page for all jobs, gone with `close()` or with this process."""

    def __init__(self) -> None:
        self._chromium: Chromium | None = None
        self._address = ""

    def __enter__(self) -> Self:
        self._chromium = Chromium()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def harness_pids(self) -> tuple[int, ...]:
        """None: the browser is no child of ours, and its work is not the harness's."""
        return ()

    def account(self) -> ClientAccount:
        """Nothing is known of its processor time."""
        return ClientAccount()

    def clock(self) -> ClockAccount:
        """Its stamps are the monotonic clock's."""
        return ClockAccount()

    def close(self) -> None:
        """End the browser."""
        chromium, self._chromium = self._chromium, None
        if chromium is not None:
            chromium.close()

    def drive(
        self,
        job: Job,
        progress: Callable[[int, int], None] | None = None,
        first_token: Callable[[], None] | None = None,
    ) -> Driven:
        """Ask one question after the other, each in a chat of its own unless it is a later turn; `progress(done, of)`.

        A page tells its stamps when an answer is over: `first_token` is called then.

        LaunchError for a load that one person at one page cannot make.
        """
        if job.arrivals.closed != 1 and len(job.requests) > 1:
            raise LaunchError("unsupported", "a browser asks one question after the other: arrivals must be closed: 1")
        driven = Driven()
        for number, request in enumerate(job.requests):
            row, chunks = self._asked(job, request)
            driven.requests.append(row)
            for name, values in chunks.items():
                driven.chunks.setdefault(name, []).extend(values)
            if first_token is not None and number == 0 and row["first_token_ns"] is not None:
                first_token()
            if progress is not None:
                progress(number + 1, len(job.requests))
        return driven

    def _asked(self, job: Job, request: Request) -> tuple[dict[str, Any], dict[str, list[Any]]]:
        if request.after is not None:
            raise LaunchError("unsupported", "later turns of a conversation are not typed into a page yet")
        page = self._page(job)
        page.value("firsttoken.input().focus()")
        page.tell("Input.insertText", text=str(request.body["messages"][-1]["content"]))
        offset_ns = self._offset_ns(page)
        for _ in range(CLICKS):
            page.wait("firsttoken.button()")
            if self._clicked(page, job.timeout_s):
                break
        else:
            raise LaunchError("request_failed", f"the page took none of {CLICKS} clicks")
        told = page.value("window.told", job.timeout_s + PATIENCE_S)
        return _row(request, told, offset_ns)

    def _clicked(self, page: Chromium, timeout_s: float) -> bool:
        """Whether the page took a click on its button; it is watched from just before on."""
        place = page.value(BEGIN % round(1000 * timeout_s))
        if place is None:
            return False
        for kind in ("mousePressed", "mouseReleased"):
            page.tell("Input.dispatchMouseEvent", type=kind, x=place[0], y=place[1], button="left", clickCount=1)
        taken = bool(page.value("firsttoken.taken()"))
        if not taken:
            page.value("firsttoken.cancel()")
        return taken

    def _page(self, job: Job) -> Chromium:
        """The page with an empty chat."""
        page = self._chromium
        if page is None:
            page = self._chromium = Chromium()
        address = f"{'https' if job.tls else 'http'}://{job.host}:{job.port}/"
        if self._address != address:
            page.tell("Page.navigate", url=address)
            page.wait("document.querySelector('#chat-input')", PATIENCE_S)
            page.value(SCRIPT)
            self._address = address
        elif page.value("document.querySelectorAll('[data-step-type]').length"):
            page.value("document.querySelector('#new-chat-button').click()")
        page.wait(EMPTY, PATIENCE_S)
        return page

    def _offset_ns(self, page: Chromium) -> int:
        """What is to be added to the page's own clock, which is the same one with another zero; good to half a trip."""
        trips: list[tuple[int, int]] = []
        for _ in range(3):
            before = time.monotonic_ns()
            now_ms = page.value("performance.now()")
            after = time.monotonic_ns()
            trips.append((after - before, (before + after) // 2 - round(now_ms * 1e6)))
        return min(trips)[1]


def _row(request: Request, told: dict[str, Any], offset_ns: int) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """What the page told as a row of `requests`, and its frames as `chunks`."""

    def stamp(ms: float | None) -> int | None:
        return None if ms is None else round(ms * 1e6) + offset_ns

    paints = [(stamp(at), length) for at, length in told["paints"]]
    kind, words = _fault(told)
    first, last = (paints[0], paints[-1]) if paints else ((None, 0), (None, 0))
    row: dict[str, Any] = {
        "request_id": request.request_id,
        "stream": 0,
        "stage": request.stage,
        "label": request.label,
        "measured": request.measured,
        "prompt_id": request.prompt_id,
        "bucket": request.bucket,
        "turn": request.turn,
        # Nothing is owed to a schedule: each question comes when the one before it is answered.
        "intended_ns": stamp(told["clicked"]) or time.monotonic_ns(),
        "sent_ns": stamp(told["clicked"]),
        "status": None,
        "first_chunk_ns": first[0],
        "first_token_ns": first[0],
        "first_answer_ns": first[0],
        "last_token_ns": last[0],
        "end_ns": last[0] or time.monotonic_ns(),
        "stamp_source": STAMPS if paints else None,
        "chunks": len(paints),
        "coalesced": 0,
        "completion_tokens": _counted(told["figures"]),
        "count_reason": None if _counted(told["figures"]) else "the page did not say how many",
        "first_share": first[1] / last[1] if last[1] else None,
        "output_tokens_asked": request.output_tokens,
        "finish_reason": None if kind else "stop",
        "error_kind": kind,
        "error": words,
        "text": told["text"],
    }
    chunks: dict[str, list[Any]] = {
        "request_id": [request.request_id] * len(paints),
        "seq": list(range(len(paints))),
        "kernel_ns": [None] * len(paints),
        "user_ns": [at for at, _ in paints],
        "read": list(range(len(paints))),
        "kind": ["content"] * len(paints),
        "tokens": [None] * len(paints),
    }
    return row, chunks


def _fault(told: dict[str, Any]) -> tuple[str | None, str | None]:
    if told["clicked"] is None:
        return "protocol", "the page took no click"
    if told["ended"] == "timeout":
        return "timeout", f"no end of the answer on the page after {len(told['paints'])} frames with text"
    if told["figures"].strip() == SILENT and told["text"]:
        return "server_event", f"the page says: {json.dumps(told['text'][:300], ensure_ascii=False)}"
    if told["figures"].strip() == SILENT or not told["paints"]:
        return "empty", "the page showed no answer"
    return None, None


def _counted(figures: str) -> int | None:
    """How many tokens the page says that the server counted: `first token 252 ms · 233.1 tokens/s · 24 tokens`."""
    head, _, last = figures.strip().rpartition(" · ")
    number, _, noun = last.partition(" ")
    return int(number) if head and noun in ("token", "tokens") and number.isdigit() else None
