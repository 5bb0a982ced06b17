from __future__ import annotations

import pytest

from bench.analyse.run import Run
from tests.runs import Behaviour, synthetic_run


@pytest.fixture(scope="session")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One variant, two launches, few requests: quick to draw."""
    root = tmp_path_factory.mktemp("results")
    return Run.open(synthetic_run(root, {"only": Behaviour(jitter=0.05)}, blocks=2, requests=4, tokens=4))
