"""An engine that answers first while the one that the variant names starts and warms beside it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import Field, field_validator

from bench.scenario.matrix import step
from bench.scenario.model import Model, Scalar, Start
from bench.scenario.sources import mistake
from bench.scenario.variant import Variant
from bench.warmup.step import Step, StepOptions


class HandOver(Step):
    """Answer with a quicker engine until this one is warm; the other steps are those of the engine that stays.

    The launch carries it out; what is left here to verify is that every request sent meanwhile was answered.
    """

    name = "hand-over"

    class Options(StepOptions):
        """In what the engine that answers first differs."""

        args: dict[str, Scalar | None] = Field(
            default_factory=dict, description="flags in which the first engine differs; null takes a flag away"
        )
        model: str | None = Field(
            None, description="source of another model that the first engine serves: the hand-over is a swap then"
        )
        start: Start = Field("exec", description="where the first engine's process comes from")
        warmup: list[str | dict[str, Any]] = Field(
            default=["none"], description="how the first engine is warmed: steps as under `warmups`"
        )

        @field_validator("model")
        @classmethod
        def _source(cls, given: str | None) -> str | None:
            if given is not None and (wrong := mistake(given)) is not None:
                raise ValueError(wrong)
            return given

        @field_validator("warmup")
        @classmethod
        def _no_third(cls, given: list[str | dict[str, Any]]) -> list[str | dict[str, Any]]:
            if any(
                step(item).strategy == HandOver.name for item in given if isinstance(item, str) or "strategy" in item
            ):
                raise ValueError("the engine that answers first has none before it")
            return given

    def __init__(self, options: Options) -> None:
        self.options = options


def predecessor(variant: Variant) -> Variant | None:
    """The engine that answers first, where the variant's warm-up is a hand-over."""
    given = next((one.options for one in variant.warmup if one.strategy == HandOver.name), None)
    if given is None:
        return None
    options = HandOver.Options.model_validate(given)
    args = {name: value for name, value in (variant.engine.args | options.args).items() if value is not None}
    engine = variant.engine.model_copy(update={"args": args})
    first = replace(
        variant,
        id=f"{variant.id}.first",
        # Its own: it has no twin among the variants of the plan.
        factors=variant.factors | {"warmup": f"{variant.warmup_name}.first", "start": options.start},
        engine=engine,
        warmup=tuple(step(item) for item in options.warmup),
        start=options.start,
    )
    if options.model is None:
        return first
    return replace(
        first,
        factors=first.factors | {"model": options.model},
        model=Model(source=options.model),
        # By one name, whichever model answers: requests are the same on both sides of the change.
        engine=engine.model_copy(update={"served_model": engine.served_model or variant.model_name}),
    )
