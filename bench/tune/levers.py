"""Levers become candidates: variants that differ from the start in the flags that were turned."""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from bench.errors import UsageError
from bench.scenario.matrix import MAX_ID, slug
from bench.scenario.model import Scalar
from bench.scenario.variant import Variant, level_text

START = "start"
# Up to so many candidates every combination is raced; beyond, each lever is turned alone first.
EVERY = 8

Levers = Mapping[str, Sequence[Scalar]]
Changes = Mapping[str, Scalar]


@dataclass(frozen=True, slots=True)
class Candidate:
    """The start with some flags turned; no changes: the start itself."""

    variant: Variant
    changes: Changes

    @property
    def id(self) -> str:
        """The variant's id."""
        return self.variant.id


@dataclass(frozen=True, slots=True)
class Field:
    """Who races. `every` says whether all combinations do; else each candidate has one lever turned."""

    start: Candidate
    candidates: tuple[Candidate, ...]
    every: bool

    @classmethod
    def of(cls, variant: Variant, levers: Levers) -> Field:
        """The field around a variant; UsageError if the levers leave nothing to try."""
        turns = {flag: fresh for flag, levels in levers.items() if (fresh := _fresh(variant, flag, levels))}
        if not turns:
            raise UsageError(
                f"every lever stands where {variant.id} has it already: there is nothing to try",
                hint="add candidate values under `tune: levers:`",
            )
        every = math.prod(len(levels) + 1 for levels in turns.values()) - 1 <= EVERY
        alone = [{flag: level} for flag, levels in turns.items() for level in levels]
        changes = [one for one in _combinations(turns) if one] if every else alone
        return cls(candidate(variant, levers, {}), tuple(candidate(variant, levers, one) for one in changes), every)

    def rivals(self, one: Candidate) -> tuple[Candidate, ...]:
        """Whom a candidate must keep up with: all others, or those that turn the same lever."""
        return tuple(
            other
            for other in self.candidates
            if other is not one and (self.every or other.changes.keys() == one.changes.keys())
        )


def candidate(variant: Variant, levers: Levers, changes: Changes) -> Candidate:
    """The variant with these flags turned; its factors name every lever, so that a report tells them apart."""
    args = variant.engine.args | dict(changes)
    settings = {f"args.{flag}": level_text(args.get(flag, "default")) for flag in levers}
    name = "-".join(slug(f"args.{flag}", level) for flag, level in changes.items()) or START
    if len(name) > MAX_ID:
        name = f"{name[: MAX_ID - 7].rstrip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"
    turned = replace(
        variant,
        id=name,
        factors=variant.factors | settings,
        engine=variant.engine.model_copy(update={"args": args}),
    )
    return Candidate(turned, dict(changes))


def _fresh(variant: Variant, flag: str, levels: Sequence[Scalar]) -> list[Scalar]:
    """The levels that differ from the variant's own."""
    own = variant.engine.args.get(flag)
    return [level for level in dict.fromkeys(levels) if own is None or level_text(level) != level_text(own)]


def _combinations(turns: Mapping[str, Sequence[Scalar]]) -> list[dict[str, Scalar]]:
    """Every way to turn or leave each lever."""
    choices = [[{}, *({flag: level} for level in levels)] for flag, levels in turns.items()]
    return [{flag: level for part in parts for flag, level in part.items()} for parts in itertools.product(*choices)]
