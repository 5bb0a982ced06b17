"""One step of a warm-up: its options, and what a step does when it has nothing special to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from bench.engines.engine import LaunchTrace
from bench.record.schema import Check
from bench.scenario.model import Workload
from bench.warmup.strategy import HostState, Prepared, Stage, WarmupStrategy

DEFAULT_BUCKETS = (16, 128, 512)


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


def answered(name: str, warmup: Sequence[Mapping[str, Any]]) -> list[Check]:
    """One check over the stages that carry the step's name: all of their requests were answered."""
    mine = [stage for stage in warmup if str(stage.get("label", "")).split("/")[0] == name]
    if not mine:
        return []
    sent = sum(int(stage.get("requests", 0)) for stage in mine)
    good = sum(int(stage.get("ok", 0)) for stage in mine)
    reasons = "; ".join(f"{stage['label']}: {stage['reason']}" for stage in mine if stage.get("reason"))
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
