"""`bench suite`: the shipped scenarios for a board or a desktop GPU, in order, into one report."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import RESULTS, Apply, Emulate, Install, Results
from bench.phrases import counted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.scenario.load import Scenario


@dataclass(frozen=True, slots=True)
class Suite:
    """Which scenarios, in which order, on which machine; and what stands in for them on an emulated board."""

    host_class: str
    what: str
    scenarios: tuple[str, ...]
    emulated: tuple[str, ...] = ()


SUITES = {
    "orin": Suite(
        "jetson",
        "a Jetson",
        ("orin/first-token", "orin/batch-4", "orin/cold-start", "orin/awq-vs-fp16"),
        (
            "orin/emulated/first-token",
            "orin/emulated/batch-4",
            "orin/emulated/cold-start",
            "orin/emulated/four-bit",
        ),
    ),
    "desktop": Suite(
        "gpu", "a machine with an NVIDIA GPU", ("desktop/first-token", "desktop/cold-start", "desktop/awq-vs-fp16")
    ),
}


def suite(
    name: Annotated[str, typer.Argument(help="orin or desktop")],
    emulate: Emulate = None,
    resume: Annotated[bool, typer.Option(help="keep finished runs, go on with the unfinished one")] = False,
    apply: Apply = False,
    install: Install = True,
    plan: Annotated[bool, typer.Option("--plan", help="only print what would be run, and how long it takes")] = False,
    results: Results = RESULTS,
    scenarios: Annotated[
        Path | None, typer.Option(help="folder of the scenarios; the shipped ones by default", show_default=False)
    ] = None,
) -> None:
    """Run the shipped scenarios for a board or a desktop GPU, in order, with one report at the end.

    Example: bench suite orin --apply
    Example: bench suite orin --emulate orin-nx
    """
    from bench.cli.progress import watch
    from bench.cli.signals import ends_on_term
    from bench.errors import BenchError, Exit, UnknownName, UsageError
    from bench.judge.stopping import stop_rule
    from bench.judge.validity import judge_folder
    from bench.probes.machine import require_board
    from bench.run.conductor import Rules, Setting, carry_out
    from bench.scenario import shipped
    from bench.scenario.load import Scenario

    if name not in SUITES:
        raise UnknownName("suite", name, SUITES)
    chosen = SUITES[name]
    if emulate and not chosen.emulated:
        raise UsageError(f"the suite {name!r} has no emulated form", hint="bench suite orin --emulate orin-nx")
    require_board(emulate)
    _require(name, chosen, emulate)
    files = [
        (scenarios or shipped.folder()) / f"{one}.yaml" for one in (chosen.emulated if emulate else chosen.scenarios)
    ]
    loaded = [Scenario.load(file) for file in files]
    _announce(loaded, results)
    if plan:
        return
    runs: list[Path] = []
    failed: list[str] = []
    with ends_on_term(), watch() as progress:
        setting = Setting(
            results=results,
            progress=progress,
            resume="finished too" if resume else "never",
            install=install,
            emulate=emulate,
            # An emulated board has no owner to ask: its clocks are set and put back.
            apply=apply or bool(emulate),
        )
        for scenario in loaded:
            progress.note(f"scenario {scenario.name}")
            try:
                rules = Rules(judge_folder, stop_rule(scenario))
                runs.append(carry_out(scenario, replace(setting, rules=rules)))
            except BenchError as error:
                # One scenario that cannot run here must not cost the others.
                failed.append(f"{scenario.name}: {error}")
                progress.note(f"{scenario.name} was left out: {error.message}")
    measured = _report(name, runs) if runs else False
    for words in failed:
        typer.echo(f"left out  {words}", err=True)
    if not runs:
        raise typer.Exit(Exit.USAGE)
    if failed or not measured:
        raise typer.Exit(Exit.INVALID)


def _require(name: str, chosen: Suite, emulate: str | None) -> None:
    """UsageError with what was found, what was expected and how to go on, unless this is the right machine."""
    from bench.errors import UsageError
    from bench.probes.fingerprint import fingerprint
    from bench.probes.power_mode import matches

    if emulate:
        return
    found = fingerprint()["host_class"]
    if not matches(found, chosen.host_class):
        way = (
            f"bench suite {name} --emulate orin-nx shows the whole road on an emulated board; "
            if chosen.emulated
            else ""
        )
        raise UsageError(
            f"this machine is {found}; the suite {name!r} is for {chosen.what} (host class {chosen.host_class})",
            hint=f"{way}`bench doctor` says what this machine can measure; scenarios/quick.yaml runs anywhere",
        )


def _announce(loaded: Sequence[Scenario], results: Path) -> None:
    """The order, and how long each is expected to take."""
    from bench.plan.blocks import draw
    from bench.plan.budget import expect, measured

    total = 0.0
    for scenario in loaded:
        drawn = draw(scenario)
        budget = expect(drawn, scenario.model, measured(results, scenario.name, scenario.digest), scenario.base)
        total += budget.seconds
        guess = " (a guess)" if budget.guessed else ""
        typer.echo(
            f"{scenario.name:24} {counted(len(drawn.launches), 'launch'):>12}  {budget.seconds / 60:6.1f} min{guess}"
        )
    typer.echo(f"{'together':24} {'':12}  {total / 60:6.1f} min, without installing or fetching anything")


def _report(name: str, folders: Sequence[Path]) -> bool:
    """Print the tables and write one page; whether every run has at least one launch that counts."""
    from rich.console import Console

    from bench.analyse.run import Run
    from bench.report import html, text

    runs = [Run.open(folder) for folder in folders]
    for run in runs:
        Console().print(text.summary(run))
    page = html.write(runs, Path("reports") / f"suite-{name}-{runs[-1].manifest.run_id}.html")
    for folder in folders:
        typer.echo(f"run     {folder}")
    typer.echo(f"report  {page}")
    return all(any(launch.record.status == "ok" for launch in run.all) for run in runs)
