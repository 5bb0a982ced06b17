"""`bench aa`: the gate's false alarms, counted on a real engine on this very machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import BASELINES, RESULTS, AsJson, Baselines, Results, ScenarioFile
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
    from collections.abc import Sequence

    from bench.judge.aa import Trial


def aa(
    scenario: ScenarioFile,
    sessions: Sessions = 20,
    blocks: Blocks = None,
    variant: Chosen = None,
    margin: Margins = None,
    results: Results = RESULTS,
    baselines: Baselines = BASELINES,
    resume: Resume = False,
    resume_if_any: ResumeIfAny = False,
    analyse: Annotated[Path | None, typer.Option(help="judge this A/A run again, launch nothing")] = None,
    json: AsJson = False,
) -> None:
    """Measure the false-alarm rate: two labels, one variant. The gate binds on this machine once it is known.

    The record goes to results/baselines/<host class>/; commit it. Twenty sessions are needed for it to count.

    Example: bench aa scenarios/quick.yaml --sessions 20 --blocks 5
    """
    from dataclasses import asdict, replace

    from bench.analyse.run import Run
    from bench.judge import aa
    from bench.record.documents import plain
    from bench.scenario.load import Scenario

    loaded = Scenario.load(scenario)
    chosen, size, judged = variant_of(loaded, variant), blocks or loaded.model.design.blocks, margins_of(loaded, margin)
    arms = [replace(chosen, id=label, factors={**chosen.factors, "label": label}) for label in ("a", "b")]
    folder = analyse or launch_arms(loaded, arms, sessions * size, results, resume, resume_if_any, quiet=json)
    run = Run.open(folder)
    found = aa.sessions(run.per_launch, "a", "b", size, judged)
    record = aa.aa_record(run, found, size, judged, chosen.id)
    path = aa.save(record, baselines)
    if json:
        print_json(plain(asdict(record)) | {"run": str(folder), "file": str(path)})
        return
    typer.echo(
        f"A/A of {loaded.name} / {chosen.id} on {record.host_class}: {counted(len(found), 'session')} of {size} blocks"
    )
    typer.echo(f"  gate    FAIL in {aa.Rate(record.fails, record.sessions)}; {_counted(found)}")
    for name, count in record.alarms.items():
        spread = record.spread.get(name)
        apart = f"; sessions scatter by {spread:.1%}" if spread is not None else ""
        typer.echo(f"  {name}: 'no change' rejected at 5 % in {aa.Rate(count, record.sessions)}{apart}")
    typer.echo(f"  {record.doubt or 'the gate binds on this machine in this state'}\nrecord  {path}\nrun     {folder}")


def _counted(found: Sequence[Trial]) -> str:
    words = [one.verdict.value for one in found if one.verdict]
    return ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(sorted(words)))
