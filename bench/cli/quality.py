"""`bench quality`: what the answers lost, beside what speed and memory gained."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import AsJson
from bench.cli.output import print_json

if TYPE_CHECKING:
    from bench.analyse.divergence import Divergence
    from bench.analyse.estimate import Estimate
    from bench.judge.trade import Trade


def quality(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run; a folder of runs stands for its newest.")],
    answers: Annotated[bool, typer.Option("--answers", help="Print the use cases' answers side by side.")] = False,
    json: AsJson = False,
) -> None:
    """Compare every variant's answers with the reference's, and say what it gains and loses.

    Example: bench quality results/awq-vs-fp16-cpu
    """
    from dataclasses import asdict

    from bench.analyse.run import Run
    from bench.judge.gate import limits
    from bench.judge.trade import reference, trades
    from bench.record.documents import plain
    from bench.report.claims import of_awq

    opened = Run.open(run)
    found = trades(opened)
    judged = limits(opened)
    if json:
        rows = [
            plain(asdict(trade)) | {"sentence": trade.sentence, "claim": [asdict(one) for one in of_awq(opened, trade)]}
            for trade in found
        ]
        document = {"reference": reference(opened), "variants": rows, "limits": [asdict(limit) for limit in judged]}
        print_json(plain(document))
        return
    typer.echo(f"against {reference(opened)}")
    for trade in found:
        _print(trade)
        for finding in of_awq(opened, trade):
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


def _answers(seen: Divergence) -> None:
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
