"""The rates that the project promises, recomputed with enough repetitions to be sure."""

from __future__ import annotations

import pytest

from bench.judge.aa import Rate
from tests.calibration.noise import Noise
from tests.calibration.study import BLOCKS, MODELS, false_alarms, power, predicted, sequential

pytestmark = pytest.mark.calibration
REPETITIONS = 2000
# P(FAIL) at ×1.10, ×1.15, ×1.20 and P(PASS) at ×1.00 by the noncentral t, for launch SD 2 % and 5 %.
EXPECTED = {
    5: ((0.80, 1.0, 1.0, 0.84), (0.31, 0.72, 0.95, 0.33)),
    8: ((0.97, 1.0, 1.0, 0.98), (0.46, 0.92, 1.0, 0.52)),
    12: ((1.0, 1.0, 1.0, 1.0), (0.63, 0.99, 1.0, 0.70)),
}


@pytest.mark.parametrize("blocks", BLOCKS)
@pytest.mark.parametrize("name", MODELS)
def test_false_alarms_do_not_exceed_the_nominal_rate(name: str, blocks: int) -> None:
    seen, failed, edge = false_alarms(MODELS[name], blocks, REPETITIONS, 7)
    assert seen.interval[0] <= 0.05
    assert edge.interval[0] <= 0.05
    assert failed.share <= 0.005


@pytest.mark.parametrize("blocks", BLOCKS)
@pytest.mark.parametrize("noise", [Noise(0.02), Noise(0.05), Noise(0.02, drift=0.05), Noise(0.05, drift=0.05)])
def test_they_are_the_nominal_rate_where_noise_is_normal(noise: Noise, blocks: int) -> None:
    seen, _, _ = false_alarms(noise, blocks, REPETITIONS, 11)
    low, high = Rate(round(0.05 * REPETITIONS), REPETITIONS).interval
    assert low - 0.003 <= seen.share <= high + 0.003


@pytest.mark.parametrize("blocks", EXPECTED)
def test_power_is_what_the_plan_says(blocks: int) -> None:
    found = power(blocks, 0.5, REPETITIONS)["gate"]
    for column, cell in enumerate(found):
        for arm, text in enumerate(cell.split(" / ")):
            assert float(text) >= EXPECTED[blocks][arm][column] - 0.07


@pytest.mark.parametrize("launch_sd", [0.02, 0.05])
def test_looking_often_stays_below_six_percent(launch_sd: float) -> None:
    rate, _ = sequential(launch_sd, REPETITIONS)
    assert rate.share <= 0.06


@pytest.mark.parametrize("link", [None, 1.0, 0.5, 0.0])
def test_the_prediction_interval_holds_its_rate(link: float | None) -> None:
    alarms, _ = predicted(10, link, REPETITIONS)
    assert alarms.interval[0] <= 0.06
    assert alarms.interval[1] >= 0.04
