"""`bench baseline`: small JSON files, reviewed like code."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.output import margins, print_json, write

STORE = Path("results/baselines")
Baselines = Annotated[Path, typer.Option(help="folder of baselines and A/A records")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON")]

store = typer.Typer(help="Keep, list and prune baselines: small JSON files, reviewed like code.", no_args_is_help=True)


@store.command("add")
def add(
    run: Annotated[Path, typer.Argument(help="a finished run")],
    variant: Annotated[str | None, typer.Option(help="variant to store; the only one by default")] = None,
    reference: Annotated[str | None, typer.Option(help="variant that is the reference workload")] = None,
    margin: Annotated[list[str] | None, typer.Option(help="metric=5%, for a new baseline; may be repeated")] = None,
    baselines: Baselines = STORE,
    json: AsJson = False,
) -> None:
    """Store a run as one more session of its variant's baseline; the first one starts the file.

    Example: bench baseline add results/nightly --variant vllm
    """
    from bench.analyse.run import Run
    from bench.errors import UsageError
    from bench.judge import baseline

    opened = Run.open(run)
    if variant is None and len(opened.variants) > 1:
        raise UsageError(f"name the variant: {', '.join(opened.variants)}", hint="--variant, and --reference if one is")
    fresh = baseline.start(
        opened, variant or opened.variants[0], reference=reference, margins=margins(margin or ()) or None
    )
    path = baselines / fresh.file
    known = baseline.load(path) if path.exists() else fresh
    grown = baseline.add(known, opened)
    baseline.save(grown, baselines)
    count = len(grown.sessions)
    if json:
        print_json({"file": str(path), "sessions": count})
    else:
        typer.echo(f"{path}: {count} session{'s' * (count > 1)}; commit it for review")


@store.command("list")
def list_(baselines: Baselines = STORE, json: AsJson = False) -> None:
    """Every baseline and A/A record of a folder.

    Example: bench baseline list
    """
    from bench.judge import aa, baseline

    rows = []
    for path in baseline.stored(baselines):
        one = baseline.load(path)
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
        typer.echo(f"{row['kind']:<8}  {row['sessions']:>3} sessions, {row['first']} to {row['last']}  {row['file']}")


@store.command("show")
def show(path: Annotated[Path, typer.Argument(help="a baseline file")], json: AsJson = False) -> None:
    """A baseline's sessions, and what a new one may be.

    Example: bench baseline show results/baselines/jetson-orin-nx-16gb/ernie--vllm.json
    """
    from dataclasses import asdict

    from bench.judge import baseline, predict
    from bench.record.documents import plain

    one = baseline.load(path)
    if json:
        print_json(plain(asdict(one)))
        return
    typer.echo(f"{one.scenario} / {one.variant} on {one.host_class}: {len(one.sessions)} sessions")
    for key, value in one.machine.items():
        typer.echo(f"  {key}: {value}")
    for name, margin in one.margins.items():
        typer.echo(predict.expectation(one, name, margin))
    for session in one.sessions:
        values = ", ".join(f"{name} {value:g}" for name, value in session.values.items())
        typer.echo(f"  {session.taken}  {session.run}  {session.launches} launches  {values}")


@store.command("prune")
def prune(
    path: Annotated[Path, typer.Argument(help="a baseline file")],
    keep: Annotated[int | None, typer.Option(min=1, help="keep the newest so many sessions")] = None,
    run: Annotated[list[str] | None, typer.Option(help="drop the session of this run; may be repeated")] = None,
) -> None:
    """Drop sessions from a baseline.

    Example: bench baseline prune results/baselines/jetson-orin-nx-16gb/ernie--vllm.json --keep 20
    """
    from bench.errors import UsageError
    from bench.judge import baseline

    if keep is None and not run:
        raise UsageError("nothing to prune", hint="--keep N, or --run RUN-ID")
    before = baseline.load(path)
    after = baseline.prune(before, keep=keep, runs=run or ())
    baseline.save(after, path.parent.parent)
    typer.echo(f"{path}: {len(before.sessions)} → {len(after.sessions)} sessions")


@store.command("rebuild")
def rebuild(
    path: Annotated[Path, typer.Argument(help="a baseline file")],
    scenario: Annotated[Path, typer.Argument(help="today's scenario")],
    out: Annotated[Path, typer.Option(help="scenario file to write; - is standard output")],
    variant: Annotated[str | None, typer.Option(help="today's variant; of the baseline's name by default")] = None,
) -> None:
    """Write a scenario that interleaves the recorded baseline with today's variant; run it, then gate it.

    Example: bench baseline rebuild results/baselines/jetson/ernie--vllm.json scenarios/ernie.yaml --out both.yaml
    """
    from bench.judge import baseline
    from bench.judge.rebuild import rebuild as interleave
    from bench.scenario.load import Scenario

    write(out, interleave(baseline.load(path), Scenario.load(scenario), variant))
