"""`bench check`, `plan`, `schema` and `plugins`: what a scenario says, before anything is started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.errors import Exit, Problem, ScenarioError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from importlib.metadata import EntryPoint

    from bench.plan.budget import Budget
    from bench.plan.launches import Plan
    from bench.scenario.load import Scenario

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Results = Annotated[Path, typer.Option(help="Folder of earlier runs, for the estimate.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("check")(check)
    app.command("plan")(plan)
    app.command("schema")(schema)
    app.command("plugins")(plugins)


def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Scenario files.")], as_json: Json = False
) -> None:
    """Say everything that is wrong with scenario files; start nothing.

    Example: bench check scenarios/*.yaml
    """
    from bench.scenario.load import Scenario

    problems: list[Problem] = []
    for file in files:
        try:
            scenario = Scenario.load(file)
        except ScenarioError as error:
            problems += error.problems
            if not as_json:
                typer.echo(error, err=True)
        else:
            if not as_json:
                typer.echo(f"{file}  ok: {_amount(scenario)}")
    if as_json:
        found = [_problem(problem) for problem in problems]
        typer.echo(json.dumps({"ok": not found, "files": [str(file) for file in files], "problems": found}, indent=2))
    if problems:
        raise typer.Exit(Exit.USAGE)


def plan(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Scenario file.")],
    seed: Annotated[int | None, typer.Option(help="Draw the order with this seed instead of the scenario's.")] = None,
    blocks: Annotated[int | None, typer.Option(min=1, help="Plan so many blocks instead of the scenario's.")] = None,
    results: Results = Path("results"),
    as_json: Json = False,
) -> None:
    """Show every launch of a scenario in its order, minutes and disk; start nothing.

    Example: bench plan scenarios/quick.yaml
    """
    from bench.plan.blocks import draw
    from bench.plan.budget import expect
    from bench.plan.earlier import measured
    from bench.scenario.load import Scenario

    scenario = Scenario.load(file)
    planned = draw(scenario, blocks=blocks, seed=seed)
    known = measured(results, scenario.name, scenario.digest)
    budget = expect(planned, scenario.model, known)
    if as_json:
        typer.echo(json.dumps(_plan(scenario, planned, budget), indent=2))
    else:
        typer.echo("\n".join(_lines(scenario, planned, budget)))


def schema(
    keys: Annotated[bool, typer.Option("--keys", help="Print the reference of keys in Markdown instead.")] = False,
) -> None:
    """Print the JSON Schema of scenario files, for editors.

    Example: bench schema > docs/scenario.schema.json
    """
    from bench.scenario import reference

    typer.echo(reference.markdown() if keys else reference.schema_text(), nl=False)


def plugins(as_json: Json = False) -> None:
    """List registered engines, warm-ups, workloads, probes and formats, and where each comes from.

    Example: bench plugins --json
    """
    from bench.plugins import GROUPS, available

    found = {group: [_registered(point) for _, point in sorted(available(group).items())] for group in GROUPS}
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    for group, points in found.items():
        typer.echo(f"{group}:" if points else f"{group}: none")
        width = max((len(point["name"]) for point in points), default=0)
        for point in points:
            typer.echo(f"  {point['name']:{width}}  {point['object']}  ({point['from']})")


def _registered(point: EntryPoint) -> dict[str, str]:
    origin = f"{point.dist.name} {point.dist.version}" if point.dist is not None else "unknown"
    return {"name": point.name, "object": point.value, "from": origin}


def _problem(problem: Problem) -> dict[str, Any]:
    return {
        "file": problem.file,
        "line": problem.line,
        "column": problem.column,
        "path": problem.path,
        "message": problem.message,
    }


def _amount(scenario: Scenario) -> str:
    variants, blocks = len(scenario.variants), scenario.model.design.blocks
    return f"{_count(variants, 'variant')} × {_count(blocks, 'block')} = {_count(variants * blocks, 'launch', 'es')}"


def _count(number: int, noun: str, plural: str = "s") -> str:
    return f"{number} {noun}{plural if number != 1 else ''}"


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
        "requests_per_launch": scenario.model.workload.requests,
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
        f"{scenario.name}: {_count(len(planned.variants), 'variant')} × {_count(blocks, 'block')} = "
        f"{_count(len(planned.launches), 'launch', 'es')}, {_count(scenario.model.workload.requests, 'request')} each; "
        f"seed {planned.seed}",
        "",
        "variants",
    ]
    width = max(len(variant.id) for variant in planned.variants)
    shared = dict(set.intersection(*(set(variant.factors.items()) for variant in planned.variants)))
    for variant in planned.variants:
        cost = budget.costs[variant.id]
        origin = f"median of {_count(cost.measured, 'earlier launch', 'es')}" if cost.measured else "a guess"
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
        lines.append(f"budget    {minutes:g} minutes: {budget.blocks} of {blocks} blocks are expected to fit")
    if sentence := _power(scenario, budget.blocks):
        lines.append(f"power     {sentence}")
    return lines


def _factors(levels: Mapping[str, str]) -> str:
    return "  ".join(f"{name}={level}" for name, level in levels.items())


def _power(scenario: Scenario, blocks: int) -> str | None:
    """What the plan will be able to find; nothing where there is only one variant."""
    if len(scenario.variants) < 2:
        return None
    from bench.judge.power import describe
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
