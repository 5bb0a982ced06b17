from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from bench.errors import RecordError
from bench.judge import aa
from bench.judge.decide import Verdict


def launches(blocks: int, slow: float = 1.0) -> pd.DataFrame:
    draw = np.random.default_rng(4)
    rows = [
        {"block": block, "variant": name, "status": "ok", "ttft.p50": 100 * factor * np.exp(draw.normal(0, 0.01))}
        for block in range(blocks)
        for name, factor in (("a", 1.0), ("b", slow))
    ]
    return pd.DataFrame(rows)


def test_a_long_run_is_cut_into_sessions_and_the_rest_left_out() -> None:
    found = aa.sessions(launches(23), "a", "b", 5, {"ttft.p50": 0.05})
    assert [one.first_block for one in found] == [0, 5, 10, 15]
    assert {one.verdict for one in found} == {Verdict.PASS}


def test_a_slowdown_is_found_in_every_session() -> None:
    found = aa.sessions(launches(20, slow=1.2), "a", "b", 5, {"ttft.p50": 0.05})
    assert {one.verdict for one in found} == {Verdict.FAIL}
    assert all(one.ratios["ttft.p50"] == pytest.approx(1.2, rel=0.03) for one in found)


@pytest.mark.parametrize(("count", "of"), [(0, 20), (1, 20), (7, 12), (20, 20)])
def test_the_interval_is_clopper_and_pearsons(count: int, of: int) -> None:
    exact = stats.binomtest(count, of).proportion_ci(0.95, "exact")
    assert aa.clopper_pearson(count, of) == pytest.approx((exact.low, exact.high))


def test_a_damaged_record_says_so(tmp_path: Path) -> None:
    path = tmp_path / "aa-x-0.json"
    for text, says in (("{", "damaged"), ('{"schema_version": 7}', "schema version 7"), ("[]", "damaged")):
        path.write_text(text)
        with pytest.raises(RecordError, match=says):
            aa.load(path)
