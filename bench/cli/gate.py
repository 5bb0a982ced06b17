"""`bench gate`: a run against its margins; the exit code is the verdict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import BASELINES, AsJson, Baselines, RunFolder
from bench.cli.output import as_json, print_json, write

if TYPE_CHECKING:
    from bench.judge.gate import Judgement


def gate(
    run: RunFolder,
    stored: Annotated[bool, typer.Option(help="judge against stored sessions, not against the run's baseline")] = False,
    variant: Annotated[str | None, typer.Option(help="with --stored: the variant to judge")] = None,
    baselines: Baselines = BASELINES,
    enforce: Annotated[bool, typer.Option(help="let the verdict bind although no A/A study stands behind it")] = False,
    markdown: Annotated[Path | None, typer.Option(help="write Markdown there; - is standard output")] = None,
    junit: Annotated[Path | None, typer.Option(help="write JUnit XML there")] = None,
    summary: Annotated[Path | None, typer.Option("--json-file", help="write JSON there")] = None,
    annotations: Annotated[bool | None, typer.Option(help="print GitHub annotations; on by default there")] = None,
    json: AsJson = False,
) -> None:
    """Judge a run against its scenario's margins; the exit code is the verdict.

    0 pass (or advice only: ADVISORY in the first line), 1 regression, 2 inconclusive, 3 invalid or not comparable
    (never advice), 4 usage. In a GitHub job the Markdown also goes to the job summary.

    Example: bench gate results/quick --junit gate.xml --markdown gate.md
    """
    from bench.analyse.run import Run
    from bench.judge.gate import judge, judge_stored
    from bench.report.verdicts import comment as text
    from bench.report.verdicts import data, sentences
    from bench.report.verdicts import junit as xml

    opened = Run.open(run)
    judged = (
        judge_stored(opened, variant=variant, baselines=baselines, enforce=enforce)
        if stored
        else judge(opened, baselines=baselines, enforce=enforce)
    )
    if json:
        print_json(data.render(judged))
    else:
        typer.echo(sentences.render(judged))
    if markdown:
        write(markdown, text.render(judged))
    if junit:
        write(junit, xml.render(judged))
    if summary:
        write(summary, as_json(data.render(judged)))
    _github(judged, annotations, quiet=json)
    raise typer.Exit(judged.exit_code)


def _github(judged: Judgement, wanted: bool | None, *, quiet: bool) -> None:
    """Annotations, and the job summary, where a GitHub job runs us."""
    import os

    from bench.report.verdicts import comment, github

    inside = os.environ.get("GITHUB_ACTIONS") == "true"
    if (inside if wanted is None else wanted) and not quiet:
        typer.echo(github.render(judged))
    if inside and (summary := os.environ.get("GITHUB_STEP_SUMMARY")):
        with Path(summary).open("a", encoding="utf-8") as file:
            file.write(comment.render(judged) + "\n")
