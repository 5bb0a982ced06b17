"""`bench serve`: one variant of a scenario, kept warm on a port."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bench.cli.options import ScenarioFile
from bench.errors import LaunchError, ProvisionError


def serve(
    scenario: ScenarioFile,
    variant: Annotated[
        str | None, typer.Option(help="variant id, as `bench plan` prints it; may be left out if there is one")
    ] = None,
    port: Annotated[int, typer.Option(help="port to serve on; 0 takes a free one", min=0, max=65535)] = 8000,
    json: Annotated[bool, typer.Option("--json", help="say ready as one JSON line")] = False,
) -> None:
    """Start one variant with its warm-up, say ready once a first token came warm, and serve until told to stop.

    Another model is one line of the scenario. TERM and Ctrl-C end the engine with all its children.

    Example: bench serve scenarios/quick.yaml --port 8000
    """
    import json as documents
    import tempfile

    from bench.cli.progress import watch
    from bench.cli.signals import ends_on_term
    from bench.engines.server import free_port
    from bench.run.serving import pick, serving
    from bench.run.serving import watch as stay
    from bench.scenario.load import Scenario

    loaded = Scenario.load(scenario)
    chosen = pick(loaded, variant)
    with tempfile.TemporaryDirectory(prefix="bench-serve-") as folder, ends_on_term(), watch(quiet=json) as progress:
        try:
            with serving(loaded, chosen, port or free_port(), Path(folder), progress) as (server, ready):
                url = f"http://{ready.endpoint.host}:{ready.endpoint.port}/v1"
                told = {
                    "ready": url,
                    "model": ready.endpoint.model,
                    "variant": chosen.id,
                    "seconds": round(ready.seconds, 2),
                    "first_ttft_ms": round(ready.first_ttft_ms, 1),
                    "warm_ttft_ms": round(ready.warm_ttft_ms, 1),
                }
                if json:
                    typer.echo(documents.dumps(told))
                else:
                    typer.echo(
                        f"ready  {url}  model {told['model']}  after {told['seconds']} s; "
                        f"first token {told['warm_ttft_ms']} ms warm, {told['first_ttft_ms']} ms at first"
                    )
                stay(server)
        except KeyboardInterrupt:
            progress.note("stopped")
        except LaunchError as error:
            raise ProvisionError(f"{chosen.id}: {error.message}", hint=_last_words(error)) from error


def _last_words(error: LaunchError) -> str | None:
    return "its log ended with\n" + "\n".join(f"    {line}" for line in error.tail[-8:]) if error.tail else None
