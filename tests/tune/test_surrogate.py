from __future__ import annotations

import numpy as np
import pytest

from bench.tune.surrogate import Sight, believe, spread

ALL = [(a, b, c) for a in range(2) for b in range(2) for c in range(2)]


def sights(value: dict[tuple[int, ...], float], *, above: tuple[tuple[int, ...], ...] = ()) -> list[Sight]:
    return [Sight(place, 0, number, above=place in above) for place, number in value.items()]


def test_an_effect_of_one_lever_is_carried_over_to_settings_never_launched() -> None:
    seen = sights({(0, 0, 0): 3.0, (1, 0, 0): 2.0, (0, 1, 0): 3.0, (0, 0, 1): 3.0, (1, 1, 0): 2.0})
    unseen = believe(seen, [(1, 0, 1), (0, 1, 1)])
    # Drawn to the middle of all, and no farther than half of the effect.
    assert 1.9 < unseen.mean[0] < 2.3
    assert 2.7 < unseen.mean[1] < 3.1
    # Neither is as sure as one that was seen.
    assert min(unseen.sd) > believe(seen, [(0, 0, 0)]).sd[0]


def test_what_was_stopped_stands_in_with_its_bound_or_what_the_others_foretell() -> None:
    seen: dict[tuple[int, ...], float] = {(0, 0, 0): 3.0, (0, 1, 0): 3.0, (0, 0, 1): 3.0, (1, 0, 0): 3.4}
    foretold = believe(sights(seen, above=((1, 0, 0),)), [(1, 0, 0)]).mean[0]
    assert foretold > 3.2
    low = seen | {(1, 0, 0): 1.0}
    # A bound below what is expected of it teaches nothing.
    assert believe(sights(low, above=((1, 0, 0),)), [(1, 0, 0)]).mean[0] == pytest.approx(3.0, abs=0.05)


def test_without_a_launch_nothing_is_believed() -> None:
    nothing = believe([], ALL)
    assert np.all(nothing.mean == 0)
    assert np.all(nothing.sd > 1)
    assert np.all(believe([Sight((0, 0, 0), 0, 5.0, above=True)], ALL).mean == 0)


def test_a_spread_begins_with_the_setting_that_is_least_like_the_start() -> None:
    chosen = spread(ALL[1:], 3, [ALL[0]])
    assert chosen[0] == (1, 1, 1)
    assert len(set(chosen)) == 3
    assert spread(ALL[1:], 99, [ALL[0]])[:3] == chosen
    assert set(spread(ALL[1:], 99, [ALL[0]])) == set(ALL[1:])
