"""`bench schema`: what a scenario may say."""

from __future__ import annotations

from typing import Annotated

import typer


def schema(
    keys: Annotated[bool, typer.Option("--keys", help="Print the reference of keys in Markdown instead.")] = False,
) -> None:
    """Print the JSON Schema of scenario files, for editors.

    Example: bench schema > docs/scenario.schema.json
    """
    from bench.scenario import reference

    typer.echo(reference.markdown() if keys else reference.schema_text(), nl=False)
