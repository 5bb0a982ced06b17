"""The metric names that a scenario may gate on, and how a margin is written.

Names only: what they mean and how they are computed is analysis, which reads what was recorded and not this file.
"""

from __future__ import annotations

import re

STATISTICS = ("p50", "p90", "p95", "p99", "mean")

# Per request (ITL: per gap); each has every statistic. The value is the `measure` entry that it belongs to.
PER_REQUEST = {
    "ttft": "ttft",
    "ttft_near": "ttft",
    "ttfr": "ttft",
    "ttfot": "ttft",
    "ttfa": "ttft",
    "ttfb": "ttft",
    "ttft_scheduled": "ttft",
    "dispatch_delay": "ttft",
    "cap_delay": "ttft",
    "client_delay": "ttft",
    "round_trip": "ttft",
    "connect": "ttft",
    "client_lag": "ttft",
    "e2el": "e2el",
    "tpot": "tpot",
    "ntpot": "tpot",
    "itl": "itl",
    "tokens_per_chunk": "itl",
}

# One value per launch.
PER_LAUNCH = {
    "cold_ttft": "startup",
    "startup": "startup",
    "warmup": "startup",
    "first_ttft": "ttft",
    "output_throughput": "throughput",
    "total_throughput": "throughput",
    "request_throughput": "throughput",
    "goodput": "throughput",
    "slo_attainment": "throughput",
    "error_rate": "throughput",
    "cached_tokens": "throughput",
    "memory.idle": "memory",
    "memory.peak": "memory",
    "memory.steady": "memory",
    "energy.startup": "energy",
    "energy.warmup": "energy",
    "energy.per_token": "energy",
    "energy.per_request": "energy",
}

# The recorded group that each metric name needs; a bare family (`ttft`) means its median.
NEEDS = (
    {f"{family}.{statistic}": group for family, group in PER_REQUEST.items() for statistic in STATISTICS}
    | PER_REQUEST
    | PER_LAUNCH
)

# These count requests within limits, and so need limits.
NEED_SLO = ("goodput", "slo_attainment")

_MARGIN = re.compile(r"(\d+(?:\.\d+)?)\s*%")


def margin(text: str) -> float:
    """A margin as a share: '5%' is 0.05. ValueError for anything that is not a percentage between 0 and 1000."""
    match = _MARGIN.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a margin; write a percentage such as 5%")
    share = float(match[1]) / 100
    if not 0 < share <= 10:
        raise ValueError(f"{text!r} is not a margin; it lies above 0% and up to 1000%")
    return share
