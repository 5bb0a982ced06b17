"""Which launches, in which order: randomised balanced blocks, every variant once, every position equally often.

For two variants as many blocks begin with the one as with the other. For more, blocks are the rows of a Williams
design (E. J. Williams 1949): a Latin square in which every variant also follows every other equally often. Rows are
shuffled and variants relabelled for each square, so that no order can be foreseen; the first n blocks of a plan are the
same however many follow, so that a run may be extended.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from bench.record.manifest import PlannedLaunch
from bench.scenario.load import Scenario
from bench.scenario.variant import Variant, twin_of


@dataclass(frozen=True, slots=True)
class Plan:
    """Every variant and every launch, in order."""

    variants: tuple[Variant, ...]
    launches: tuple[PlannedLaunch, ...]
    seed: int

    def variant(self, variant_id: str) -> Variant:
        """The variant of that id; KeyError if there is none."""
        for variant in self.variants:
            if variant.id == variant_id:
                return variant
        raise KeyError(variant_id)


def draw(scenario: Scenario, *, blocks: int | None = None, seed: int | None = None) -> Plan:
    """The plan of a scenario; blocks and seed are its own unless given."""
    design = scenario.model.design
    return in_blocks(scenario.variants, blocks or design.blocks, design.seed if seed is None else seed)


def in_blocks(variants: Sequence[Variant], blocks: int, seed: int) -> Plan:
    """The launches of so many blocks, in order."""
    orders = list(islice(block_orders(len(variants), seed), blocks))
    orders[:1] = [references_first(order, variants) for order in orders[:1]]
    launches = tuple(
        PlannedLaunch(block, position, variants[index].id, block_seed(seed, block))
        for block, order in enumerate(orders)
        for position, index in enumerate(order)
    )
    return Plan(tuple(variants), launches, seed)


def references_first(order: Sequence[int], variants: Sequence[Variant]) -> tuple[int, ...]:
    """The order with each forked variant after the exec'd one that its first token is checked against.

    The two trade places, in a run's first block alone: there is no reference before it.
    """
    found = list(order)
    for number, variant in enumerate(variants):
        by_exec = twin_of(variant, variants) if variant.start != "exec" else None
        twin = None if by_exec is None else variants.index(by_exec)
        if twin is not None and (here := found.index(number)) < (there := found.index(twin)):
            found[here], found[there] = twin, number
    return tuple(found)


def block_orders(variants: int, seed: int) -> Iterator[tuple[int, ...]]:
    """Orders of variant numbers, block by block, without end."""
    # Seeded by text: the same on every machine and Python version.
    rng = random.Random(f"order {seed}")
    while variants:
        labels = rng.sample(range(variants), variants)
        for square in williams(variants):
            for row in rng.sample(square, variants):
                yield tuple(labels[cell] for cell in row)


def williams(size: int) -> list[list[tuple[int, ...]]]:
    """The Latin squares of a Williams design: one for an even number of treatments, a mirrored pair for an odd one."""
    zigzag = [(position + 1) // 2 if position % 2 else -(position // 2) for position in range(size)]
    square = [tuple((first + step) % size for step in zigzag) for first in range(size)]
    return [square] if size % 2 == 0 else [square, [row[::-1] for row in square]]


def block_seed(seed: int, block: int) -> int:
    """The seed that draws a block's prompts, equal for all its launches; below 2**32."""
    return int.from_bytes(hashlib.sha256(f"block {seed} {block}".encode()).digest()[:4], "big")
