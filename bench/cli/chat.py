"""`bench chat`: a chat page before a server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import Install
from bench.errors import LaunchError, ProvisionError

if TYPE_CHECKING:
    from bench.run.progress import Progress
    from bench.service.layers import Destination


def chat(
    server: Annotated[str, typer.Argument(metavar="URL|SCENARIO", help="a running server, or a scenario to serve")],
    variant: Annotated[str | None, typer.Option(help="with a scenario: which variant")] = None,
    model: Annotated[str | None, typer.Option(help="what the server calls its model; its first one by default")] = None,
    key_env: Annotated[str | None, typer.Option(help="variable that holds the API key")] = None,
    host: Annotated[str, typer.Option(help="address to listen at; others than this machine's own let others in")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="port of the page; 0 takes a free one", min=0, max=65535)] = 8100,
    output_tokens: Annotated[int, typer.Option(help="longest answer, in tokens", min=1)] = 512,
    install: Install = False,
    json: Annotated[bool, typer.Option("--json", help="say ready as one JSON line")] = False,
) -> None:
    """Serve a chat page for a server or a variant: answers stream, and each says how long its first token took.

    The page runs in an environment of its own (`bench engines install chat`), on the loopback address, loads nothing
    from elsewhere and holds no key. TERM and Ctrl-C end it, and the variant with it.

    Example: bench chat http://127.0.0.1:8000
    Example: bench chat scenarios/quick.yaml --variant bf16-requests
    """
    import tempfile

    from bench.cli.progress import watch
    from bench.cli.signals import ends_on_term
    from bench.engines.ports import free_port
    from bench.environments import environment
    from bench.service import chat as service

    with tempfile.TemporaryDirectory(prefix="bench-chat-") as folder, ends_on_term(), watch(quiet=json) as progress:
        if install:
            environment.install(service.ENVIRONMENT, progress=progress.preparing)
        environment.provisioned(service.ENVIRONMENT)
        try:
            with _behind(server, (variant, model, key_env), progress) as to:
                progress.preparing("starting the page")
                command = service.words(to.url, to.model, to.key_env, {"max_tokens": output_tokens})
                with service.page(command, Path(folder) / "page", host, port or free_port()) as page:
                    url = f"http://{host}:{page.endpoint.port}"
                    if json:
                        import json as documents

                        typer.echo(documents.dumps({"ready": url, "server": to.url, "model": to.model}))
                    else:
                        typer.echo(f"ready  {url}  model {to.model} at {to.url}")
                    service.watch(page)
        except KeyboardInterrupt:
            progress.note("stopped")
        except LaunchError as error:
            last = "\n".join(f"    {line}" for line in error.tail[-8:])
            raise ProvisionError(error.message, hint=f"its log ended with\n{last}" if last else None) from error


@contextmanager
def _behind(server: str, named: tuple[str | None, str | None, str | None], progress: Progress) -> Iterator[Destination]:
    """Where the page's questions go; a variant is served for as long."""
    from bench.errors import UsageError
    from bench.run.serving import pick
    from bench.scenario.load import Scenario
    from bench.service.layers import served, target

    variant, model, key_env = named
    if server.startswith(("http://", "https://")):
        if variant is not None:
            raise UsageError("--variant is for a scenario; a server that runs has what it has")
        yield target(server, model, key_env)
        return
    chosen = pick(Scenario.load(server), variant)
    with served(Path(server), chosen.id, progress) as url:
        yield target(url, model, key_env)
