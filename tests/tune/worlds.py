"""Worlds of known effects: what every setting of some levers truly takes, with interactions, and launches of it.

A start is phases one after another; a lever shortens one of them (or lengthens it, or does nothing), and some pairs of
levers multiply the whole when both are turned. So the effect of one lever depends on the others in two ways: by what
they leave of the sum, and outright.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from bench.analyse.metrics import metric
from bench.plan.blocks import in_blocks
from bench.tune.levers import Candidate, Field, Place
from bench.tune.screening import FINALISTS, Screening
from tests.tune.fields import field as field_of

# Levers and how many levels each may be turned to: 96 combinations.
LEVERS = {"a": [1, 2], "b": [1], "c": [1], "d": [1], "e": [1], "f": [1]}
BLOCKS = 4
# What a launch takes beside its first token, s; how launches and blocks scatter, in log units.
BESIDE_S, NOISE, DRIFT = 6.0, 0.03, 0.02

# Launches a place in a block with patience; its seconds to the first token, None if it was stopped.
Launch = Callable[[Place, int, float | None], float | None]


def grid(folder: Path) -> Field:
    return field_of(folder, LEVERS)


@dataclass
class World:
    """One of them, drawn by its seed. `launches` and `seconds` count what was spent in it."""

    seed: int
    launches: int = 0
    seconds: float = 0.0
    stopped: int = 0
    phases: np.ndarray = field(init=False)
    factors: list[np.ndarray] = field(init=False)
    pairs: dict[tuple[int, int, int, int], float] = field(init=False)

    def __post_init__(self) -> None:
        draw = np.random.default_rng(self.seed)
        levels = [len(some) + 1 for some in LEVERS.values()]
        self.phases = draw.uniform(2, 30, size=len(levels) + 1)
        self.factors = [
            np.concatenate([[1.0], draw.choice([0.05, 0.3, 0.6, 1.0, 1.3], size=count - 1)]) for count in levels
        ]
        self.pairs = {
            (one, other, i, j): float(draw.choice([0.5, 0.75, 1.25, 1.6]))
            for one, other in itertools.combinations(range(len(levels)), 2)
            if draw.random() < 0.3
            for i in range(1, levels[one])
            for j in range(1, levels[other])
        }
        self._noise = np.random.default_rng(self.seed + 1000)

    def truth(self, place: Place) -> float:
        """What it truly takes, s."""
        total = 0.3 * float(self.phases[-1]) + sum(
            float(self.phases[lever] * self.factors[lever][level]) for lever, level in enumerate(place)
        )
        for (one, other, i, j), factor in self.pairs.items():
            if (place[one], place[other]) == (i, j):
                total *= factor
        return total

    def launch(self, place: Place, block: int, patience: float | None = None) -> float | None:
        drift = np.random.default_rng(block * 7919).normal(0, DRIFT)
        value = self.truth(place) * math.exp(self._noise.normal(0, NOISE) + drift)
        late = patience is not None and value > patience
        self.launches += 1
        self.stopped += late
        self.seconds += (patience or 0.0) if late else value
        self.seconds += BESIDE_S
        return None if late else value

    def regret(self, field: Field, found: Place) -> float:
        """How much longer it takes than the best of the grid, as a share."""
        return self.truth(found) / min(self.truth(one.place) for one in (field.start, *field.candidates)) - 1


def screened(world: World, field: Field) -> Place:
    """What the screening finds in a world, with the confirmation that follows it."""
    screening = Screening(field.start, field.candidates, metric("cold_ttft"), {})
    rows = pd.DataFrame()
    for block, width in enumerate(screening.widths()):
        for one in screening.chosen(rows, width):
            rows = pd.concat([rows, _row(world, one, block, screening.bound(rows))], ignore_index=True)
    return confirmed(world, [one.place for one in screening.finalists(rows)], field)


def confirmed(world: World, last: list[Place], field: Field) -> Place:
    """The better of the last by launches beside the start; the start if there are none."""
    plan = in_blocks([field.start.variant], BLOCKS, 1)
    told: dict[Place, list[float]] = {place: [] for place in (field.start.place, *last[:FINALISTS])}
    for planned in plan.launches:
        for place, values in told.items():
            values.append(math.log(world.launch(place, 100 + planned.block) or math.inf))
    return min(told, key=lambda place: float(np.mean(told[place])))


def _row(world: World, one: Candidate, block: int, patience: float | None) -> pd.DataFrame:
    value = world.launch(one.place, block, patience)
    status = "ok" if value is not None else "stopped"
    above = patience if value is None else None
    row = {"variant": one.id, "block": block, "status": status, "cold_ttft": value, "above": above}
    return pd.DataFrame([row]).astype({"cold_ttft": "float64", "above": "float64"})
