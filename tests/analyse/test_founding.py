"""The founding table is computed from launches, and its percentages are those of what was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.analyse.founding import table
from bench.analyse.run import Run
from tests.runs import Behaviour, synthetic_run


def test_reduction_cost_and_tail_of_each_trick(tmp_path: Path) -> None:
    variants = {
        "none": Behaviour(first=2800.0, load_s=10.0),
        "all": Behaviour(first=450.0, load_s=70.0, warmup_s=5.0),
    }
    run = Run.open(synthetic_run(tmp_path, variants, blocks=2))
    found: Any = table(run, "none").set_index("variant")
    assert found.loc["all", "reduction"] == pytest.approx(0.839, abs=0.001)
    assert found.loc["none", "reduction"] == 0
    assert found.loc["all", "extra_s"] == pytest.approx(62.65, abs=0.01)
    assert pd.isna(found.loc["all", "p99_ms"])
    assert found.loc["all", "p99_reason"]


def test_without_the_baseline_there_is_no_table(tmp_path: Path) -> None:
    run = Run.open(synthetic_run(tmp_path, {"all": Behaviour()}, blocks=1))
    assert table(run, "none").empty
