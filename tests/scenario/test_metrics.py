from __future__ import annotations

import pytest

from bench.analyse.metrics import METRICS
from bench.scenario.measures import NEEDS, PER_LAUNCH, PER_REQUEST, margin
from bench.scenario.model import ScenarioModel


def test_every_metric_that_is_computed_can_be_gated_on() -> None:
    assert set(METRICS) <= set(NEEDS)


def test_every_metric_belongs_to_something_that_can_be_measured() -> None:
    measurable = set(ScenarioModel.model_fields["measure"].annotation.__args__[0].__args__)  # type: ignore[union-attr]
    assert set(NEEDS.values()) <= measurable


def test_names_do_not_collide() -> None:
    assert not set(PER_REQUEST) & set(PER_LAUNCH)


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("12.5 %", 0.125), (" 1% ", 0.01), ("1000%", 10.0)])
def test_a_margin_is_a_percentage(text: str, share: float) -> None:
    assert margin(text) == pytest.approx(share)


@pytest.mark.parametrize("text", ["5", "0.05", "-5%", "0%", "2000%", "five%", "5 ms", "", "%", "1e3%", "nan%"])
def test_everything_else_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="is not a margin"):
        margin(text)
