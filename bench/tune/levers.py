"""Levers become candidates: the start with some of them turned, each level a part of a variant laid over it."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import reduce

from bench.errors import UsageError
from bench.scenario.matrix import MAX_CELLS, MAX_ID, slug, steps
from bench.scenario.model import Overlay, Scalar, ScenarioModel
from bench.scenario.turns import ENV, FACTOR_LEVERS, levels
from bench.scenario.variant import Variant, WarmupStep, level_text

START = "start"
NONE = "none"

Changes = Mapping[str, Scalar]
# Up to so many candidates every one is raced; more are screened.
EVERY = 8
# Where each lever stands, by the number of its level; 0 is where the start has it.
Place = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Candidate:
    """The start with some levers turned; no changes: the start itself."""

    variant: Variant
    changes: Changes
    place: Place

    @property
    def id(self) -> str:
        """The variant's id."""
        return self.variant.id


@dataclass(frozen=True, slots=True)
class Field:
    """Who competes, and the start that all of them are compared with."""

    start: Candidate
    candidates: tuple[Candidate, ...]

    @property
    def every(self) -> bool:
        """Whether all of them are raced against each other, block by block."""
        return len(self.candidates) <= EVERY


@dataclass(frozen=True, slots=True)
class Levers:
    """What may be turned of a variant: by lever, the levels that change anything of it, with the change."""

    model: ScenarioModel
    variant: Variant
    turns: Mapping[str, Sequence[tuple[Scalar, Overlay]]]

    @classmethod
    def of(cls, model: ScenarioModel, variant: Variant) -> Levers:
        """The levers of a scenario's `tune`; UsageError if all of them stand already where they could be turned to."""
        asked = model.tune.levers if model.tune else {}
        turns: dict[str, list[tuple[Scalar, Overlay]]] = {}
        for lever, given in asked.items():
            seen = {_key(variant)}
            for level, part in levels(lever, given):
                if (key := _key(_laid_over(model, variant, part))) not in seen:
                    seen.add(key)
                    turns.setdefault(lever, []).append((level, part))
        if not turns:
            raise UsageError(
                f"every lever stands where {variant.id} has it already: there is nothing to try",
                hint="add candidate values under `tune: levers:`",
            )
        return cls(model, variant, turns)

    @property
    def start(self) -> Candidate:
        """Nothing turned."""
        return self.at((0,) * len(self.turns))

    def grid(self) -> Field:
        """Every way to turn or leave each lever; of those that come to the same, the first.

        UsageError where they are more than a matrix may have.
        """
        places = itertools.product(*(range(len(some) + 1) for some in self.turns.values()))
        found: dict[str, Candidate] = {_key(self.variant): self.start}
        for number, place in enumerate(places):
            if number > MAX_CELLS:
                raise UsageError(f"the levers make more than {MAX_CELLS} combinations", hint="take some levels out")
            one = self.at(place)
            found.setdefault(_key(one.variant), one)
        return Field(self.start, tuple(one for one in found.values() if one.changes))

    def at(self, place: Place) -> Candidate:
        """The start with the levers turned to this place; its factors say where every lever's part stands."""
        chosen = {
            lever: some[number - 1] for (lever, some), number in zip(self.turns.items(), place, strict=True) if number
        }
        parts = [part for _, part in chosen.values()]
        turned = reduce(lambda variant, part: _laid_over(self.model, variant, part), parts, self.variant)
        name = "-".join(_slug(lever, level) for lever, (level, _) in chosen.items()) or START
        if len(name) > MAX_ID:
            name = f"{name[: MAX_ID - 7].rstrip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
        turned = replace(turned, id=name, factors=self.variant.factors | self._factors(turned))
        return Candidate(turned, {lever: level for lever, (level, _) in chosen.items()}, place)

    def _factors(self, turned: Variant) -> dict[str, str]:
        """The levels, in this variant, of all that any lever touches."""
        touched = [part for some in self.turns.values() for _, part in some]
        args = turned.engine.args
        told = {f"args.{flag}": level_text(args.get(flag, "default")) for part in touched for flag in part.args}
        told |= {f"{ENV}{name}": turned.engine.env.get(name, "default") for part in touched for name in part.env}
        own = {"warmup": turned.warmup_name, "page_cache": str(turned.page_cache), "start": str(turned.start)}
        return told | {name: own[name] for name in FACTOR_LEVERS if any(getattr(part, name) for part in touched)}


def _laid_over(model: ScenarioModel, variant: Variant, part: Overlay) -> Variant:
    engine = variant.engine
    given = {"args": engine.args | part.args} if part.args else {}
    given |= {"env": engine.env | part.env} if part.env else {}
    engine = engine.model_copy(update=given)
    warmup, name = variant.warmup, variant.warmup_name
    if part.warmup:
        added = tuple(step for one in part.warmup for step in steps(model, one))
        warmup = _together(variant.warmup, added)
        name = "+".join(dict.fromkeys([*(one for one in name.split("+") if one != NONE), *part.warmup]))
    return replace(
        variant,
        engine=engine,
        warmup=warmup,
        warmup_name=name,
        page_cache=part.page_cache or variant.page_cache,
        start=part.start or variant.start,
    )


def _together(before: Sequence[WarmupStep], added: Sequence[WarmupStep]) -> tuple[WarmupStep, ...]:
    """The steps of both in order; of the same strategy the later one, in the earlier one's place."""
    found = {step.strategy: step for step in (*before, *added) if step.strategy != NONE}
    return tuple(found.values()) or (WarmupStep(NONE),)


def _key(variant: Variant) -> str:
    """All that a launch of it depends on and a lever may change."""
    engine = variant.engine
    told = [engine.args, engine.env, [asdict(one) for one in variant.warmup], variant.page_cache, variant.start]
    return json.dumps(told, sort_keys=True, default=str)


def _slug(lever: str, level: Scalar) -> str:
    return slug(lever if lever in FACTOR_LEVERS else f"args.{lever.removeprefix(ENV)}", level)
