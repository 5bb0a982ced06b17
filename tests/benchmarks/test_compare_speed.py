"""Comparing a thousand launches takes less than two seconds."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd

from bench.analyse.metrics import METRICS
from bench.judge.compare import HEADLINE, Terms, compare


def launches(seed: int, blocks: int = 500) -> pd.DataFrame:
    draw = np.random.default_rng(seed)
    frame = pd.DataFrame({"block": range(blocks), "status": "ok", "requests": 40})
    return frame.join(pd.DataFrame({name: draw.lognormal(3, 0.02, blocks) for name in METRICS}))


def test_a_thousand_launches_are_compared_in_two_seconds() -> None:
    a, b = launches(1), launches(2)
    margins = {name: 0.05 for name in HEADLINE if name in METRICS}
    # The processor's time, so that a busy machine does not fail it.
    begun = time.process_time()
    comparison = compare(a, b, Terms(margins, list(METRICS)))
    took = time.process_time() - begun
    print(f"\n1,000 launches, {len(comparison.results)} metrics: {took:.2f} s of processor time")
    assert took < 2.0
