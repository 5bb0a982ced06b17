"""Options and arguments that several commands share, each declared once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.home import BASELINES, RESULTS

__all__ = ["BASELINES", "RESULTS"]


def json_of(what: str) -> object:
    """The option --json where it prints something of its own."""
    return typer.Option("--json", help=f"print {what} as JSON")


AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]
Baselines = Annotated[Path, typer.Option(help="folder of baselines and A/A records")]
Results = Annotated[Path, typer.Option(help="folder that runs are kept in")]
Earlier = Annotated[Path, typer.Option(help="folder of earlier runs, for the estimate")]

ScenarioFile = Annotated[Path, typer.Argument(help="scenario file")]
RunFolder = Annotated[Path, typer.Argument(help="a run's folder, or a folder of runs (the newest is taken)")]
BaselineFile = Annotated[Path, typer.Argument(help="a baseline file")]

Install = Annotated[bool, typer.Option(help="install missing engine environments first")]
Apply = Annotated[bool, typer.Option(help="set the declared power mode and clocks; put back afterwards")]
ClientHosts = Annotated[
    list[str] | None,
    typer.Option("--client", metavar="HOST", help="send the load from this host, by ssh; several share it"),
]
ClientPython = Annotated[
    str | None, typer.Option(metavar="PYTHON", help="the interpreter there that has the same firsttoken")
]
ClientAddress = Annotated[str | None, typer.Option(metavar="ADDRESS", help="this machine as the client's host sees it")]
Report = Annotated[bool, typer.Option(help="write the HTML page when done")]
Pretend = Annotated[str | None, typer.Option(help="pretend to be this board; every page says so")]
Emulate = Annotated[str | None, typer.Option(metavar="BOARD", help="an emulated board: orin-nx, agx-orin, thor, …")]
Fault = Annotated[list[str] | None, typer.Option(metavar="KIND@S", help="on the emulated board: rail@5, hot@10+30, …")]
