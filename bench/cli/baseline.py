"""`bench baseline`: small JSON files, reviewed like code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import BASELINES, AsJson, BaselineFile, Baselines
from bench.cli.output import margins, print_json, write
from bench.phrases import counted

HELP = """Keep, list and prune baselines: small JSON files, reviewed like code.

Example: bench baseline add results/nightly --variant vllm
Example: bench baseline list
"""
baseline = typer.Typer(help=HELP, no_args_is_help=True)


@baseline.command("add")
def add(
    run: Annotated[Path, typer.Argument(help="a finished run")],
    variant: Annotated[str | None, typer.Option(help="variant to store; the only one by default")] = None,
    reference: Annotated[str | None, typer.Option(help="variant that is the reference workload")] = None,
    margin: Annotated[list[str] | None, typer.Option(help="metric=5%, for a new baseline; may be repeated")] = None,
    baselines: Baselines = BASELINES,
    json: AsJson = False,
) -> None:
    """Store a run as one more session of its variant's baseline; the first one starts the file.

    Example: bench baseline add results/nightly --variant vllm
    """
    from bench.analyse.run import Run
    from bench.errors import UsageError
    from bench.judge import baseline as kept

    opened = Run.open(run)
    if variant is None and len(opened.variants) > 1:
        raise UsageError(f"name the variant: {', '.join(opened.variants)}", hint="--variant, and --reference if one is")
    fresh = kept.start(
        opened, variant or opened.variants[0], reference=reference, margins=margins(margin or ()) or None
    )
    path = baselines / fresh.file
    known = kept.load(path) if path.exists() else fresh
    grown = kept.add(known, opened)
    kept.save(grown, baselines)
    count = len(grown.sessions)
    if json:
        print_json({"file": str(path), "sessions": count})
    else:
        typer.echo(f"{path}: {counted(count, 'session')}; commit it for review")


@baseline.command("list")
def list_(baselines: Baselines = BASELINES, json: AsJson = False) -> None:
    """Every baseline and A/A record of a folder.

    Example: bench baseline list
    """
    from bench.judge import aa
    from bench.judge import baseline as kept

    rows = []
    for path in kept.stored(baselines):
        one = kept.load(path)
        taken = sorted(session.taken for session in one.sessions)
        rows.append(
            {
                "file": str(path),
                "kind": "baseline",
                "host_class": one.host_class,
                "sessions": len(one.sessions),
                "first": taken[0] if taken else None,
                "last": taken[-1] if taken else None,
            }
        )
    for path in sorted(baselines.glob("*/aa-*.json")):
        record = aa.load(path)
        rows.append(
            {
                "file": str(path),
                "kind": "A/A",
                "host_class": record.host_class,
                "sessions": record.sessions,
                "first": record.taken,
                "last": record.taken,
            }
        )
    if json:
        print_json(rows)
        return
    if not rows:
        typer.echo(f"no baselines in {baselines}; `bench baseline add RUN` makes one")
    for row in rows:
        held = counted(int(str(row["sessions"])), "session")
        typer.echo(f"{row['kind']:<8}  {held:>12}, {row['first']} to {row['last']}  {row['file']}")


@baseline.command("show")
def show(path: BaselineFile, json: AsJson = False) -> None:
    """A baseline's sessions, and what a new one may be.

    Example: bench baseline show results/baselines/jetson-orin-nx-16gb/orin-first-token--vllm.json
    """
    from dataclasses import asdict

    from bench.judge import baseline as kept
    from bench.judge import predict
    from bench.record.documents import plain

    one = kept.load(path)
    if json:
        print_json(plain(asdict(one)))
        return
    typer.echo(f"{one.scenario} / {one.variant} on {one.host_class}: {counted(len(one.sessions), 'session')}")
    for key, value in one.machine.items():
        typer.echo(f"  {key}: {value}")
    for name, margin in one.margins.items():
        typer.echo(predict.expectation(one, name, margin))
    for session in one.sessions:
        values = ", ".join(f"{name} {value:g}" for name, value in session.values.items())
        typer.echo(f"  {session.taken}  {session.run}  {counted(session.launches, 'launch')}  {values}")


@baseline.command("prune")
def prune(
    path: BaselineFile,
    keep: Annotated[int | None, typer.Option(min=1, help="keep the newest so many sessions")] = None,
    run: Annotated[list[str] | None, typer.Option(help="drop the session of this run; may be repeated")] = None,
) -> None:
    """Drop sessions from a baseline.

    Example: bench baseline prune results/baselines/jetson-orin-nx-16gb/orin-first-token--vllm.json --keep 20
    """
    from bench.errors import UsageError
    from bench.judge import baseline as kept

    if keep is None and not run:
        raise UsageError("nothing to prune", hint="--keep N, or --run RUN-ID")
    before = kept.load(path)
    after = kept.prune(before, keep=keep, runs=run or ())
    kept.save(after, path.parent.parent)
    typer.echo(f"{path}: {len(before.sessions)} → {counted(len(after.sessions), 'session')}")


@baseline.command("rebuild")
def rebuild(
    path: BaselineFile,
    scenario: Annotated[Path, typer.Argument(help="today's scenario")],
    out: Annotated[Path, typer.Option(help="scenario file to write; - is standard output")],
    variant: Annotated[str | None, typer.Option(help="today's variant; of the baseline's name by default")] = None,
) -> None:
    """Write a scenario that interleaves the recorded baseline with today's variant; run it, then gate it.

    Example: bench baseline rebuild results/baselines/jetson/quick--bf16.json scenarios/quick.yaml --out both.yaml
    """
    from bench.judge import baseline as kept
    from bench.judge.rebuild import rebuild as interleave
    from bench.scenario.load import Scenario

    write(out, interleave(kept.load(path), Scenario.load(scenario), variant))
