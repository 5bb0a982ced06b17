"""`bench aa` and `bench inject`: the gate tried on itself."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the commands."""
