"""`bench run`: the main job."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.record.schema import Check
    from bench.scenario.load import Scenario


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(name="run")(run)


def run(
    scenario: Annotated[Path, typer.Argument(help="scenario file")],
    results: Annotated[Path, typer.Option(help="folder that runs are kept in")] = Path("results"),
    resume: Annotated[bool, typer.Option(help="go on with the newest unfinished run of this scenario")] = False,
    install: Annotated[bool, typer.Option(help="install missing engine environments first")] = False,
    emulate: Annotated[str | None, typer.Option(help="pretend to be this board; every page says so")] = None,
    apply: Annotated[bool, typer.Option(help="set the declared power mode and clocks; put back afterwards")] = False,
    report: Annotated[bool, typer.Option(help="write the HTML page when done")] = True,
    json: Annotated[bool, typer.Option("--json", help="print the run's folder and summary as JSON")] = False,
) -> None:
    """Launch every variant of a scenario, in random blocks, and say what was seen.

    Example: bench run scenarios/quick.yaml
    """
    from bench.cli.progress import watch
    from bench.cli.signals import ends_on_term
    from bench.run import execute, unfinished
    from bench.scenario.load import Scenario

    loaded = Scenario.load(scenario)
    going_on = unfinished(results, loaded) if resume else None
    with ends_on_term(), watch(quiet=json) as progress:
        if install:
            _install(loaded, progress.preparing)
        folder = execute(
            loaded,
            results=results,
            progress=progress,
            judge=_judge(),
            stop_rule=_stop_rule(loaded),
            resume=going_on,
            emulate=emulate,
            apply=apply,
        )
    _conclude(folder, report=report, as_json=json)


def _install(scenario: Scenario, progress: Callable[[str], None]) -> None:
    from bench.environments.environment import install, needed

    for name in sorted({name for variant in scenario.variants if (name := needed(variant.engine))}):
        install(name, progress=progress)


def _judge() -> Callable[[Path], list[Check]]:
    from bench.judge.validity import rule

    return rule()


def _stop_rule(scenario: Scenario) -> Callable[[Path], str | None] | None:
    from bench.judge.stopping import stop_rule

    return stop_rule(scenario)


def _conclude(folder: Path, *, report: bool, as_json: bool) -> None:
    """Print the table, and where everything is."""
    from rich.console import Console

    from bench.analyse.run import Run
    from bench.report import html, text

    run = Run.open(folder)
    page = html.write(run, Path("reports") / f"{run.manifest.scenario}-{run.manifest.run_id}.html") if report else None
    if as_json:
        typer.echo(text.as_json(run, page))
        return
    Console().print(text.summary(run))
    typer.echo(f"run     {folder}")
    if page is not None:
        typer.echo(f"report  {page}")
