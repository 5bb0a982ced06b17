"""`bench tune`: which settings make the first token come sooner, tried and confirmed on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.options import RESULTS, Apply, Install, Pretend, Report, Results, json_of
from bench.cli.output import print_json
from bench.phrases import flow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bench.judge.decide import Interval
    from bench.scenario.load import Scenario
    from bench.scenario.variant import Variant
    from bench.tune.search import Confirmed, Found


def tune(
    scenario: Annotated[Path, typer.Argument(help="scenario file with `tune: levers:`")],
    variant: Annotated[
        str | None, typer.Option(help="variant to start from: its id; the gate's baseline, or the first, by default")
    ] = None,
    results: Results = RESULTS,
    resume: Annotated[
        bool, typer.Option(help="keep what is finished of the newest search, go on with the rest")
    ] = False,
    install: Install = False,
    emulate: Pretend = None,
    apply: Apply = False,
    report: Report = True,
    json: Annotated[bool, json_of("what was found")] = False,
) -> None:
    """Search flags, variables, warm-ups, page cache states and start modes for a faster first token.

    Up to eight candidates race in random blocks; more are screened in blocks that halve in width. A launch that can no
    longer be among the best is stopped. The best two then meet the start again, on fresh launches, and only these
    count. The gate's other metrics must not get worse than it allows. The answer is a scenario, beside the runs.

    0 a better setting was confirmed, 2 none was shown to be better, 3 nothing that counts, 4 usage.

    Example: bench tune scenarios/studies/tune-first-token.yaml
    """
    from bench.analyse.run import Run
    from bench.cli.progress import watch
    from bench.cli.signals import ends_on_term
    from bench.errors import Exit
    from bench.probes.machine import require_board
    from bench.report import html
    from bench.run.conductor import Setting
    from bench.scenario.load import Scenario
    from bench.tune.search import search
    from bench.tune.winner import kept

    loaded = Scenario.load(scenario)
    start = _start(loaded, variant)
    require_board(emulate)
    with ends_on_term(), watch(quiet=json) as progress:
        setting = Setting(
            results=results,
            progress=progress,
            resume="finished too" if resume else "never",
            install=install,
            emulate=emulate,
            apply=apply,
        )
        found = search(loaded, start, setting)
    runs = [Run.open(folder) for folder in found.runs]
    name = f"tune-{loaded.name.removeprefix('tune-')}-{runs[-1].manifest.run_id}.html"
    page = html.write(runs, Path("reports") / name) if report else None
    document = _document(found, start, page)
    answer = kept(loaded, start, found, results, document)
    document["scenario"] = str(answer) if answer else None
    if json:
        print_json(document)
    else:
        typer.echo("\n".join(_lines(found, start)))
        for run in runs:
            typer.echo(f"run     {run.path}")
        if answer is not None:
            typer.echo(f"answer  {answer}  (bench serve {answer})")
        if page is not None:
            typer.echo(f"report  {page}")
    if found.chosen is None or found.chosen.doubtful:
        raise typer.Exit(Exit.INCONCLUSIVE)


def _start(scenario: Scenario, name: str | None) -> Variant:
    if name is not None:
        return scenario.variant(name)
    known = scenario.variants
    selector = scenario.model.gate.baseline.model_extra if scenario.model.gate else None
    return next((one for one in known if selector and one.matches(selector)), known[0])


def _lines(found: Found, start: Variant) -> Iterator[str]:
    from bench.report.verdicts.sentences import columns
    from bench.scenario.variant import level_text

    title = found.objective.title
    yield f"{start.id}: {title}, against what it is now"
    yield ""
    rows = [("race", "change (90 %)", "blocks", "")]
    for one in found.tried:
        effect = found.effects.get(one.id)
        blocks = str(effect.blocks) if effect else "0"
        rows.append((one.id, _change(found, effect.interval if effect else None), blocks, _fate(found, one.id)))
    yield from columns(rows)
    if len(found.tried) < len(found.field.candidates):
        yield f"(screened: {len(found.tried)} of {len(found.field.candidates)} combinations were launched)"
    yield ""
    if not found.confirmed:
        yield f"No candidate looked better than {start.id} in the race. What the engine has now stays."
        return
    yield from columns(
        [
            ("confirmation", f"change ({found.confidence:.0%})".replace("%", " %"), "blocks", ""),
            *(
                (one.candidate.id, _change(found, one.loss), str(one.gain.blocks), _verdict(one))
                for one in found.confirmed
            ),
        ]
    )
    yield ""
    if found.chosen is None:
        yield f"None of them was shown to be better than {start.id} on launches of its own."
        return
    changes = ", ".join(f"{lever}: {level_text(level)}" for lever, level in found.chosen.candidate.changes.items())
    yield f"Found: {changes}. In a scenario, `engines:` has under {start.engine_name}:"
    yield f"  {start.engine_name}: {_yaml(found.chosen)}"


def _fate(found: Found, name: str) -> str:
    if name in found.out:
        return f"out: {found.out[name]}"
    return "in the confirmation" if any(one.candidate.id == name for one in found.confirmed) else ""


def _verdict(one: Confirmed) -> str:
    word = "better" if one.better else f"not shown to be better{f': {one.gain.reason}' if one.gain.reason else ''}"
    guarded = [f"{result.metric.title} {result.verdict}" for result in one.comparison.gated]
    return "; ".join([word, *guarded])


def _change(found: Found, interval: Interval | None) -> str:
    """An interval in log units, positive is worse, as a change of the metric."""
    import math

    if interval is None:
        return "–"
    sign = -1 if found.objective.direction == "higher" else 1
    low, high = sorted((sign * interval.low, sign * interval.high))
    middle = math.expm1(sign * interval.estimate)
    if not math.isfinite(low):
        return f"{middle:+.1%}"
    return f"{middle:+.1%} ({math.expm1(low):+.1%} to {math.expm1(high):+.1%})"


def _yaml(one: Confirmed) -> str:
    """The engine as a scenario has it, on one line, with all that it had before."""
    engine = one.candidate.variant.engine
    given = engine.model_dump(by_alias=True, exclude_unset=True)
    return flow(given)


def _document(found: Found, start: Variant, page: Path | None) -> dict[str, Any]:
    from dataclasses import asdict

    from bench.record.documents import plain
    from bench.report.verdicts.data import compared

    document: dict[str, Any] = plain(
        {
            "start": start.id,
            "objective": found.objective.id,
            "race": [
                {
                    "id": one.id,
                    "changes": dict(one.changes),
                    "effect": asdict(effect) if (effect := found.effects.get(one.id)) else None,
                    "out": found.out.get(one.id),
                }
                for one in found.tried
            ],
            "combinations": len(found.field.candidates),
            "confirmed": [
                {
                    "id": one.candidate.id,
                    "changes": dict(one.candidate.changes),
                    "gain": asdict(one.gain),
                    "better": one.better,
                    "comparison": compared(one.comparison),
                }
                for one in found.confirmed
            ],
            "chosen": found.chosen.candidate.id if found.chosen else None,
            "runs": [str(folder) for folder in found.runs],
            "report": str(page) if page else None,
        }
    )
    return document
