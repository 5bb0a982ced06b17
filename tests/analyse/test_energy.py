"""Energy of waveforms whose energy is known, sampled as the sampler samples; right within 2 %, or flagged."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.analyse.energy import Energy, PowerSource, difference, integrate, of_window, of_windows
from bench.analyse.series import Series
from bench.probes.lanes import scattered

Values = npt.NDArray[np.float64]
Wave = Callable[[Values], Values]
S = 1_000_000_000


def times(seconds: float, hertz: float = 10.0, *, start: float = -1.0, locked: bool = False) -> list[float]:
    """When the sampler reads: spread over each period, or locked to it."""
    period = 1 / hertz
    turns = range(math.floor(start / period), math.ceil((seconds + 1) / period))
    return [(turn + (0.0 if locked else scattered(turn))) * period for turn in turns]


def sampled(wave: Wave, at: list[float]) -> Series:
    when = np.array(at)
    return Series(np.round(when * S).astype(np.int64), np.asarray(wave(when), np.float64))


def truth(wave: Wave, seconds: float) -> float:
    # In the middle of each slice, so that no jump lies on a point.
    grid = (np.arange(400_000) + 0.5) * seconds / 400_000
    return float(wave(grid).mean() * seconds)


def level(watts: float) -> Wave:
    return lambda t: np.full_like(t, watts)


def square(hertz: float, low: float, high: float, duty: float = 0.5) -> Wave:
    return lambda t: np.where((t * hertz) % 1.0 < duty, high, low)


WAVES: dict[str, Wave] = {
    "constant": level(12.5),
    "ramp": lambda t: 5 + 2 * t,
    "slow sine": lambda t: 15 + 5 * np.sin(2 * math.pi * 0.3 * t),
    "sine as fast as the sampling": lambda t: 15 + 5 * np.sin(2 * math.pi * 10 * t),
    "step up and down": lambda t: np.where((t >= 3) & (t < 7), 25.0, 6.0),
    "requests of 0.4 s every second": square(1.0, 6.0, 22.0, 0.4),
    "decode beat of 30 ms": square(33.0, 10.0, 20.0),
    "in time with the sampling": square(10.0, 5.0, 25.0),
    "in time with every second sample": square(5.0, 5.0, 25.0),
    "spikes": square(0.7, 8.0, 60.0, 0.05),
}


@pytest.mark.parametrize("name", WAVES)
def test_a_known_waveform_is_right_within_two_percent_or_says_that_it_may_not_be(name: str) -> None:
    wave = WAVES[name]
    for seconds in (10.0, 10.37, 30.0):
        energy = integrate(sampled(wave, times(seconds)), 0, round(seconds * S))
        assert energy.joules is not None
        assert energy.relative is not None
        error = abs(energy.joules / truth(wave, seconds) - 1)
        assert error <= 0.02 or energy.relative > 0.02, f"{error:.1%} wrong and only {energy.relative:.1%} admitted"
        assert error <= max(0.001, 1.5 * energy.relative), "the uncertainty covers the error"


def test_spreading_the_readings_is_what_shows_a_load_in_time_with_the_sampling() -> None:
    wave = square(10.0, 5.0, 25.0)
    blind = integrate(sampled(wave, times(30.0, locked=True)), 0, 30 * S)
    spread = integrate(sampled(wave, times(30.0)), 0, 30 * S)
    assert blind.joules is not None
    assert abs(blind.joules / (15 * 30) - 1) > 0.5, "at one phase for ever, and nobody could tell"
    assert blind.relative is not None
    assert blind.relative < 0.01
    assert spread.joules is not None
    assert spread.relative is not None
    assert spread.relative > 0.02, "full swings between samples are admitted"
    assert abs(spread.joules / (15 * 30) - 1) <= spread.relative


@settings(deadline=None, max_examples=60)
@given(
    st.floats(1, 60), st.floats(0, 60), st.floats(0.01, 40), st.floats(0.15, 0.85), st.floats(8, 40), st.floats(0, 1)
)
def test_the_stated_uncertainty_covers_square_loads_of_any_shape(
    low: float, rise: float, hertz: float, duty: float, seconds: float, phase: float
) -> None:
    wave = square(hertz, low, low + rise, duty)
    energy = integrate(sampled(lambda t: wave(t + phase + 10), times(seconds)), 0, round(seconds * S))
    expected = truth(lambda t: wave(t + phase + 10), seconds)
    assert energy.joules is not None
    assert energy.uncertainty_j is not None
    # Two standard errors hold in most cases, not in all; six do, and one reading's worth of the edge. Of pulses shorter
    # than these a window of 8 s has too few readings to tell their scatter.
    assert abs(energy.joules - expected) <= 3 * energy.uncertainty_j + 0.1 * rise + 1e-6 * expected


def test_the_ends_are_interpolated_and_not_rounded_to_samples() -> None:
    ramp = sampled(lambda t: 10 * t, [i * 0.1 for i in range(101)])
    energy = integrate(ramp, round(2.03 * S), round(7.58 * S))
    assert energy.joules == pytest.approx(5 * (7.58**2 - 2.03**2), rel=1e-9)


@pytest.mark.parametrize(("seconds", "source"), [(0.09, "a prefill"), (0.9, "just too short"), (3.0, "a gpu's")])
def test_a_window_too_short_to_carry_a_figure_has_none(seconds: float, source: str) -> None:
    series = sampled(level(10.0), times(20))
    kind = "gpu power" if source == "a gpu's" else "power"
    energy = of_window(PowerSource(kind, "x", "module", series), 0, round(seconds * S))
    assert energy.joules is None
    assert "too short" in str(energy.reason)


def test_a_gap_makes_it_partial() -> None:
    at = [t for t in times(20) if not 5 < t < 9]
    energy = integrate(sampled(level(10.0), at), 0, 20 * S)
    assert energy.joules is None
    assert energy.coverage == pytest.approx(0.8, abs=0.03)
    assert energy.max_gap_s == pytest.approx(4.0, abs=0.3)
    assert "partial" in str(energy.reason)


def test_samples_that_end_before_the_window_make_it_partial() -> None:
    energy = integrate(sampled(level(10.0), times(10)), 0, 15 * S)
    assert energy.joules is None
    assert "partial" in str(energy.reason)


def test_nothing_recorded_is_null_with_a_reason() -> None:
    silent = Series(np.empty(0, np.int64), np.empty(0), {"no_permission": 40})
    assert integrate(silent, 0, 10 * S).reason == "no_permission"
    assert of_window(None, 0, 10 * S).joules is None
    assert of_window(None, None, 10 * S).reason == "not_found: the window has no beginning or no end"


def counter(watts: float, step_s: float, seconds: float) -> Series:
    """A driver's counter, which moves on every `step_s`."""
    at = [i * 0.1 for i in range(-20, round(seconds * 10) + 20)]
    return sampled(lambda t: 5000 + watts * np.floor(t / step_s) * step_s, at)


def test_a_counters_difference_is_preferred_and_checked_against_the_power() -> None:
    power = sampled(level(200.0), times(20))
    agreeing = of_window(PowerSource("gpu power", "nvml", "gpu board", power, counter(200.0, 0.1, 20)), 0, 20 * S)
    assert agreeing.source == "nvml counter"
    assert agreeing.joules == pytest.approx(4000, rel=0.01)
    assert agreeing.cross_check == pytest.approx(0, abs=0.01)
    apart = of_window(PowerSource("gpu power", "nvml", "gpu board", power, counter(150.0, 0.1, 20)), 0, 20 * S)
    assert apart.cross_check == pytest.approx(1 / 3, abs=0.02)


def test_a_counter_that_was_reset_gives_nothing() -> None:
    backwards = sampled(lambda t: np.where(t < 5, 100 * t, 100 * (t - 5)), [i * 0.1 for i in range(110)])
    assert difference(backwards, 0, 10 * S).joules is None


def test_a_counters_uncertainty_shrinks_with_the_window() -> None:
    short, long = (difference(counter(100, 0.1, s), 0, s * S) for s in (2, 20))
    assert short.relative is not None
    assert long.relative is not None
    assert short.relative == pytest.approx(10 * long.relative, rel=0.05)
    assert short.relative < 0.05


def test_many_windows_add_up_when_each_spans_two_samples() -> None:
    wave = square(0.5, 5.0, 25.0, 0.4)  # 0.8 s busy in every 2 s
    busy = [(2 * i * S, round((2 * i + 0.8) * S)) for i in range(10)]
    energy = of_windows(PowerSource("power", "jetson", "module", sampled(wave, times(20))), busy)
    assert energy.joules is not None
    assert energy.uncertainty_j is not None
    assert energy.joules == pytest.approx(25 * 8, rel=0.05)
    assert abs(energy.joules - 200) <= energy.uncertainty_j


def test_prefills_shorter_than_the_sampling_have_no_energy() -> None:
    windows = [(i * S, round((i + 0.1) * S)) for i in range(40)]
    energy: Energy = of_windows(PowerSource("power", "jetson", "module", sampled(level(9.0), times(40))), windows)
    assert energy.joules is None
    assert "too short: windows of 0.10 s" in str(energy.reason)
