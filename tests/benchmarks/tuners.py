"""Which search finds more a minute in worlds of known effects and interactions: ours, or Optuna's TPE.

    pip install optuna
    python -m tests.benchmarks.tuners [worlds]

Every search has the same launches, the same rule to stop a hopeless one, and the same confirmation of its best two.
Minutes are those that the launches would take.
"""

from __future__ import annotations

import importlib
import logging
import math
import sys
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.tune.levers import Field, Place
from bench.tune.screening import HOPELESS
from tests.tune.worlds import BLOCKS, LEVERS, World, confirmed, grid, screened

WORLDS = 40
# Launches that Optuna has in all, its confirmation among them.
SIZES = (36, 46, 64, 96)
# As many as a block of a screening has after its first, so that the drift between blocks is the same.
AT_ONCE = 8


def tpe(field: Field, launches: int, world: World) -> Place:
    """What Optuna's multivariate TPE finds with so many launches."""
    optuna: Any = importlib.import_module("optuna")
    optuna.logging.set_verbosity(logging.ERROR)
    study = optuna.create_study(sampler=optuna.samplers.TPESampler(multivariate=True, seed=world.seed))
    study.enqueue_trial(dict.fromkeys(LEVERS, 0))
    seen: dict[Place, list[float]] = {}
    while world.launches < launches - 3 * BLOCKS:
        trial = study.ask()
        place = tuple(trial.suggest_categorical(name, list(range(len(some) + 1))) for name, some in LEVERS.items())
        best = min((float(np.mean(values)) for values in seen.values()), default=math.inf)
        patience = HOPELESS * math.exp(best) if seen else None
        value = world.launch(place, world.launches // AT_ONCE, patience)
        if value is not None:
            seen.setdefault(place, []).append(math.log(value))
        study.tell(trial, math.log(value if value is not None else patience or math.inf))
    last = sorted(
        (place for place in seen if place != field.start.place), key=lambda place: float(np.mean(seen[place]))
    )
    return confirmed(world, last, field)


def line(name: str, field: Field, worlds: int, search: Callable[[World], Place]) -> str:
    """How often a search ends within 3 % of the grid's best, and what it spent."""
    seen = [World(seed) for seed in range(worlds)]
    regrets = [world.regret(field, search(world)) for world in seen]
    launches, minutes = (np.mean([value(world) for world in seen]) for value in (_launches, _minutes))
    good = sum(regret <= 0.03 for regret in regrets)
    return f"{name:12} {launches:8.0f} {minutes:8.1f} {good:6} of {worlds}   {max(regrets):7.1%}"


def _launches(world: World) -> float:
    return world.launches


def _minutes(world: World) -> float:
    return world.seconds / 60


def main() -> None:
    """Print the table."""
    warnings.simplefilter("ignore")
    worlds = int(sys.argv[1]) if len(sys.argv) > 1 else WORLDS
    with tempfile.TemporaryDirectory() as folder:
        field = grid(Path(folder))
        print(
            f"{len(field.candidates) + 1} combinations, the whole grid: {(len(field.candidates) + 1) * BLOCKS} launches"
        )
        print("search       launches  minutes  within 3 %    worst")
        print(line("ours", field, worlds, lambda world: screened(world, field)), flush=True)
        for size in SIZES:
            print(line(f"TPE, {size}", field, worlds, partial(tpe, field, size)), flush=True)


if __name__ == "__main__":
    main()
