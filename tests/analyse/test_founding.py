"""The founding table is computed from launches, and its percentages are those of what was measured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from bench.analyse.founding import table
from bench.analyse.run import Run
from bench.record.manifest import PlannedStep
from bench.report.claims import of_the_article
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


STEPS = {
    "none": (["none"], False),
    "kv": (["kv-preallocate"], False),
    "stages": (["multi-stage"], False),
    "compiled": (["none"], True),
    "all": (["compile-cache", "kv-preallocate", "multi-stage"], True),
}


def tried(tmp_path: Path, *left_out: str, **behaviours: Behaviour) -> Run:
    variants = {name: behaviours.get(name, Behaviour(first=2800.0)) for name in STEPS if name not in left_out}
    run = Run.open(synthetic_run(tmp_path, variants, blocks=3))
    for at, variant in enumerate(run.manifest.variants):
        steps, compiled = STEPS[variant.id]
        args = {"compile": True} if compiled else {}
        run.manifest.variants[at] = replace(variant, warmup=[*map(PlannedStep, steps)], engine={"args": args})
    return run


def test_a_forked_variant_takes_none_of_the_articles_steps(tmp_path: Path) -> None:
    run = tried(tmp_path)
    assert len(of_the_article(run, "none")) == 5
    at = next(at for at, variant in enumerate(run.manifest.variants) if variant.id == "all")
    run.manifest.variants[at] = replace(run.manifest.variants[at], start="forked")
    assert of_the_article(run, "none") == ()


def test_each_step_of_the_article_is_judged_by_what_it_did_here(tmp_path: Path) -> None:
    run = tried(
        tmp_path,
        kv=Behaviour(first=1790.0),
        compiled=Behaviour(first=9000.0, load_s=70.0),
        all=Behaviour(first=400.0, load_s=70.0, warmup_s=5.0),
    )
    found = of_the_article(run, "none")
    assert [finding.holds for finding in found] == ["holds", "does not hold", "does not hold", "holds", "does not hold"]
    assert found[0].claim == "KV preallocation shortens the first request by 36%"
    assert found[1].evidence.startswith("3.21 times the baseline's")


def test_a_run_that_has_not_tried_every_step_says_nothing_of_the_article(tmp_path: Path) -> None:
    assert of_the_article(tried(tmp_path, "stages"), "none") == ()
