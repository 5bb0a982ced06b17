from __future__ import annotations

import itertools
import math

import pandas as pd
import pytest

from bench.analyse.metrics import metric
from bench.tune.levers import Field
from bench.tune.screening import HOPELESS, MOST_FIRST, Screening
from tests.tune.worlds import BLOCKS, World, grid, screened


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Field:
    return grid(tmp_path_factory.mktemp("worlds"))


@pytest.mark.parametrize("seed", range(10))
def test_it_ends_within_3_percent_of_the_grids_best_in_a_third_of_its_launches(field: Field, seed: int) -> None:
    world = World(seed)
    found = screened(world, field)
    full = (len(field.candidates) + 1) * BLOCKS
    assert world.regret(field, found) <= 0.03
    assert world.launches <= full / 3
    assert full == 384


def test_settings_that_help_only_together_are_found(field: Field) -> None:
    world = World(0)
    # Either alone is worse than the start, both are the best by far.
    for factors in world.factors:
        factors[:] = 1.0
    world.factors[0][1] = world.factors[3][1] = 1.3
    world.pairs = {(0, 3, 1, 1): 0.4}
    assert world.regret(field, screened(world, field)) <= 0.03


def screening(field: Field, **guards: float) -> Screening:
    return Screening(field.start, field.candidates, metric("cold_ttft"), guards)


def rows(field: Field, **told: tuple[str, float, float, float]) -> pd.DataFrame:
    """Launches by the candidate's id: status, cold TTFT, TPOT, and the bound at which it was stopped."""
    return pd.DataFrame(
        [
            {
                "variant": name.replace("_", "-"),
                "block": 0,
                "status": status,
                "cold_ttft": cold,
                "tpot.p50": tpot,
                "above": above,
            }
            for name, (status, cold, tpot, above) in told.items()
        ]
    )


NONE = math.nan


def test_blocks_halve_in_width_and_the_first_is_no_larger_than_its_limit(field: Field) -> None:
    widths = screening(field).widths()
    assert widths[0] == round(0.2 * 96)
    assert all(after == max(2, before // 2) for before, after in itertools.pairwise(widths))
    assert widths[-1] == 2
    assert Screening(field.start, field.candidates * 10, metric("cold_ttft"), {}).widths()[0] == MOST_FIRST


def test_the_first_block_turns_every_lever_equally_often_beside_the_start(field: Field) -> None:
    chosen = screening(field).chosen(pd.DataFrame(), 19)
    assert chosen[0] == field.start
    assert len({one.id for one in chosen}) == 19
    for lever, levels in enumerate([3, 2, 2, 2, 2, 2]):
        counts = [sum(one.place[lever] == level for one in chosen) for level in range(levels)]
        assert max(counts) - min(counts) <= 4, (lever, counts)


def test_nothing_is_cut_short_before_the_start_was_seen_and_then_by_the_best_so_far(field: Field) -> None:
    found = screening(field)
    assert found.bound(pd.DataFrame()) is None
    seen = rows(field, start=("ok", 10.0, 5.0, NONE), a_1=("ok", 4.0, 5.0, NONE), b_1=("stopped", NONE, NONE, 6.0))
    assert found.bound(seen) == pytest.approx(HOPELESS * 4.0)
    assert [one.id for one in found.finalists(seen)] == ["a-1"]
    # One that was stopped has no value, and is launched no more.
    assert "b-1" not in [one.id for one in found.chosen(seen, 96)]


def test_an_objective_that_is_read_at_the_end_of_a_launch_cuts_nothing_short(field: Field) -> None:
    found = Screening(field.start, field.candidates, metric("ttft.p50"), {})
    seen = rows(field, start=("ok", 10.0, 5.0, NONE)).assign(**{"ttft.p50": 3.0})
    assert found.bound(seen) is None


def test_whoever_breaks_a_guard_sets_no_bound_and_is_no_finalist(field: Field) -> None:
    seen = rows(field, start=("ok", 10.0, 5.0, NONE), a_1=("ok", 4.0, 8.0, NONE), b_1=("ok", 8.0, 5.0, NONE))
    guarded = screening(field, **{"tpot.p50": 0.03})
    assert [one.id for one in guarded.finalists(seen)] == ["b-1"]
    assert guarded.bound(seen) == pytest.approx(HOPELESS * 8.0)
    assert [one.id for one in screening(field).finalists(seen)] == ["a-1", "b-1"]


def test_one_that_failed_is_not_tried_again(field: Field) -> None:
    seen = rows(field, start=("ok", 10.0, 5.0, NONE), a_1=("failed", NONE, NONE, NONE))
    assert "a-1" not in [one.id for one in screening(field).chosen(seen, 96)]
