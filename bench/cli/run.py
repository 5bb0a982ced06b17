"""`bench run`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import (
    RESULTS,
    Apply,
    ClientAddress,
    ClientHosts,
    ClientPython,
    Install,
    Pretend,
    Report,
    Results,
    ScenarioFile,
    json_of,
)
from bench.errors import Exit


def run(
    scenario: ScenarioFile,
    results: Results = RESULTS,
    resume: Annotated[bool, typer.Option(help="go on with the newest unfinished run of this scenario")] = False,
    resume_if_any: Annotated[
        bool, typer.Option("--resume-if-any", help="the same if there is one, and else start a new run: for CI")
    ] = False,
    install: Install = False,
    emulate: Pretend = None,
    apply: Apply = False,
    client: ClientHosts = None,
    client_python: ClientPython = None,
    client_address: ClientAddress = None,
    report: Report = True,
    json: Annotated[bool, json_of("the run's folder and summary")] = False,
) -> None:
    """Launch every variant of a scenario, in random blocks, and say what was seen.

    0 the launches that count are in the table, 3 none counts, 4 usage. `bench gate` judges them.

    Example: bench run scenarios/quick.yaml
    """
    from bench.cli.progress import watch
    from bench.cli.signals import ends_on_term
    from bench.judge.stopping import stop_rule
    from bench.judge.validity import judge_folder
    from bench.probes.machine import require_board
    from bench.run.clients import asked
    from bench.run.conductor import Rules, Setting, carry_out
    from bench.scenario.load import Scenario

    loaded = Scenario.load(scenario)
    require_board(emulate)
    with ends_on_term(), watch(quiet=json) as progress:
        setting = Setting(
            results=results,
            progress=progress,
            rules=Rules(judge_folder, stop_rule(loaded)),
            resume="always" if resume else "if any" if resume_if_any else "never",
            install=install,
            emulate=emulate,
            apply=apply,
            client=asked(loaded, client or (), client_python, client_address),
        )
        folder = carry_out(loaded, setting)
    if not _conclude(folder, report=report, as_json=json):
        raise typer.Exit(Exit.INVALID)


def _conclude(folder: Path, *, report: bool, as_json: bool) -> bool:
    """Print the table, and where everything is; whether any launch counts."""
    from rich.console import Console

    from bench.analyse.run import Run
    from bench.report import html, text

    run = Run.open(folder)
    page = html.write(run, Path("reports") / f"{run.manifest.scenario}-{run.manifest.run_id}.html") if report else None
    if as_json:
        typer.echo(text.as_json(run, page))
    else:
        Console().print(text.summary(run))
        typer.echo(f"run     {folder}")
        if page is not None:
            typer.echo(f"report  {page}")
    return any(launch.record.status == "ok" for launch in run.all)
