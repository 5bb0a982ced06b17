"""The scenarios that ship: in a wheel beside the package, in a checkout the folder `scenarios/` at its top."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

NAME = "scenarios"


def folder() -> Path:
    """The folder of the shipped scenarios."""
    package = Path(str(files("bench")))
    within = package / NAME
    return within if within.is_dir() else package.with_name(NAME)


def resolve(path: Path) -> Path:
    """A scenario's path; `scenarios/…` that is not here is the shipped one of that name, if there is one."""
    if path.parts[:1] != (NAME,) or path.exists():
        return path
    shipped = folder().joinpath(*path.parts[1:])
    return shipped if shipped.is_file() else path
