"""What may not be compared is refused, with everything in which the two sides differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.analyse.run import Run
from bench.errors import IncomparableError, UnknownName, UsageError
from bench.judge.comparable import variant_id
from bench.judge.compare import Comparison
from bench.judge.decide import Verdict
from bench.record.manifest import PlannedVariant
from tests.runs import Behaviour, synthetic_run

VARIANTS = {name: Behaviour(factors={"build": name, "engine": "x"}) for name in ("a", "b", "c")}


def recorded(root: Path, name: str = "run", *, tokens: int = 8, seed: int = 7) -> Run:
    path = synthetic_run(root, VARIANTS, blocks=4, requests=4, tokens=tokens, seed=seed, samples=False, run_id=name)
    return Run.open(path)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return recorded(tmp_path)


@pytest.fixture
def other(tmp_path: Path) -> Run:
    return recorded(tmp_path, "other")


def other_host(run: Run) -> None:
    run.manifest.fingerprint["host_class"] = "jetson-orin-nx-16gb"


def other_model(run: Run) -> None:
    run.manifest.variants[1] = replace(run.manifest.variants[1], model={"source": "hf:another/one"})


def other_prompts(run: Run) -> None:
    run.manifest.scenario_text = "scenario: synthetic\nworkload: {slo: {ttft: 150}, output_tokens: 99}\n"


def emulated(run: Run) -> None:
    run.manifest.emulated = "orin-nx"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (other_host, "host class: unknown and jetson-orin-nx-16gb"),
        (other_model, "model source: unset and hf:another/one"),
        (other_prompts, "workload.output_tokens: unset and 99"),
        (emulated, "emulated: no and orin-nx"),
    ],
)
def test_two_runs_that_differ_are_refused(run: Run, other: Run, change: Callable[[Run], None], says: str) -> None:
    change(other)
    with pytest.raises(IncomparableError) as caught:
        Comparison.of(run, "a", "b", other=other)
    assert says in caught.value.message
    assert int(caught.value.exit_code) == 3


def test_answers_of_different_length_are_refused(tmp_path: Path, run: Run) -> None:
    longer = recorded(tmp_path, "longer", tokens=9)
    with pytest.raises(
        IncomparableError, match=r"completion_tokens over 5 requests of block 1: 40 and 45 \(set ignore"
    ):
        Comparison.of(run, "a", "b", other=longer)


def test_other_weights_of_the_same_quantization_are_refused(run: Run) -> None:
    for launch in run.all:
        launch.record.facts["checkpoint_digest"] = f"sha256:{launch.record.variant}"
    with pytest.raises(IncomparableError, match="weights: sha256:a and sha256:b"):
        Comparison.of(run, "a", "b")


def test_runs_one_after_the_other_get_a_ratio_and_no_verdict(run: Run, other: Run) -> None:
    compared = Comparison.of(run, "a", "b", other=other, margins={"ttft.p50": 0.05})
    assert compared.verdict is Verdict.INCONCLUSIVE
    assert compared["ttft.p50"].ratio == pytest.approx(1.0)
    assert "one after the other" in compared["ttft.p50"].reason


def test_other_seeds_and_a_changed_machine_are_obstacles(tmp_path: Path, run: Run) -> None:
    reseeded = recorded(tmp_path, "reseeded", seed=8)
    reseeded.manifest.fingerprint["system"] = {"kernel": "6.99"}
    notes = " ".join(Comparison.of(run, "a", "b", other=reseeded, margins={"ttft.p50": 0.05}).notes)
    assert "different seeds (7, 8)" in notes
    assert "system.kernel: unknown and 6.99" in notes


def test_a_variant_is_named_by_id_or_by_factors(run: Run) -> None:
    compared = Comparison.of(run, "build=a", {"build": "c"})
    assert (compared.a.label, compared.b.label) == ("a", "c")
    with pytest.raises(UsageError, match="fits 3 variants"):
        Comparison.of(run, "engine=x", "b")
    with pytest.raises(UnknownName, match="one of a, b, c"):
        Comparison.of(run, "a", "z")
    with pytest.raises(UsageError, match="both sides"):
        Comparison.of(run, "a", "a")


def test_a_level_is_compared_as_it_is_written_in_a_scenario() -> None:
    variants = [
        PlannedVariant("enforce-eager", {"args.enforce_eager": "true"}),
        PlannedVariant("no-enforce-eager", {"args.enforce_eager": "false"}),
    ]
    names = [variant.id for variant in variants]
    run: Any = SimpleNamespace(variants=names, manifest=SimpleNamespace(variants=variants))
    assert variant_id(run, {"args.enforce_eager": True}) == "enforce-eager"
    assert variant_id(run, "args.enforce_eager=false") == "no-enforce-eager"
