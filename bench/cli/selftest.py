"""`bench aa` and `bench inject`: the gate tried on itself, on a real engine on this very machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.baselines import STORE, AsJson, Baselines
from bench.cli.output import margins, print_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.judge.aa import Session
    from bench.plan.launches import Plan
    from bench.scenario.load import Scenario
    from bench.scenario.variant import Slowdown, Variant

Results = Annotated[Path, typer.Option(help="folder that runs are kept in")]
Chosen = Annotated[str | None, typer.Option(help="variant to try it with; the first by default")]
Sessions = Annotated[int, typer.Option(min=1, help="sessions, each judged as a run of its own")]
Blocks = Annotated[int | None, typer.Option(min=3, help="blocks per session; the scenario's own by default")]
Margins = Annotated[list[str] | None, typer.Option(help="metric=5%; the gate's, or the usual ones, by default")]
Resume = Annotated[bool, typer.Option(help="go on with the newest unfinished study of this scenario")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(aa)
    app.command()(inject)


def aa(
    scenario: Annotated[Path, typer.Argument(help="scenario file")],
    sessions: Sessions = 20,
    blocks: Blocks = None,
    variant: Chosen = None,
    margin: Margins = None,
    results: Results = Path("results"),
    baselines: Baselines = STORE,
    resume: Resume = False,
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
    chosen, size, judged = _variant(loaded, variant), blocks or loaded.model.design.blocks, _judged(loaded, margin)
    arms = [replace(chosen, id=label, factors={**chosen.factors, "label": label}) for label in ("a", "b")]
    folder = analyse or _carry_out(loaded, arms, sessions * size, results, resume=resume, quiet=json)
    run = Run.open(folder)
    found = aa.sessions(run.per_launch, "a", "b", size, judged)
    record = aa.aa_record(run, found, size, judged, chosen.id)
    path = aa.save(record, baselines)
    if json:
        print_json(plain(asdict(record)) | {"run": str(folder), "file": str(path)})
        return
    typer.echo(f"A/A of {loaded.name} / {chosen.id} on {record.host_class}: {len(found)} sessions of {size} blocks")
    typer.echo(f"  gate    FAIL in {aa.Rate(record.fails, record.sessions)}; {_counted(found)}")
    for name, count in record.alarms.items():
        spread = record.spread.get(name)
        apart = f"; sessions scatter by {spread:.1%}" if spread is not None else ""
        typer.echo(f"  {name}: 'no change' rejected at 5 % in {aa.Rate(count, record.sessions)}{apart}")
    typer.echo(f"  {record.doubt or 'the gate binds on this machine in this state'}\nrecord  {path}\nrun     {folder}")


def inject(
    scenario: Annotated[Path, typer.Argument(help="scenario file")],
    ttft: Annotated[list[str] | None, typer.Option(help="slow the first token by 10%; may be repeated")] = None,
    itl: Annotated[list[str] | None, typer.Option(help="slow every further token by 5%; one per --ttft")] = None,
    sessions: Sessions = 1,
    blocks: Blocks = None,
    variant: Chosen = None,
    margin: Margins = None,
    results: Results = Path("results"),
    resume: Resume = False,
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
    chosen, size, judged = _variant(loaded, variant), blocks or loaded.model.design.blocks, _judged(loaded, margin)
    steps = [Slowdown(), *_slowdowns(ttft or [], itl or [])]
    names = ["plain", *(_name(step) for step in steps[1:])]
    arms = [
        replace(chosen, id=name, factors={**chosen.factors, "injected": name}, slowdown=step)
        for name, step in zip(names, steps, strict=True)
    ]
    folder = analyse or _carry_out(loaded, arms, sessions * size, results, resume=resume, quiet=json)
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
    typer.echo(f"injected into {loaded.name} / {chosen.id}: {sessions} session(s) of {size} blocks")
    for row in rows:
        seen = ", ".join(f"{ratio - 1:+.1%}" for ratio in row["ratios"])
        rate = aa.Rate(int(row["fails"]), int(row["sessions"]))
        typer.echo(f"  {row['injected']:<16} {row['metric']:<18} FAIL in {rate}; measured {seen}")
    typer.echo(f"run     {folder}")


def _carry_out(
    scenario: Scenario, arms: Sequence[Variant], blocks: int, results: Path, *, resume: bool, quiet: bool
) -> Path:
    from bench.cli.progress import watch
    from bench.cli.signals import ends_on_term
    from bench.judge.validity import rule
    from bench.plan.blocks import in_blocks
    from bench.run import execute, unfinished

    planned: Plan = in_blocks(arms, blocks, scenario.model.design.seed)
    going_on = unfinished(results, scenario, planned) if resume else None
    with ends_on_term(), watch(quiet=quiet) as progress:
        return execute(scenario, results=results, plan=planned, progress=progress, judge=rule(), resume=going_on)


def _variant(scenario: Scenario, name: str | None) -> Variant:
    from bench.errors import UnknownName

    for variant in scenario.variants:
        if name in {None, variant.id}:
            return variant
    raise UnknownName("variant", str(name), (variant.id for variant in scenario.variants))


def _judged(scenario: Scenario, given: list[str] | None) -> Mapping[str, float]:
    from bench.analyse.metrics import metric
    from bench.judge.baseline import DEFAULT_MARGINS
    from bench.scenario.measures import margin

    gate = scenario.model.gate
    asked = margins(given or ()) or ({name: margin(text) for name, text in gate.metrics.items()} if gate else {})
    return {metric(name).id: share for name, share in asked.items()} or {
        name: share for name, share in DEFAULT_MARGINS.items() if scenario.model.workload.requests > metric(name).needs
    }


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


def _counted(found: Sequence[Session]) -> str:
    words = [one.verdict.value for one in found if one.verdict]
    return ", ".join(f"{words.count(word)} {word}" for word in dict.fromkeys(sorted(words)))
