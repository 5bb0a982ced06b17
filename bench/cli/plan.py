"""`bench plan`: every launch of a scenario in its order, minutes and disk."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.options import RESULTS, AsJson, Earlier
from bench.cli.output import print_json
from bench.phrases import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.plan.blocks import Plan
    from bench.plan.budget import Budget
    from bench.scenario.load import Scenario


def plan(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Scenario file.")],
    seed: Annotated[int | None, typer.Option(help="Draw the order with this seed instead of the scenario's.")] = None,
    blocks: Annotated[int | None, typer.Option(min=1, help="Plan so many blocks instead of the scenario's.")] = None,
    results: Earlier = RESULTS,
    json: AsJson = False,
) -> None:
    """Show every launch of a scenario in its order, minutes and disk; start nothing.

    Example: bench plan scenarios/quick.yaml
    """
    from bench.plan.blocks import draw
    from bench.plan.budget import expect, measured
    from bench.scenario.load import Scenario

    scenario = Scenario.load(file)
    planned = draw(scenario, blocks=blocks, seed=seed)
    known = measured(results, scenario.name, scenario.digest)
    budget = expect(planned, scenario.model, known, scenario.base)
    if json:
        print_json(_plan(scenario, planned, budget))
    else:
        typer.echo("\n".join(_lines(scenario, planned, budget)))


def _plan(scenario: Scenario, planned: Plan, budget: Budget) -> dict[str, Any]:
    """The plan as plain data."""
    return {
        "scenario": scenario.name,
        "digest": scenario.digest,
        "seed": planned.seed,
        "variants": [
            {
                "id": variant.id,
                "factors": variant.factors,
                "expected_s": round(budget.costs[variant.id].seconds, 1),
                "expected_bytes": round(budget.costs[variant.id].size_bytes),
                "measured_launches": budget.costs[variant.id].measured,
            }
            for variant in planned.variants
        ],
        "launches": [
            {"id": one.id, "block": one.block, "position": one.position, "variant": one.variant, "seed": one.seed}
            for one in planned.launches
        ],
        "requests_per_launch": budget.requests,
        "expected_s": round(budget.seconds, 1),
        "expected_bytes": round(budget.size_bytes),
        "blocks_within_budget": budget.blocks,
        "guessed": list(budget.guessed),
        "power": _power(scenario, budget.blocks),
    }


def _lines(scenario: Scenario, planned: Plan, budget: Budget) -> list[str]:
    """The plan for people."""
    blocks = 1 + max(launch.block for launch in planned.launches)
    lines = [
        f"{scenario.name}: {counted(len(planned.variants), 'variant')} × {counted(blocks, 'block')} = "
        f"{counted(len(planned.launches), 'launch')}, {counted(budget.requests, 'request')} each; "
        f"seed {planned.seed}",
        "",
        "variants",
    ]
    width = max(len(variant.id) for variant in planned.variants)
    shared = dict(set.intersection(*(set(variant.factors.items()) for variant in planned.variants)))
    for variant in planned.variants:
        cost = budget.costs[variant.id]
        origin = f"median of {counted(cost.measured, 'earlier launch')}" if cost.measured else "a guess"
        own = {name: level for name, level in variant.factors.items() if name not in shared}
        line = f"  {variant.id:{width}}  {_duration(cost.seconds):>6} a launch ({origin})  {_factors(own)}"
        lines.append(line.rstrip())
    if shared:
        lines.append(f"  all of them: {_factors({name: shared[name] for name in variant.factors if name in shared})}")
    lines += ["", "launches, in their order"]
    digits = len(str(blocks))
    for block in range(blocks):
        order = [launch.variant for launch in planned.launches if launch.block == block]
        lines.append(f"  block {block + 1:{digits}}  {' → '.join(order)}")
    lines += ["", f"expected  {_duration(budget.seconds)}, {_size(budget.size_bytes)} on disk{_doubt(budget)}"]
    if budget.blocks < blocks:
        minutes = scenario.model.design.budget_minutes
        lines.append(
            f"budget    {minutes:g} minutes: {budget.blocks} of {counted(blocks, 'block')} are expected to fit"
        )
    if sentence := _power(scenario, budget.blocks):
        lines.append(f"power     {sentence}")
    return lines


def _factors(levels: Mapping[str, str]) -> str:
    return "  ".join(f"{name}={level}" for name, level in levels.items())


def _power(scenario: Scenario, blocks: int) -> str | None:
    """What the plan will be able to find; nothing where there is only one variant."""
    if len(scenario.variants) < 2:
        return None
    from bench.judge.decide import describe
    from bench.scenario.measures import margin

    gate = scenario.model.gate
    if gate is None:
        return describe(blocks)
    return describe(blocks, margin=min(margin(text) for text in gate.metrics.values()), alpha=gate.alpha)


def _doubt(budget: Budget) -> str:
    if not budget.guessed:
        return ""
    if len(budget.guessed) == len(budget.costs):
        return "; a guess until a first run has been seen here, and without installing or fetching anything"
    return f"; a guess for {', '.join(budget.guessed)}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _size(count: float) -> str:
    return (
        f"{count / 1e3:.0f} kB" if count < 1e6 else f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"
    )
