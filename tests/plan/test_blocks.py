from __future__ import annotations

from collections import Counter
from itertools import islice, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.plan.blocks import block_orders, block_seed, draw, in_blocks, williams
from bench.scenario.load import Scenario
from tests.scenario.texts import changed, loaded

sizes = st.integers(min_value=1, max_value=9)
seeds = st.integers(min_value=0, max_value=2**32)
lengths = st.integers(min_value=1, max_value=40)


def orders(size: int, seed: int, blocks: int) -> list[tuple[int, ...]]:
    return list(islice(block_orders(size, seed), blocks))


@given(sizes, seeds, lengths)
def test_every_variant_comes_once_a_block(size: int, seed: int, blocks: int) -> None:
    assert all(sorted(order) == list(range(size)) for order in orders(size, seed, blocks))


@given(sizes, seeds, lengths)
def test_every_position_is_taken_equally_often_give_or_take_one(size: int, seed: int, blocks: int) -> None:
    found = orders(size, seed, blocks)
    for position in range(size):
        counts = Counter(order[position] for order in found)
        assert max(counts.values()) - min(counts.get(variant, 0) for variant in range(size)) <= 1


@given(seeds, st.integers(min_value=1, max_value=20))
def test_of_two_variants_each_begins_as_often_as_the_other(seed: int, pairs: int) -> None:
    assert Counter(orders(2, seed, 2 * pairs)) == {(0, 1): pairs, (1, 0): pairs}


@given(st.integers(min_value=2, max_value=9), seeds)
def test_every_variant_follows_every_other_equally_often(size: int, seed: int) -> None:
    rows = size if size % 2 == 0 else 2 * size
    followed = Counter(pair for order in orders(size, seed, rows) for pair in pairwise(order))
    assert set(followed.values()) == {rows // size}
    assert len(followed) == size * (size - 1)


@given(sizes, seeds, lengths)
def test_the_same_seed_gives_the_same_plan_and_a_longer_one_begins_with_it(size: int, seed: int, blocks: int) -> None:
    assert orders(size, seed, blocks) == orders(size, seed, blocks + 7)[:blocks]


def test_another_seed_gives_another_order() -> None:
    assert len({tuple(orders(5, seed, 5)) for seed in range(50)}) > 45


def test_the_order_of_a_pair_cannot_be_foreseen() -> None:
    starts = Counter(orders(2, seed, 1)[0] for seed in range(2000))
    # Binomial(2000, 1/2): four standard deviations are 89.
    assert abs(starts[0, 1] - 1000) < 90


def test_orders_do_not_depend_on_the_python_that_draws_them() -> None:
    assert orders(4, 1, 3) == [(0, 3, 1, 2), (1, 0, 2, 3), (3, 2, 0, 1)]
    assert block_seed(1, 0) == 160931127


@pytest.mark.parametrize("size", range(1, 12))
def test_the_squares_are_latin(size: int) -> None:
    for square in williams(size):
        assert all(len(set(row)) == size for row in square)
        assert all(len(set(column)) == size for column in zip(*square, strict=True))


def test_a_plan_numbers_its_launches_and_seeds_its_blocks() -> None:
    variants = loaded().variants
    planned = in_blocks(variants, 3, 7)
    assert [(one.block, one.position) for one in planned.launches] == [
        (block, position) for block in range(3) for position in range(len(variants))
    ]
    assert [one.seed for one in planned.launches if one.block == 1] == [block_seed(7, 1)] * len(variants)
    assert len({one.seed for one in planned.launches}) == 3
    assert [one.id for one in planned.launches] == sorted(one.id for one in planned.launches)
    assert planned.variant(planned.launches[0].variant) in variants


def test_a_scenario_s_plan_follows_its_design() -> None:
    scenario = loaded()
    plan = draw(scenario)
    assert len(plan.launches) == 4 * len(scenario.variants)
    assert len(draw(scenario, blocks=2).launches) == 2 * len(scenario.variants)
    assert (plan.seed, draw(scenario, seed=9).seed) == (1, 9)


def test_a_run_s_first_block_has_each_reference_before_the_forked_launch_that_it_is_for() -> None:
    text = changed(
        ("  quantization: [fp16, awq]\n", "  quantization: [fp16, awq]\n  start: [forked, exec]\n"),
        ("baseline: {", "baseline: {start: exec, "),
    )
    variants = Scenario.parse(text).variants
    plain = [tuple(order) for order in islice(block_orders(len(variants), 5), 3)]
    moved = 0
    for seed in range(30):
        launches = in_blocks(variants, 3, seed).launches
        for block in range(3):
            order = [one.variant for one in launches if one.block == block]
            assert sorted(order) == sorted(one.id for one in variants)
            if block == 0:
                for name in (one.id for one in variants if one.start == "forked"):
                    assert order.index(name.replace("forked", "exec")) < order.index(name)
        drawn = [variants[index].id for index in next(block_orders(len(variants), seed))]
        moved += drawn != [one.variant for one in launches if one.block == 0]
    assert moved > 10
    # Later blocks are as drawn.
    assert [[variants[i].id for i in order] for order in plain[1:]] == [
        [one.variant for one in in_blocks(variants, 3, 5).launches if one.block == block] for block in (1, 2)
    ]
