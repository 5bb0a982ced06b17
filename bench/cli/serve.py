"""`bench serve`: one variant of a scenario, kept warm on a port."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.cli.options import ScenarioFile
from bench.errors import BenchError, LaunchError, ProvisionError

if TYPE_CHECKING:
    from bench.record.launches import HandOverAccount
    from bench.run.serving import Ready
    from bench.scenario.load import Scenario


def serve(
    scenario: ScenarioFile,
    variant: Annotated[
        str | None, typer.Option(help="variant id, as `bench plan` prints it; may be left out if there is one")
    ] = None,
    port: Annotated[int, typer.Option(help="port to serve on; 0 takes a free one", min=0, max=65535)] = 8000,
    json: Annotated[bool, typer.Option("--json", help="say ready as one JSON line")] = False,
    owner: Annotated[int | None, typer.Option(metavar="PID", help="end when this process does", hidden=True)] = None,
) -> None:
    """Start one variant with its warm-up, say ready once a first token came warm, and serve until told to stop.

    A variant whose warm-up is a hand-over is answered for by its first engine until it is warm itself. HUP reads the
    file again and puts what it says now behind the same address: warm before the engine that serves goes, or not at
    all. TERM, Ctrl-C and a terminal that hangs up end the engine with all its children.

    Example: bench serve scenarios/quick.yaml --port 8000
    """
    import tempfile

    from bench.cli.progress import watch
    from bench.cli.signals import ends_on_term, ends_with, reads_again_on_hup
    from bench.run.serving import pick, serving
    from bench.scenario.load import Scenario as Scenarios
    from bench.warmup.predecessor import predecessor

    if owner is not None:
        ends_with(owner)
    loaded = Scenarios.load(scenario)
    chosen = pick(loaded, variant)
    tell = partial(_tell, json)
    with (
        tempfile.TemporaryDirectory(prefix="bench-serve-") as folder,
        ends_on_term(),
        reads_again_on_hup() as hup,
        watch(quiet=json) as progress,
    ):
        try:
            with serving(loaded, chosen, port, Path(folder), progress) as keeper:
                assert keeper.ready is not None
                tell(*_ready(keeper.ready, chosen.id))

                def change(what: str, of: Scenario, name: str | None) -> None:
                    begun = time.monotonic()
                    try:
                        new = pick(of, name)
                        account = keeper.take_over(of, new)
                    except BenchError as error:
                        tell(*_stays(keeper.serves, error))
                        return
                    tell(*_changed(what, new.id, account, time.monotonic() - (keeper.begun if of is loaded else begun)))

                if predecessor(chosen) is not None:
                    change("handed over", loaded, chosen.id)

                def swap() -> None:
                    hup.clear()
                    try:
                        again = Scenarios.load(scenario)
                    except BenchError as error:
                        tell(*_stays(keeper.serves, error))
                        return
                    change("swapped", again, variant)

                keeper.watch(hup.is_set, swap)
        except KeyboardInterrupt:
            progress.note("stopped")
        except LaunchError as error:
            raise ProvisionError(f"{chosen.id}: {error.message}", hint=_last_words(error)) from error


def _tell(json: bool, told: dict[str, Any], words: str) -> None:
    """One line to whoever started it, for a program or for people."""
    import json as documents

    typer.echo(documents.dumps(told) if json else words)


def _ready(ready: Ready, variant: str) -> tuple[dict[str, Any], str]:
    url = f"http://{ready.endpoint.host}:{ready.endpoint.port}/v1"
    told = {
        "ready": url,
        "model": ready.endpoint.model,
        "variant": variant,
        "seconds": round(ready.seconds, 2),
        "first_ttft_ms": round(ready.first_ttft_ms, 1),
        "warm_ttft_ms": round(ready.warm_ttft_ms, 1),
    }
    words = (
        f"ready  {url}  model {told['model']}  after {told['seconds']} s; "
        f"first token {told['warm_ttft_ms']} ms warm, {told['first_ttft_ms']} ms at first"
    )
    return told, words


def _stays(serves: str, error: BenchError) -> tuple[dict[str, Any], str]:
    return {"stays": serves, "reason": str(error)}, f"{serves} stays: {error}"


def _changed(what: str, variant: str, account: HandOverAccount, seconds: float) -> tuple[dict[str, Any], str]:
    from dataclasses import asdict

    peak = None if account.peak_mib is None else round(account.peak_mib)
    told = {
        what.replace(" ", "_"): variant,
        "seconds": round(seconds, 2),
        "peak_mib": peak,
        "lost": account.lost,
        "overdue": account.overdue,
        "states": [asdict(state) for state in account.states],
    }
    held = "" if peak is None else f", both held {peak} MiB at most"
    cut = f"; {account.overdue} of the engine before had not ended in time, and were cut" if account.overdue else ""
    return told, f"{what}  to {variant}  after {told['seconds']} s{held}; {account.lost} requests lost{cut}"


def _last_words(error: LaunchError) -> str | None:
    return "its log ended with\n" + "\n".join(f"    {line}" for line in error.tail[-8:]) if error.tail else None
