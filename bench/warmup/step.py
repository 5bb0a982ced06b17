"""The warm-up's contract, and one step of it: its options, and what it does when it has nothing special to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from bench.engines.engine import Checkpoint, LaunchTrace
from bench.record.launches import Check, WarmupStage
from bench.scenario.model import Workload
from bench.scenario.variant import Variant

DEFAULT_BUCKETS = (16, 128, 512)


@dataclass(frozen=True, slots=True)
class HostState:
    """What a strategy may look at and change before the engine starts. `caches` survives from launch to launch."""

    variant: Variant
    checkpoint: Checkpoint
    caches: Path
    launch_folder: Path


@dataclass(frozen=True, slots=True)
class Prepared:
    """What was done before spawn: flags and variables for the engine, and the state left behind, as evidence.

    `at_spawn` is called once the engine has been spawned, and returns at once: what is to happen beside its start.
    """

    args: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    state: Mapping[str, object] = field(default_factory=dict)
    at_spawn: Sequence[Callable[[], object]] = ()

    def spawned(self) -> None:
        """Begin what is to happen beside the engine's start."""
        for begin in self.at_spawn:
            begin()


@dataclass(frozen=True, slots=True)
class Stage:
    """A batch of warm-up requests. The conductor turns it into requests with prompts of its own.

    `until` sees all TTFTs of the warm-up so far (ms) and returns the reason to stop, or None to send the batch again,
    at most `max_batches` times. It is a rule handed down: the stage computes nothing itself.
    """

    label: str
    requests: int
    buckets: Sequence[int]
    output_tokens: int
    concurrency: int | None = None
    body: Mapping[str, Any] = field(default_factory=dict)
    until: Callable[[Sequence[float]], str | None] | None = None
    max_batches: int = 1
    # Paths POSTed to the server, in order, before the batch is sent, e.g. /sleep?level=1; each must answer 200.
    calls: Sequence[str] = ()


class WarmupStrategy(Protocol):
    """Before spawn, after ready, and: did it really happen?"""

    def prepare(self, state: HostState) -> Prepared:
        """Caches and flags before the engine is started."""
        ...

    def stages(self, workload: Workload) -> Iterator[Stage]:
        """Requests to send once the engine answers; recorded, never measured."""
        ...

    def verify(self, trace: LaunchTrace, prepared: Prepared) -> list[Check]:
        """Evidence or doubt that the state asked for was the state had."""
        ...


class StepOptions(BaseModel):
    """Options of a strategy: unknown names and wrong types are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class StepType(Protocol):
    """What an entry point of bench.warmups names: a class with an options model, made from those options."""

    Options: type[StepOptions]

    def __call__(self, options: Any) -> WarmupStrategy:
        """The strategy with these options."""
        ...


class Step:
    """A step that changes nothing and sends nothing; strategies override what they are about.

    `name` is the registered name and the first part of every stage's label.
    """

    name = "none"

    def prepare(self, state: HostState) -> Prepared:
        """Leave everything as it is."""
        return Prepared()

    def stages(self, workload: Workload) -> Iterator[Stage]:
        """Send nothing."""
        return iter(())

    def verify(self, trace: LaunchTrace, prepared: Prepared) -> list[Check]:
        """Whether every warm-up request of this step was answered."""
        return answered(self.name, trace.warmup)


def answered(name: str, warmup: Sequence[WarmupStage]) -> list[Check]:
    """One check over the stages that carry the step's name: all of their requests were answered."""
    mine = [stage for stage in warmup if stage.label.split("/")[0] == name]
    if not mine:
        return []
    sent = sum(stage.requests for stage in mine)
    good = sum(stage.ok for stage in mine)
    reasons = "; ".join(f"{stage.label}: {stage.reason}" for stage in mine if stage.reason)
    evidence = f"{good} of {sent} warm-up requests answered" + (f" ({reasons})" if reasons else "")
    check = Check(
        name=f"warmup.{name}",
        status="ok" if good == sent else "violated",
        evidence=evidence,
        limit="every warm-up request answered",
        remedy=None if good == sent else "the engine's log says why they failed; the launch is not warm",
    )
    return [check]


def problems(step: type[StepOptions], options: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What is wrong with options, as (option, message); empty if nothing is."""
    try:
        step.model_validate(dict(options))
    except ValidationError as error:
        return [(".".join(str(part) for part in item["loc"]), _words(item["msg"], step)) for item in error.errors()]
    return []


def _words(message: str, step: type[StepOptions]) -> str:
    if message.startswith("Extra inputs"):
        return f"no such option: {', '.join(step.model_fields) or 'it takes none'}"
    return message[:1].lower() + message[1:]


def buckets(workload: Workload) -> tuple[int, ...]:
    """The workload's prompt lengths in tokens, ascending; three common ones where the workload does not say."""
    tokens = getattr(workload.prompts, "tokens", None)
    if tokens is None:
        return DEFAULT_BUCKETS
    return tuple(sorted({tokens} if isinstance(tokens, int) else set(tokens)))
