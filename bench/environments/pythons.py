"""Which Python interpreters this machine has, and what is installed in one: read from metadata, nothing is imported."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.environments.recipe import Minor, Recipe
from bench.errors import EnvironmentFault

# One line from the candidate itself: a file called python3.12 may be a shim for a version that is not there.
_ASK = "import sys; print(*sys.version_info[:2], sys.executable)"


@dataclass(frozen=True, slots=True)
class Python:
    """An interpreter that runs."""

    path: Path
    version: Minor

    def __str__(self) -> str:
        return f"Python {self.version[0]}.{self.version[1]} ({self.path})"


def probe(path: Path) -> Python | None:
    """The interpreter at a path, or None where nothing there runs."""
    try:
        answer = subprocess.run([path, "-I", "-c", _ASK], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    major, minor, executable = answer.stdout.split(maxsplit=2)
    return Python(Path(executable.strip()), (int(major), int(minor)))


def choose(recipe: Recipe, asked: Path | None = None) -> Python:
    """The interpreter to build on: the one asked for, else this process's own kind, else the newest that fits."""
    if asked is not None:
        python = probe(asked)
        if python is None:
            raise EnvironmentFault(f"{asked} is not a Python interpreter that runs")
        if not recipe.fits(python.version):
            raise EnvironmentFault(
                f"{recipe.name} needs Python {recipe.python}, and {asked} is {_dotted(python.version)}"
            )
        return python
    own = sys.version_info[:2]
    if recipe.fits(own):
        return Python(Path(getattr(sys, "_base_executable", sys.executable)), own)
    found = {python.version: python for python in map(probe, candidates()) if python is not None}
    fitting = [version for version in found if recipe.fits(version)]
    if not fitting:
        have = ", ".join(map(_dotted, sorted(found))) or "none"
        raise EnvironmentFault(
            f"{recipe.name} needs Python {recipe.python}; found: {have}",
            hint="install one that fits, or name it with --python",
        )
    return found[max(fitting)]


def candidates() -> Iterator[Path]:
    """Every file on PATH that is called like a Python 3 interpreter."""
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        try:
            entries = sorted(Path(folder or ".").iterdir())
        except OSError:
            continue
        yield from (entry for entry in entries if re.fullmatch(r"python3(\.\d+)?", entry.name))


def _dotted(version: Minor) -> str:
    return f"{version[0]}.{version[1]}"


Version = tuple[int, ...]


def version(text: str) -> Version:
    """The leading numbers of a version: 0.11.2+cu126 → (0, 11, 2), 0.8.5.post1 → (0, 8, 5)."""
    match = re.match(r"v?(\d+(?:\.\d+)*)", text.strip())
    return tuple(int(part) for part in match[1].split(".")) if match else ()


def installed(python: Path, *distributions: str) -> str | None:
    """The version of the first of these distributions that the interpreter's environment has; None if it has none."""
    for folder in folders(python):
        found = {}
        for entry in folder.glob("*.*-info"):
            name, _, release = entry.name.rpartition(".")[0].partition("-")
            found[_normal(name)] = release.partition("-")[0]
        for name in distributions:
            if _normal(name) in found:
                return found[_normal(name)]
    return None


def folders(python: Path) -> list[Path]:
    """Where an interpreter's packages are installed; folders that are added by path files come last."""
    # Not resolved: the interpreter of a virtual environment is a link out of it.
    own = sorted(python.absolute().parent.parent.glob("lib*/python3*/*-packages"))
    lines = [line.strip() for place in own for file in sorted(place.glob("*.pth")) for line in _lines(file)]
    added = (Path(line) for line in lines if line.endswith("-packages"))
    return [*own, *(place for place in added if place.is_dir() and place not in own)]


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return []


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
