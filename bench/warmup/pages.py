"""Weights read into the page cache before the engine is started, as a step with a cost of its own."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bench.engines.engine import LaunchTrace
from bench.record.schema import Check
from bench.warmup.caches import establish_page_cache
from bench.warmup.step import Step, StepOptions
from bench.warmup.strategy import HostState, Prepared


class PageCache(Step):
    """The weight files' state in the page cache: prefetched, or dropped."""

    name = "page-cache"

    class Options(StepOptions):
        """Which state."""

        state: Literal["prefetch", "drop"] = Field("prefetch", description="the state to bring the weight files into")

    def __init__(self, options: Options) -> None:
        self.options = options

    def prepare(self, state: HostState) -> Prepared:
        """Establish and measure."""
        return Prepared(state=establish_page_cache(state.checkpoint, self.options.state))

    def verify(self, trace: LaunchTrace, prepared: Prepared) -> list[Check]:
        """The share that was resident just before spawn."""
        return [page_cache_check(prepared.state)]


def page_cache_check(evidence: object) -> Check:
    """The verdict on `establish_page_cache`'s evidence: ok, violated, or unknown where mincore cannot tell."""
    seen = dict(evidence) if isinstance(evidence, dict) else {}
    mode, share, achieved = seen.get("mode"), seen.get("resident"), seen.get("achieved")
    words = "resident share unknown" if share is None else f"{share:.1%} of the weight bytes resident before spawn"
    missed = achieved is False
    return Check(
        name="page_cache.state",
        status="violated" if missed else "ok" if achieved or mode == "leave" else "unknown",
        evidence=f"{words} ({seen.get('method', 'not established')})",
        limit={"drop": "below 2 % resident", "prefetch": "above 98 % resident"}.get(str(mode)),
        remedy="another process maps the files, or memory is short: close it, or run as root" if missed else None,
    )
