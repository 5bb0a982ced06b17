"""`bench quality`: what the answers lost, beside what speed and memory gained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from bench.analyse.divergence import Quality
    from bench.analyse.estimate import Estimate
    from bench.judge.trade import Trade


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("quality")(quality)


def quality(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run; a folder of runs stands for its newest.")],
    answers: Annotated[bool, typer.Option("--answers", help="Print the use cases' answers side by side.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Compare every variant's answers with the reference's, and say what it gains and loses.

    Example: bench quality results/awq-vs-fp16-cpu
    """
    import json
    from dataclasses import asdict

    from bench.analyse.claim import findings
    from bench.analyse.run import Run
    from bench.judge.limit import limits
    from bench.judge.trade import reference, trades
    from bench.record.documents import plain

    opened = Run.open(run)
    found = trades(opened)
    judged = limits(opened)
    if as_json:
        rows = [
            plain(asdict(trade)) | {"sentence": trade.sentence, "claim": [asdict(one) for one in findings(trade)]}
            for trade in found
        ]
        document = {"reference": reference(opened), "variants": rows, "limits": [asdict(limit) for limit in judged]}
        typer.echo(json.dumps(plain(document), indent=2, ensure_ascii=False))
        return
    typer.echo(f"against {reference(opened)}")
    for trade in found:
        _print(trade)
        for finding in findings(trade) if "awq" in trade.variant else ():
            typer.echo(f"    claim: {finding.claim}: {finding.holds}: {finding.evidence}")
        if answers:
            _answers(trade.quality)
    for limit in judged:
        typer.echo(f"{limit.verdict:<13} {limit.variant}: {limit.reason}")


def _print(trade: Trade) -> None:
    typer.echo(f"\n{trade.sentence}")
    if trade.status != "ok":
        return
    seen = trade.quality
    typer.echo(f"    KL          {_figure(seen.kl, 4)}{'  a lower bound' if seen.kl_kind == 'lower bound' else ''}")
    typer.echo(
        f"    perplexity  {_figure(seen.perplexity, 2)}, {_figure(seen.perplexity_ratio, 3)} times the reference's"
    )
    typer.echo(f"    top token   {_figure(seen.top1, 3)} the same")
    if seen.agreement is None:
        typer.echo(f"    answers     {seen.agreement_reason}")
        return
    until = seen.agreement.median_until
    parted = f", {until:g} {seen.agreement.units} until they part (median)" if until is not None else ""
    typer.echo(f"    answers     {_figure(seen.agreement.share, 3)} equal of {len(seen.agreement.pairs)}{parted}")


def _answers(seen: Quality) -> None:
    for pair in seen.agreement.founding if seen.agreement else ():
        typer.echo(f"    {pair.label.removeprefix('founding:')}, turn {pair.turn + 1}")
        typer.echo(f"      {seen.against}: {pair.reference.strip()}")
        typer.echo(f"      {seen.variant}: {pair.answer.strip()}")


def _figure(estimate: Estimate, places: int) -> str:
    if estimate.value is None:
        return f"– ({estimate.reason})"
    if estimate.low is None:
        return f"{estimate.value:.{places}f}"
    return f"{estimate.value:.{places}f} ({estimate.low:.{places}f} … {estimate.high:.{places}f})"
