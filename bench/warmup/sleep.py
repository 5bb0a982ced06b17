"""vLLM's sleep mode: the engine put to sleep and woken before it is measured."""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydantic import Field

from bench.engines.engine import LaunchTrace
from bench.engines.logs import messages
from bench.errors import LaunchError
from bench.record.launches import Check
from bench.scenario.model import Workload
from bench.warmup.step import HostState, Prepared, Stage, Step, StepOptions, answered, buckets

_WOKE = re.compile(r"It took (?P<s>[\d.]+) seconds to wake up")
_SLEPT = re.compile(r"It took (?P<s>[\d.]+) seconds to fall asleep")


class SleepWake(Step):
    """Ask once, sleep, wake: the first measured request then meets an engine that woke instead of starting."""

    name = "sleep-wake"

    class Options(StepOptions):
        """What is asked before sleeping."""

        output_tokens: int = Field(8, ge=1, description="tokens of the request before sleeping")

    def __init__(self, options: Options) -> None:
        self.options = options

    def prepare(self, state: HostState) -> Prepared:
        """Sleep mode must be asked for at start; its controls are development endpoints."""
        if state.variant.engine.engine != "vllm":
            raise LaunchError("unsupported", f"sleep-wake needs vLLM, not {state.variant.engine.engine}")
        return Prepared(args={"enable_sleep_mode": True}, env={"VLLM_SERVER_DEV_MODE": "1"})

    def stages(self, workload: Workload) -> Iterator[Stage]:
        """One request to make it whole, then sleep and wake. Level 1: the weights wait in host memory."""
        yield Stage(f"{self.name}/before", 1, buckets(workload)[:1], self.options.output_tokens)
        calls = ("/sleep?level=1", "/wake_up")
        yield Stage(f"{self.name}/wake", 0, (), self.options.output_tokens, calls=calls)

    def verify(self, trace: LaunchTrace, prepared: Prepared) -> list[Check]:
        """The engine's own words that it slept and woke."""
        text = "\n".join(message.text for message in messages(trace.log))
        slept, woke = _SLEPT.search(text), _WOKE.search(text)
        evidence = "; ".join(found[0] for found in (slept, woke) if found) or "no word of sleeping or waking in the log"
        check = Check(
            name=f"warmup.{self.name}.state",
            status="ok" if slept and woke else "violated",
            evidence=evidence,
            limit="fell asleep and woke up",
            remedy=None if slept and woke else "sleep mode needs a CUDA build of vLLM 0.8.3 or newer",
        )
        return [*answered(self.name, trace.warmup), check]
