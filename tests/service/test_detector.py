"""A slower first token is told soon, an unchanged one almost never, and the evidence survives a restart."""

from __future__ import annotations

import json
import random

import pytest

from bench.service.detector import BETS, LEAST, Detector, patience


def told_after(detector: Detector, draw: random.Random, factor: float, noise: float, most: int = 1000) -> int:
    """Values until a change is told; `most` + 1 if it never is."""
    for number in range(1, most + 1):
        if detector.take(50 * factor * draw.lognormvariate(0, noise), draw.random()):
            return number
    return most + 1


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("interval_s", [10, 60])
def test_a_slowdown_of_30_percent_is_told_within_20_canaries(seed: int, interval_s: float) -> None:
    draw = random.Random(seed)
    detector = Detector(patience(interval_s))
    assert told_after(detector, draw, 1.0, 0.1, 150) == 151
    assert told_after(detector, draw, 1.3, 0.1) <= 20


def test_nothing_is_told_in_100_hours_without_a_change() -> None:
    draw = random.Random(7)
    assert told_after(Detector(patience(10)), draw, 1.0, 0.1, 36_000) == 36_001


def test_a_faster_first_token_is_no_alarm() -> None:
    draw = random.Random(3)
    detector = Detector(patience(10))
    told_after(detector, draw, 1.0, 0.1, 200)
    assert told_after(detector, draw, 0.5, 0.1, 500) == 501


@pytest.mark.calibration
@pytest.mark.parametrize("noise", [0.02, 0.1, 0.5])
def test_false_alarms_are_rarer_than_one_in_1000_hours(noise: float) -> None:
    # 10,000 h at a canary a minute, from 100 monitors: at most 10 are to be expected.
    told = 0
    for seed in range(100):
        draw = random.Random(seed)
        detector = Detector(patience(60))
        told += sum(detector.take(draw.lognormvariate(0, noise), draw.random()) for _ in range(6000))
    print(f"\nnoise {noise}: {told} false alarms in 10,000 h")
    assert told <= 10


def test_ranks_are_uniform_whatever_the_distribution_with_many_ties() -> None:
    # With one bet the mean gain of a uniform rank is 1: the mean over many is what the guarantee rests on.
    draw = random.Random(5)
    detector = Detector(float("inf"))
    gains = []
    for _ in range(20_000):
        detector.sums = [0.0] * len(BETS)
        detector.take(draw.choice([10.0, 10.0, 10.0, 20.0, 400.0]), draw.random())
        gains.append(detector.sums[-2])
    assert sum(gains[LEAST:]) / len(gains[LEAST:]) == pytest.approx(1.0, abs=0.02)


def test_it_learns_before_it_tells() -> None:
    draw = random.Random(1)
    detector = Detector(100.0)
    for _ in range(LEAST):
        assert detector.learning
        assert not detector.take(draw.uniform(1, 1e6), draw.random())
    assert not detector.learning


def test_what_it_knows_survives_a_restart() -> None:
    draw = random.Random(2)
    detector = Detector(patience(60))
    for _ in range(300):
        detector.take(draw.lognormvariate(4, 0.1), draw.random())
    other = Detector(patience(60))
    other.resume(json.loads(json.dumps(detector.kept())))
    values = [(draw.lognormvariate(4.3, 0.1), draw.random()) for _ in range(30)]
    assert [detector.take(*one) for one in values] == [other.take(*one) for one in values]
    assert other.evidence == detector.evidence


def test_memory_stays_bounded() -> None:
    draw = random.Random(4)
    detector = Detector(float("inf"))
    for _ in range(50_000):
        detector.take(draw.lognormvariate(4, 0.5), draw.random())
    assert len(detector.counts) < 1500
