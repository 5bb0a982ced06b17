"""`bench check`: all that is wrong with scenario files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.options import AsJson
from bench.cli.output import print_json
from bench.errors import Exit, Problem, ScenarioError
from bench.phrases import counted

if TYPE_CHECKING:
    from bench.scenario.load import Scenario


def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Scenario files.")], json: AsJson = False
) -> None:
    """Say everything that is wrong with scenario files; start nothing.

    Example: bench check scenarios/*.yaml
    """
    from bench.run.refusals import require
    from bench.scenario.load import Scenario

    problems: list[Problem] = []
    for file in files:
        try:
            scenario = Scenario.load(file)
            require(scenario)
        except ScenarioError as error:
            problems += error.problems
            if not json:
                typer.echo(error, err=True)
        else:
            if not json:
                typer.echo(f"{file}  ok: {_amount(scenario)}")
    if json:
        found = [_problem(problem) for problem in problems]
        print_json({"ok": not found, "files": [str(file) for file in files], "problems": found})
    if problems:
        raise typer.Exit(Exit.USAGE)


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
    return f"{counted(variants, 'variant')} × {counted(blocks, 'block')} = {counted(variants * blocks, 'launch')}"
