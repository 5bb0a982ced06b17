"""`bench inject`: a known slowdown, and whether the gate finds it on this very machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.options import RESULTS, AsJson, Results, ScenarioFile
from bench.cli.output import print_json
from bench.cli.selftest import (
    Blocks,
    Chosen,
    Margins,
    Resume,
    ResumeIfAny,
    Sessions,
    launch_arms,
    margins_of,
    variant_of,
)
from bench.phrases import counted

if TYPE_CHECKING:
    from bench.scenario.variant import Slowdown


def inject(
    scenario: ScenarioFile,
    ttft: Annotated[list[str] | None, typer.Option(help="slow the first token by 10%; may be repeated")] = None,
    itl: Annotated[list[str] | None, typer.Option(help="slow every further token by 5%; one per --ttft")] = None,
    sessions: Sessions = 1,
    blocks: Blocks = None,
    variant: Chosen = None,
    margin: Margins = None,
    results: Results = RESULTS,
    resume: Resume = False,
    resume_if_any: ResumeIfAny = False,
    analyse: Annotated[Path | None, typer.Option(help="judge this run again, launch nothing")] = None,
    json: AsJson = False,
) -> None:
    """Slow the stream by a known amount and see whether the gate finds it: a power curve on this machine.

    All arms go through the same proxy, the first with no slowdown, so that the proxy's own cost is in none.

    Example: bench inject scenarios/quick.yaml --ttft 10% --ttft 20% --blocks 5
    """
    from dataclasses import replace

    from bench.analyse.run import Run
    from bench.judge import aa
    from bench.scenario.load import Scenario
    from bench.scenario.variant import Slowdown

    loaded = Scenario.load(scenario)
    chosen, size, judged = variant_of(loaded, variant), blocks or loaded.model.design.blocks, margins_of(loaded, margin)
    steps = [Slowdown(), *_slowdowns(ttft or [], itl or [])]
    names = ["plain", *(_name(step) for step in steps[1:])]
    arms = [
        replace(chosen, id=name, factors={**chosen.factors, "injected": name}, slowdown=step)
        for name, step in zip(names, steps, strict=True)
    ]
    folder = analyse or launch_arms(loaded, arms, sessions * size, results, resume, resume_if_any, quiet=json)
    launches = Run.open(folder).per_launch
    rows: list[dict[str, Any]] = []
    for name in names[1:]:
        found = aa.sessions(launches, "plain", name, size, judged)
        for measure in judged:
            fails = sum(one.verdicts.get(measure) == "FAIL" for one in found)
            ratios = [one.ratios[measure] for one in found if measure in one.ratios]
            rows.append({"injected": name, "metric": measure, "fails": fails, "sessions": len(found), "ratios": ratios})
    if json:
        print_json({"run": str(folder), "blocks": size, "found": rows})
        return
    typer.echo(f"injected into {loaded.name} / {chosen.id}: {counted(sessions, 'session')} of {size} blocks")
    for row in rows:
        seen = ", ".join(f"{ratio - 1:+.1%}" for ratio in row["ratios"])
        rate = aa.Rate(int(row["fails"]), int(row["sessions"]))
        typer.echo(f"  {row['injected']:<16} {row['metric']:<18} FAIL in {rate}; measured {seen}")
    typer.echo(f"run     {folder}")


def _slowdowns(ttft: list[str], itl: list[str]) -> list[Slowdown]:
    from bench.errors import UsageError
    from bench.scenario.measures import margin
    from bench.scenario.variant import Slowdown

    if not ttft and not itl:
        raise UsageError("nothing to inject", hint="--ttft 10%, --itl 5%, or both")
    if ttft and itl and len(itl) not in {1, len(ttft)}:
        raise UsageError("give one --itl for all, or one for each --ttft")
    first = ttft or ["0"] * len(itl)
    rest = itl * len(first) if len(itl) == 1 and len(first) > 1 else itl or ["0"] * len(first)
    try:
        return [
            Slowdown(*(0.0 if text in {"0", "0%"} else margin(text) for text in pair))
            for pair in zip(first, rest, strict=True)
        ]
    except ValueError as error:
        raise UsageError(str(error)) from error


def _name(step: Slowdown) -> str:
    parts = [f"{name}-{100 * share:g}" for name, share in (("ttft", step.ttft), ("itl", step.itl)) if share]
    return "-".join(parts) or "plain-2"
