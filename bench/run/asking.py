"""What is asked of a launched engine, in order: warm-up, the workload's first request, the rest, quality questions."""

from __future__ import annotations

import dataclasses
import http.client
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from bench.engines.engine import Checkpoint, Endpoint, LaunchSpec
from bench.errors import LaunchError
from bench.loadgen import prompts
from bench.loadgen.browser import Browser
from bench.loadgen.generator import LoadGenerator
from bench.loadgen.job import Driven, Job, Request
from bench.loadgen.questions import quality_requests
from bench.loadgen.remote import RemoteLoad
from bench.record.launches import WarmupStage
from bench.record.manifest import PlannedLaunch
from bench.record.schema import RequestStage
from bench.run.seen import Seen, Stand
from bench.scenario.model import Arrivals
from bench.scenario.variant import Variant
from bench.warmup.step import Stage, WarmupStrategy

# An engine may answer its health check and refuse work for a while; only such answers are worth another try.
NOT_YET = frozenset({404, 425, 502, 503})
RETRY_S = 0.05


class Answering(Protocol):
    """What is asked: a launched engine, or the address before several."""

    @property
    def endpoint(self) -> Endpoint:
        """Where it answers."""
        ...

    @property
    def spec(self) -> LaunchSpec:
        """How it was started."""
        ...

    def alive(self) -> bool:
        """Whether there is still something to ask."""
        ...

    def failure(self, phase: str) -> LaunchError:
        """Why there is not."""
        ...


@dataclass(slots=True)
class Asking:
    """The requests of one launch. Every answer goes into `seen`; `next_id` numbers them through all stages."""

    stand: Stand
    planned: PlannedLaunch
    variant: Variant
    checkpoint: Checkpoint
    server: Answering
    load: LoadGenerator | RemoteLoad | Browser
    seen: Seen
    next_id: int = 0
    # Called when the workload's first token has come, while that request is still answered, and at its end.
    heard: Callable[[], None] | None = None

    def warm_up(self, strategy: WarmupStrategy) -> None:
        """Send the strategy's stages; each is noted with its requests, seconds and the reason it ended."""
        workload = self.stand.scenario.model.workload
        for stage in strategy.stages(workload):
            self.stand.progress.phase(f"warming up: {stage.label}")
            self.seen.event("conductor", "warmup_stage", label=stage.label)
            self.stage(stage)
        self.seen.record.stamps["warmup_end"] = time.monotonic_ns()

    def stage(self, stage: Stage) -> None:
        """Send one stage, batch by batch, and note it."""
        begun = time.monotonic_ns()
        for path in stage.calls:
            self._call(path)
        ttfts: list[float] = []
        sent = ok = 0
        reason: str | None = None
        for _ in range(stage.max_batches):
            if not stage.requests:
                break
            batch = self._requests(
                "warmup",
                stage.requests,
                buckets=stage.buckets,
                output_tokens=stage.output_tokens,
                label=stage.label,
                body=stage.body,
            )
            arrivals = Arrivals(closed=stage.concurrency or self.concurrency)
            driven = self._drive(batch, arrivals)
            sent += len(batch)
            answered = [row for row in driven.requests if row["first_token_ns"] is not None]
            ok += sum(row["error_kind"] is None for row in answered)
            ttfts += [(row["first_token_ns"] - row["sent_ns"]) / 1e6 for row in answered]
            if stage.until is None or (reason := stage.until(ttfts)) is not None:
                break
        self.seen.record.warmup.append(
            WarmupStage(
                label=stage.label,
                requests=sent,
                ok=ok,
                start_ns=begun,
                end_ns=time.monotonic_ns(),
                reason=reason or ("gave up unsettled" if stage.until is not None else None),
            )
        )

    @property
    def concurrency(self) -> int:
        """Streams that the workload keeps open; one for an open arrival process without a cap."""
        arrivals = self.stand.scenario.model.workload.arrivals
        return arrivals.closed or arrivals.max_in_flight or 1

    def measure(self, between: Callable[[], None] | None = None) -> None:
        """Send the workload: its first request alone, then the others as the arrival process says.

        `between` is called after the first has been answered.
        """
        workload = self.stand.scenario.model.workload
        self.stand.progress.phase("measuring")
        first, rest = _first(self._requests("measured", workload.requests, measured=True))
        stamps = self.seen.record.stamps
        stamps["first_token"] = _earliest(self._drive(first, Arrivals(closed=1), first_token=self.heard).requests)
        if self.heard is not None:
            # However it ended, it is waited for no more.
            self.heard()
        if between is not None:
            between()
        answers = self._drive(rest, workload.arrivals, count=True).requests if rest else []
        stamps["second_token"] = _earliest(answers)
        if not any(row["error_kind"] is None for row in self.seen.tables.requests):
            worst = self.seen.tables.requests[-1]
            raise LaunchError("request_failed", f"no request was answered; the last said: {worst['error']}")

    def question(self) -> None:
        """Send the quality questions, if the scenario asks them; never part of the measurement.

        In the first block only: they are answered without chance, and what is compared is documents, not launches.
        """
        scenario = self.stand.scenario
        if scenario.model.quality is None or self.planned.block:
            return
        batch = quality_requests(
            scenario.model.quality,
            first_id=self.next_id,
            endpoint=self.server.endpoint,
            checkpoint=self.checkpoint,
            base=scenario.base,
        )
        self.next_id += len(batch)
        if batch:
            self.stand.progress.phase("asking for quality")
            self.seen.event("conductor", "quality", questions=len(batch))
            asked = {request.request_id: request.body.get("prompt") for request in batch}
            for document in self._drive(batch, Arrivals(closed=1), keep_logprobs=True).logprobs:
                # Which tokens were judged: the answers name them by their text, if at all.
                document["prompt"] = asked[document["request_id"]]

    def _requests(self, stage: RequestStage, count: int, **how: Any) -> tuple[Request, ...]:
        scenario = self.stand.scenario
        asked = prompts.Asked(
            scenario.model.workload, self.server.endpoint, self.checkpoint, scenario.base, self.planned.seed
        )
        made = prompts.requests(asked, prompts.Batch(stage, self.next_id, count, **how))
        self.next_id += len(made)
        return tuple(made)

    def _drive(
        self,
        batch: Sequence[Request],
        arrivals: Arrivals,
        *,
        count: bool = False,
        keep_logprobs: bool = False,
        first_token: Callable[[], None] | None = None,
    ) -> Driven:
        """Send a batch and keep what came back; the launch's first batch is tried until the engine takes it."""
        endpoint = self.server.endpoint
        job = Job(
            host=endpoint.host,
            port=endpoint.port,
            requests=tuple(batch),
            arrivals=arrivals,
            tls=endpoint.tls,
            headers=dict(endpoint.headers),
            timeout_s=self.stand.scenario.model.workload.timeout_s,
            seed=self.planned.seed,
            keep_logprobs=keep_logprobs,
        )
        driven = self.load.drive(job, self.stand.progress.requests if count else None, first_token)
        deadline = time.monotonic() + self.server.spec.ready_timeout_s
        while (
            not self.seen.tables.requests and _not_yet(driven) and time.monotonic() < deadline and self.server.alive()
        ):
            self.seen.event("conductor", "not_yet", status=driven.requests[0]["status"])
            time.sleep(RETRY_S)
            driven = self.load.drive(job, None, first_token)
        self._keep(driven)
        if not self.server.alive():
            raise self.server.failure("serving")
        return driven

    def _keep(self, driven: Driven) -> None:
        tables, stamps = self.seen.tables, self.seen.record.stamps
        tables.requests += driven.requests
        for column, values in driven.chunks.items():
            tables.chunks.setdefault(column, []).extend(values)
        tables.logprobs += driven.logprobs
        if stamps.get("ready") is None:
            stamps["ready"] = _earliest(driven.requests)

    def _call(self, path: str) -> None:
        endpoint = self.server.endpoint
        kind = http.client.HTTPSConnection if endpoint.tls else http.client.HTTPConnection
        connection = kind(endpoint.host, endpoint.port, timeout=self.stand.scenario.model.workload.timeout_s)
        try:
            connection.request("POST", endpoint.prefix + path, headers=dict(endpoint.headers))
            answer = connection.getresponse()
            text = answer.read().decode("utf-8", "replace")
        except (OSError, http.client.HTTPException) as error:
            raise LaunchError("request_failed", f"POST {path} failed: {error or type(error).__name__}") from error
        finally:
            connection.close()
        if answer.status != http.client.OK:
            raise LaunchError("unsupported", f"POST {path} answers {answer.status}: {text[:200]}")


def _first(asked: Sequence[Request]) -> tuple[tuple[Request, ...], tuple[Request, ...]]:
    """The workload's first request with the turns that hang on it, and all others."""
    chain = {asked[0].request_id}
    for request in asked[1:]:
        if request.after in chain:
            chain.add(request.request_id)
    head = dataclasses.replace(asked[0], stage="first", measured=False)
    return (
        (head, *(request for request in asked[1:] if request.request_id in chain)),
        tuple(request for request in asked[1:] if request.request_id not in chain),
    )


def _earliest(rows: Sequence[dict[str, Any]]) -> int | None:
    return min((row["first_token_ns"] for row in rows if row["first_token_ns"] is not None), default=None)


def _not_yet(driven: Driven) -> bool:
    return all(row["error_kind"] == "connect" or row["status"] in NOT_YET for row in driven.requests)
