"""Versions of what is installed in an engine's interpreter, read from its metadata: nothing of it is imported."""

from __future__ import annotations

import re
from pathlib import Path

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
