"""A variant: one cell of the matrix, with all that a launch of it needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench.scenario.model import EngineSetting, Model, PageCache, Quantization, Start


@dataclass(frozen=True, slots=True)
class WarmupStep:
    """One strategy and its options."""

    strategy: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Slowdown:
    """A stream made slower on purpose by a proxy, as shares: 0.1 is 10 %. With zeros the proxy only passes on."""

    ttft: float = 0.0
    itl: float = 0.0


@dataclass(frozen=True, slots=True)
class Variant:
    """One cell of the matrix.

    `factors` holds every factor's level as text: engine, model, quantization, warmup, page_cache and the matrix's
    `args.*`; `start` too where the scenario names it. `engine.args` already holds the variant's own `args.*` levels.
    """

    id: str
    factors: dict[str, str]
    engine_name: str
    engine: EngineSetting
    model_name: str
    model: Model
    quantization: Quantization
    warmup_name: str
    warmup: tuple[WarmupStep, ...]
    page_cache: PageCache
    slowdown: Slowdown | None = None
    start: Start = "exec"

    def matches(self, selector: Mapping[str, Any]) -> bool:
        """Whether every factor named in the selector has that level here."""
        return agrees(self.factors, selector)


def level_text(level: Any) -> str:
    """A factor's level as it is written in a scenario."""
    return str(level).lower() if isinstance(level, bool) else str(level)


def agrees(factors: Mapping[str, Any], selector: Mapping[str, Any]) -> bool:
    """Whether every factor named in the selector has that level among these factors."""
    return all(name in factors and level_text(factors[name]) == level_text(level) for name, level in selector.items())


def counterparts(variants: Sequence[Variant], selector: Mapping[str, Any], variant: Variant) -> tuple[Variant, ...]:
    """Of the variants that a selector names, those that share most other factors with this one; more than one is a tie.

    `quality: {against: {quantization: fp16}}` names several references where the matrix has several engines: each
    variant is compared with the one of its own engine.
    """
    named = [one for one in variants if one.matches(selector)]

    def shared(one: Variant) -> int:
        return sum(one.factors.get(name) == level for name, level in variant.factors.items())

    most = max(map(shared, named), default=0)
    return tuple(one for one in named if shared(one) == most)


# Factors that say where a process comes from and with what in its memory: none of them changes what it answers.
OF_START = ("start", "args.preload")


def twin_of(variant: Variant, variants: Sequence[Variant]) -> Variant | None:
    """The first of these variants that is started by exec and else as this one is."""
    alike = but_for_start(variant.factors)
    return next((one for one in variants if one.start == "exec" and but_for_start(one.factors) == alike), None)


def but_for_start(factors: Mapping[str, str]) -> dict[str, str]:
    """What a variant shares with the one that differs from it in nothing but where its process comes from."""
    return {name: level for name, level in factors.items() if name not in OF_START}
