"""Cooling devices by what they do to processors and GPUs."""

from __future__ import annotations

import pytest

from bench.record.cooling import Effect, effect


@pytest.mark.parametrize(
    "kind",
    [
        "cpu-throttle-alert",
        "gpu-throttle-alert",
        "soc0-throttle-alert",
        "soc012-throttle-alert",
        "cpufreq-cpu0",
        "thermal-cpufreq-0",
        "devfreq-17000000.gpu",
        "devfreq-17000000.ga10b",
        "devfreq-gpu-gpc-0",
        "Processor",
        "intel_powerclamp",
        "idle-cpu0",
        "gpu-balanced",
    ],
)
def test_what_cuts_clocks_slows(kind: str) -> None:
    assert effect(kind) is Effect.SLOWS


@pytest.mark.parametrize(
    "kind",
    ["hot-surface-alert", "LCD", "TCC Offset", "Fan", "pwm-fan", "emc2305_fan0", "iwlwifi_1", "cv0-throttle-alert"],
)
def test_what_dims_blows_or_warns_slows_nothing(kind: str) -> None:
    assert effect(kind) is Effect.HARMLESS


@pytest.mark.parametrize("kind", ["devfreq-15340000.vic", "made-up", "INT3400 Thermal"])
def test_what_nobody_has_described_is_not_known(kind: str) -> None:
    assert effect(kind) is Effect.UNKNOWN
