"""Strategies that warm by asking: none at all, n of one shape, one per shape, until the answers are steady."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from statistics import median
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from bench.scenario.model import Workload
from bench.warmup.step import Stage, Step, StepOptions, buckets

SAMPLING: dict[str, dict[str, float | int]] = {
    "greedy": {"temperature": 0.0},
    "sampled": {"temperature": 0.8, "top_p": 0.9, "top_k": 20},
}


class Nothing(Step):
    """No warm-up: the first request of the workload meets the engine as it comes up."""

    name = "none"

    class Options(StepOptions):
        """Takes none."""

    def __init__(self, options: Options) -> None:
        self.options = options


class Requests(Step):
    """n requests of one shape."""

    name = "requests"

    class Options(StepOptions):
        """How many, and of which shape."""

        n: PositiveInt = Field(3, description="requests to send")
        tokens: PositiveInt | None = Field(None, description="prompt tokens; the workload's shortest by default")
        output_tokens: PositiveInt | None = Field(None, description="tokens to generate; as the workload by default")

    def __init__(self, options: Options) -> None:
        self.options = options

    def stages(self, workload: Workload) -> Iterator[Stage]:
        """One stage."""
        yield Stage(
            label=self.name,
            requests=self.options.n,
            buckets=(self.options.tokens or buckets(workload)[0],),
            output_tokens=self.options.output_tokens or workload.output_tokens,
        )


class MultiStage(Step):
    """Short, medium and long prompts: every length bucket meets every sampling path before the measurement does."""

    name = "multi-stage"

    class Options(StepOptions):
        """Which shapes, and how often each."""

        per_bucket: PositiveInt = Field(2, description="requests per length bucket and sampling path")
        tokens: list[PositiveInt] | None = Field(
            None, min_length=1, description="length buckets; the workload's by default"
        )
        sampling: list[Literal["greedy", "sampled"]] = Field(["greedy", "sampled"], min_length=1)
        output_tokens: PositiveInt = Field(8, description="tokens to generate per request")

    def __init__(self, options: Options) -> None:
        self.options = options

    def stages(self, workload: Workload) -> Iterator[Stage]:
        """One stage per sampling path and bucket, short prompts first."""
        for bucket in sorted(self.options.tokens or buckets(workload)):
            for path in self.options.sampling:
                yield Stage(
                    label=f"{self.name}/{bucket} tokens, {path}",
                    requests=self.options.per_bucket,
                    buckets=(bucket,),
                    output_tokens=self.options.output_tokens,
                    body=SAMPLING[path],
                )


class UntilSteady(Step):
    """Ask until two consecutive windows agree, after every length bucket has been seen twice."""

    name = "until-steady"

    class Options(StepOptions):
        """When two windows agree, and when to give up."""

        window: PositiveInt = Field(10, description="requests per window, rounded up to a multiple of the buckets")
        within: PositiveFloat = Field(0.03, description="relative difference of two windows' medians that still agrees")
        max_requests: PositiveInt = Field(100, description="give up after this many")
        max_s: PositiveFloat = Field(300.0, description="give up after this many seconds")
        output_tokens: PositiveInt = Field(8, description="tokens to generate per request")

    def __init__(self, options: Options) -> None:
        self.options = options

    def stages(self, workload: Workload) -> Iterator[Stage]:
        """Coverage first, so that a shape's one-time cost cannot pass for a trend; then windows."""
        options, shapes = self.options, buckets(workload)
        yield Stage(f"{self.name}/coverage", 2 * len(shapes), shapes, options.output_tokens)
        window = -(-options.window // len(shapes)) * len(shapes)
        yield Stage(
            label=f"{self.name}/windows",
            requests=window,
            buckets=shapes,
            output_tokens=options.output_tokens,
            until=Settled(window, options.within, options.max_s),
            max_batches=max(2, options.max_requests // window),
        )


class Settled:
    """Has it settled? The rule that ends a warm-up; the verdict over a whole launch is analyse/steady.py's.

    Two consecutive windows of TTFTs (ms) whose medians differ by less than `within`, or the time is up.

    Called after each batch of `window` requests with all TTFTs of the launch's warm-up so far, oldest first.
    Returns the reason to stop, or None.
    """

    def __init__(
        self, window: int, within: float, max_s: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.window, self.within, self.max_s = window, within, max_s
        self._clock = clock
        self._began = clock()
        self._earlier: int | None = None

    def __call__(self, ttfts_ms: Sequence[float]) -> str | None:
        """The reason to stop, or None to go on."""
        if self._clock() - self._began > self.max_s:
            return f"gave up: not steady after {self.max_s:g} s"
        if self._earlier is None:
            # Coverage and the steps before it came before the first window and are not part of any.
            self._earlier = len(ttfts_ms) - self.window
        mine = ttfts_ms[self._earlier :]
        if len(mine) < 2 * self.window:
            return None
        before, after = median(mine[-2 * self.window : -self.window]), median(mine[-self.window :])
        if before <= 0 or abs(after - before) / before >= self.within:
            return None
        change = abs(after - before) / before
        return f"steady: medians of two windows of {self.window} differ by {change:.1%} ({before:.3g} → {after:.3g} ms)"
