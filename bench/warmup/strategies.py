"""Warm-up steps by name, checked, and put together in order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from bench import plugins
from bench.engines.engine import LaunchTrace
from bench.errors import UsageError
from bench.record.launches import Check
from bench.scenario.model import Workload
from bench.scenario.variant import WarmupStep
from bench.warmup.compiled import FreshCaches
from bench.warmup.step import HostState, Prepared, Stage, StepType, WarmupStrategy, problems


def build(steps: Sequence[WarmupStep]) -> WarmupStrategy:
    """The steps as one strategy, in order; UsageError names every wrong option, UnknownName a wrong name."""
    kinds: list[StepType] = [plugins.load("warmups", step.strategy) for step in steps]
    wrong = [
        f"warm-up {step.strategy!r}, option {option!r}: {message}"
        for step, kind in zip(steps, kinds, strict=True)
        for option, message in problems(kind.Options, step.options)
    ]
    if wrong:
        raise UsageError("\n".join(wrong), hint="`bench plugins` lists the strategies; docs/engines.md their options")
    made = [kind(kind.Options.model_validate(step.options)) for step, kind in zip(steps, kinds, strict=True)]
    names = [step.strategy for step in steps]
    if not any(getattr(kind, "owns_compile_caches", False) for kind in kinds):
        # Whoever says nothing about compile caches starts without them, and that is verified too.
        made.insert(0, FreshCaches())
        names.insert(0, FreshCaches.name)
    return Composite(dict(zip(_distinct(names), made, strict=True)))


class Composite:
    """Steps in order: later flags win, stages follow one another, each step verifies its own part."""

    def __init__(self, steps: Mapping[str, WarmupStrategy]) -> None:
        self.steps = dict(steps)

    def prepare(self, state: HostState) -> Prepared:
        """Prepare every step; `state` of the result is keyed by step."""
        args: dict[str, Any] = {}
        env: dict[str, str] = {}
        evidence: dict[str, Any] = {}
        at_spawn: list[Callable[[], object]] = []
        for name, step in self.steps.items():
            prepared = step.prepare(state)
            args |= prepared.args
            env |= prepared.env
            at_spawn += prepared.at_spawn
            if prepared.state:
                evidence[name] = dict(prepared.state)
        return Prepared(args, env, evidence, at_spawn)

    def stages(self, workload: Workload) -> Iterator[Stage]:
        """All stages, in order of the steps."""
        for step in self.steps.values():
            yield from step.stages(workload)

    def verify(self, trace: LaunchTrace, prepared: Prepared) -> list[Check]:
        """All checks; each step sees the state that it left itself."""
        checks = []
        for name, step in self.steps.items():
            left = prepared.state.get(name)
            own = Prepared(prepared.args, prepared.env, left if isinstance(left, Mapping) else {})
            checks += step.verify(trace, own)
        return checks


def _distinct(names: Sequence[str]) -> list[str]:
    seen: dict[str, int] = {}
    out = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        out.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return out
