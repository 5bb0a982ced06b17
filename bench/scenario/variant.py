"""A variant: one cell of the matrix, with all that a launch of it needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from bench.scenario.model import Engine, Model, PageCache, Quantization


@dataclass(frozen=True, slots=True)
class WarmupStep:
    """One strategy and its options."""

    strategy: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Variant:
    """One cell of the matrix.

    `factors` holds the levels that tell variants apart (factor name → level, as text), `engine.args` already holds the
    variant's own `args.*` levels.
    """

    id: str
    factors: dict[str, str]
    engine_name: str
    engine: Engine
    model_name: str
    model: Model
    quantization: Quantization
    warmup_name: str
    warmup: tuple[WarmupStep, ...]
    page_cache: PageCache

    def matches(self, selector: dict[str, Any]) -> bool:
        """Whether every factor named in the selector has that level here."""
        return all(self.factors.get(name) == str(level) for name, level in selector.items())
