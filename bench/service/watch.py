"""One endpoint under watch: when it is asked, what that may cost, and what is made of its answers."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from time import monotonic, monotonic_ns
from typing import Any

from bench.loadgen.clock import offset_ns
from bench.programs.ready_process import CHAT
from bench.service.canary import Caller, Outcome
from bench.service.detector import Detector, patience
from bench.service.exposition import LONGEST_LABEL, Exposed
from bench.service.states import FIGURES, LEVELS, STATES, judges
from bench.service.vitals import QUANTILES, EngineProcesses, Vitals
from bench.service.watchlist import Bound, Stream, WatchedEndpoint

# What keeps a round from being asked.
SKIPPED = ("hanging", "budget", "share")
# figure → its gauge, the factor from its limit's unit to the gauge's, the gauge of its limits and their first label.
_GAUGES: Mapping[str, tuple[str, float, str, tuple[str, ...]]] = {
    "latency": ("firsttoken_latency_seconds", 1e-3, "firsttoken_threshold_seconds", ("latency",)),
    "first_after_idle": (
        "firsttoken_first_after_idle_seconds",
        1e-3,
        "firsttoken_threshold_seconds",
        ("first_after_idle",),
    ),
    "throughput": (
        "firsttoken_throughput_tokens_per_second",
        1.0,
        "firsttoken_threshold_tokens_per_second",
        (),
    ),
    "memory": ("firsttoken_memory_bytes", 2.0**20, "firsttoken_threshold_bytes", ()),
    "processor": ("firsttoken_processor_cores", 1.0, "firsttoken_threshold_cores", ()),
    "availability": ("firsttoken_availability_ratio", 1.0, "firsttoken_threshold_ratio", ()),
}
# Where nobody says otherwise: one of the last twenty may fail.
AVAILABILITY = Bound(warning=0.95, alarm=0.8)

# Takes one line for the journal.
Write = Callable[[Mapping[str, Any]], None]
# Hears of a change: endpoint, name, detail.
Changed = Callable[[str, str, Mapping[str, Any]], None]
# Takes the series as they are after a round.
Shown = Callable[[Exposed], None]


class Watch:
    """One endpoint. `loop` asks it for ever; everything that it sees goes through `write`, `changed` and `shown`."""

    def __init__(
        self, name: str, endpoint: WatchedEndpoint, key: str | None, write: Write, changed: Changed, shown: Shown
    ) -> None:
        self.name, self.endpoint = name, endpoint
        self.caller = Caller(endpoint, key)
        self.vitals = Vitals(endpoint.streams)
        limits = endpoint.limits
        if limits.availability is None:
            limits = limits.model_copy(update={"availability": AVAILABILITY})
        self.judges = judges(limits)
        self.detector = Detector(patience(endpoint.interval_s))
        self.exposed = Exposed(name)
        self.last: Outcome | None = None
        self.skipped = dict.fromkeys(SKIPPED, 0)
        self.spent = 0
        self._day = ""
        self._write, self._changed, self._shown = write, changed, shown
        target = endpoint.target
        self._processes = EngineProcesses(target.host, target.port, endpoint.process)
        self._round: asyncio.Task[None] | None = None
        self._ended: float | None = None
        self._rest_until = 0.0
        self._draw = random.Random()
        self._limit = limits.latency_ms
        self._show_limits()

    async def loop(self, at: Callable[[], datetime]) -> None:
        """Ask round after round, at a jittered pace that neither an endless answer nor a step of the clock changes."""
        interval, jitter = self.endpoint.interval_s, self.endpoint.jitter
        # Not all endpoints at once.
        due = monotonic() + self._draw.uniform(0, min(interval, 2.0))
        try:
            while True:
                await asyncio.sleep(max(due - monotonic(), 0))
                due = max(due + interval * self._draw.uniform(1 - jitter, 1 + jitter), monotonic())
                self.begin(at())
        finally:
            if self._round is not None:
                self._round.cancel()
                with suppress(asyncio.CancelledError):
                    await self._round

    def begin(self, now: datetime, streams: tuple[Stream, ...] = ()) -> asyncio.Task[None] | None:
        """Begin a round, of the streams given or of all; None, counted, where something keeps it from being asked."""
        if (day := now.strftime("%Y-%m-%d")) != self._day:
            self._day, self.spent = day, 0
        chosen = streams or tuple(self.endpoint.streams)
        needs = sum(self.endpoint.tokens_of(stream) for stream in chosen)
        why = None
        if self._round is not None and not self._round.done():
            why = "hanging"
        elif self.spent + needs > self.endpoint.tokens_per_day:
            why = "budget"
        elif monotonic() < self._rest_until:
            why = "share"
        if why is not None:
            self.skipped[why] += 1
            self.exposed.count("firsttoken_canaries_skipped", why)
            self._shown(self.exposed)
            return None
        self._round = asyncio.create_task(self._ask(chosen, now))
        return self._round

    async def _ask(self, streams: tuple[Stream, ...], now: datetime) -> None:
        try:
            await self._asked(streams, now)
        except Exception as error:
            # A fault of our own in one round is told, and costs neither the others nor the rounds to come.
            self._changed(self.name, "fault", {"error": f"{type(error).__name__}: {error}"})

    async def _asked(self, streams: tuple[Stream, ...], now: datetime) -> None:
        began = monotonic()
        for stream in streams:
            idle = None if self._ended is None else monotonic() - self._ended
            outcome = await self.caller.ask(stream)
            self._ended = monotonic()
            self._take(outcome, idle, now.timestamp() + monotonic() - began)
            if not outcome.ok:
                break
        busy = self._ended - began if self._ended is not None else 0.0
        self._rest_until = monotonic() + busy * (1 / self.endpoint.share - 1)
        memory, cores, reason = await asyncio.to_thread(self._processes.read)
        self.vitals.machine(memory, cores, reason)
        if memory is not None:
            line = {"kind": "machine", "t_ns": monotonic_ns(), "memory_mib": memory, "processor_cores": cores}
            self._note(line, now)
        for figure, value in (("memory", memory), ("processor", cores)):
            self._judge(figure, value)
        self._show()

    def _take(self, outcome: Outcome, idle_s: float | None, at: float) -> None:
        self.last, self.spent = outcome, self.spent + outcome.tokens
        line: dict[str, Any] = {
            "kind": "canary",
            "row": outcome.row,
            "result": outcome.result,
            "model": self.caller.model,
        }
        line |= {"idle_s": idle_s if outcome.stream == "idle" else None, "offset_ns": offset_ns()}
        self._note(line, datetime.fromtimestamp(at, UTC))
        self._expose(outcome, idle_s, at)
        for figure, value in self.vitals.take(outcome).items():
            self._judge(figure, value)
        ttft = outcome.ttft_ms
        if outcome.stream == "warm" and ttft is not None and self.detector.take(ttft, self._draw.random() or 0.5):
            self.exposed.count("firsttoken_changes")
            self._changed(self.name, "slower", {"ttft_ms": round(ttft, 1), "advice": True, "seen": self.detector.seen})

    def _judge(self, figure: str, value: float | None) -> None:
        judge = self.judges[figure]
        before = judge.state
        if judge.take(value) and value is not None and judge.bound is not None:
            detail = {"figure": figure, "from": before, "to": judge.state, "value": round(value, 4)}
            self._changed(self.name, "state", detail | {"warning": judge.bound.warning, "alarm": judge.bound.alarm})

    def _note(self, line: Mapping[str, Any], now: datetime) -> None:
        self._write({"endpoint": self.name, "wall": now.isoformat(timespec="milliseconds"), **line})

    def event(self, name: str, detail: Mapping[str, Any], now: datetime) -> None:
        """Put an event into the journal."""
        text = json.dumps(detail, ensure_ascii=False)
        self._note({"kind": "event", "t_ns": monotonic_ns(), "name": name, "detail": text}, now)

    def _expose(self, outcome: Outcome, idle_s: float | None, at: float) -> None:
        shown, row = self.exposed, outcome.row
        shown.count("firsttoken_canaries", outcome.stream, outcome.result)
        shown.gauge("firsttoken_canary_success", float(outcome.ok))
        shown.gauge("firsttoken_last_canary_timestamp_seconds", at)
        if outcome.ok:
            shown.gauge("firsttoken_last_success_timestamp_seconds", at)
        for name, value in (
            ("firsttoken_ttft_seconds", outcome.ttft_ms),
            ("gen_ai_client_operation_time_to_first_chunk_seconds", outcome.since_sent_ms("first_chunk_ns")),
            ("firsttoken_tpot_seconds", outcome.tpot_ms),
        ):
            if outcome.ok and value is not None:
                shown.observe(name, outcome.stream, value / 1e3)
        if not outcome.ok or outcome.stream == "warm":
            good = outcome.ok and (self._limit is None or (outcome.ttft_ms or 0) <= self._limit.warning)
            shown.count("firsttoken_judged_canaries")
            shown.count("firsttoken_good_canaries", by=float(good))
        if outcome.stream == "idle":
            shown.gauge("firsttoken_idle_seconds", idle_s)
        if outcome.stream == "cached":
            shown.gauge("firsttoken_cached_tokens", row["cached_tokens"])
        lag = row["client_lag_us"]
        shown.gauge("firsttoken_client_lag_seconds", None if lag is None else lag / 1e6)

    def _show(self) -> None:
        shown = self.exposed
        for figure, (gauge, factor, _, _) in _GAUGES.items():
            value = self.vitals.now[figure].value
            shown.gauge(gauge, None if value is None else value * factor)
            state = self.judges[figure].state
            shown.gauge("firsttoken_state", None if state == "unknown" else float(LEVELS.index(state)), figure)
        for stream in self.endpoint.streams:
            for share in QUANTILES:
                value = self.vitals.quantile(stream, share)
                shown.gauge(
                    "firsttoken_ttft_window_seconds", None if value is None else value / 1e3, stream, str(share)
                )
        shown.gauge("firsttoken_budget_used_tokens", self.spent)
        shown.gauge("firsttoken_change_evidence_ratio", self.detector.evidence / self.detector.threshold)
        shown.info(self.caller.model or "", self.endpoint.target.url)
        self._shown(shown)

    def _show_limits(self) -> None:
        for figure, (_, factor, gauge, labels) in _GAUGES.items():
            if (bound := self.judges[figure].bound) is not None:
                for level, value in (("warning", bound.warning), ("alarm", bound.alarm)):
                    self.exposed.gauge(gauge, value * factor, *labels, level)
        self.exposed.gauge("firsttoken_budget_tokens", self.endpoint.tokens_per_day)
        self.exposed.gauge("firsttoken_canary_interval_seconds", self.endpoint.interval_s)
        self.exposed.count("firsttoken_changes", by=0)
        for reason in SKIPPED:
            self.exposed.count("firsttoken_canaries_skipped", reason, by=0)
        self._shown(self.exposed)

    def attributes(self) -> dict[str, str | int]:
        """What the GenAI conventions want beside a client's figures, as far as it is known."""
        target = self.endpoint.target
        known: dict[str, str | int] = {"server.address": target.host, "server.port": target.port}
        # The conventions list no provider for servers that only speak the protocol.
        known["gen_ai.provider.name"] = "openai_compatible"
        if self.caller.path is not None:
            known["gen_ai.operation.name"] = "chat" if self.caller.path == CHAT else "text_completion"
        if self.caller.model is not None:
            known["gen_ai.request.model"] = self.caller.model[:LONGEST_LABEL]
        return known

    def kept(self) -> dict[str, Any]:
        """What survives a restart: the detector, the day's tokens, the states."""
        states = {figure: judge.state for figure, judge in self.judges.items()}
        return {"detector": self.detector.kept(), "day": self._day, "spent": self.spent, "states": states}

    def resume(self, kept: Mapping[str, Any]) -> None:
        """Go on from there; what does not fit any more is left aside."""
        self.detector.resume(kept["detector"])
        self._day, self.spent = str(kept["day"]), int(kept["spent"])
        for figure, state in kept["states"].items():
            if figure in FIGURES and state in STATES and self.judges[figure].bound is not None:
                self.judges[figure].state = state
