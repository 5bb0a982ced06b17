"""What an engine's environment is made of: a pip requirements file with a few directives between its lines.

    #: about TEXT                what it is, for `bench engines list`
    #: python >=3.10,<3.14       the interpreters it fits
    #: disk MEGABYTES            room needed to install it
    #: index VARIABLE            the step takes further packages from the index named in that environment variable
    #: step                      end of one `pip install`, start of the next
    #: uninstall NAME…           packages to remove, after what stands above
    #: build REQUIREMENT#FOLDER  a C++ project in that folder of a source distribution, built with cmake
    #: target NAME…              the programs to build of it, put into the environment's bin
    #: set NAME=VALUE…           cmake's settings for it
    #: keep PATH…                further files of its source, put into the environment's share
    #: check STATEMENT           Python that must run in the finished environment

Anything else is a requirement as pip knows it. The directives are comments to pip, so the file also works by hand.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, fields, replace
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from bench.errors import InternalError, UnknownName, UsageError

Minor = tuple[int, int]
# Directive → what of a build it adds to.
_OF_BUILDS = {"target": "targets", "set": "settings", "keep": "keep"}


@dataclass(frozen=True, slots=True)
class PipCall:
    """One pip call: packages to install, or names to remove."""

    requirements: tuple[str, ...] = ()
    uninstall: tuple[str, ...] = ()
    index: str | None = None


@dataclass(frozen=True, slots=True)
class Build:
    """One C++ project built from source. `requirement` may carry pip's --hash; `folder` is its place in it."""

    requirement: str
    folder: str
    targets: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    keep: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Recipe:
    """An environment's contents. `python` is the range as written; `disk` in bytes."""

    name: str
    digest: str
    steps: tuple[PipCall | Build, ...]
    about: str = ""
    python: str = ""
    disk: int = 0
    check: str = ""

    @property
    def program(self) -> str:
        """What of the environment runs the engine: the first thing built, else its interpreter."""
        built = (step for step in self.steps if isinstance(step, Build))
        return next((name for build in built for name in build.targets), "python")

    def fits(self, version: Minor) -> bool:
        """Whether an interpreter of that version will do."""
        return all(_holds(version, clause.strip()) for clause in self.python.split(",") if clause.strip())


def names() -> tuple[str, ...]:
    """The environments that can be installed, sorted."""
    found = (item.name for item in _folder().iterdir())
    return tuple(sorted(name.removesuffix(".txt") for name in found if name.endswith(".txt")))


def recipe(name: str) -> Recipe:
    """The recipe of that name; UnknownName says which there are."""
    if name not in names():
        raise UnknownName("engine environment", name, names())
    return parse(name, (_folder() / f"{name}.txt").read_text(encoding="utf-8"))


def pinned(wanted: Recipe, *distributions: str) -> str | None:
    """The version that a recipe pins of the first of these distributions that it has; None if it has none."""
    lines = [line for step in wanted.steps if isinstance(step, PipCall) for line in step.requirements]
    found = (line.partition("==")[2] for name in distributions for line in lines if line.startswith(f"{name}=="))
    return next(found, None)


def parse(name: str, text: str) -> Recipe:
    """Read a requirements file with its directives; InternalError for a directive that does not exist."""
    facts: dict[str, str] = {}
    steps: list[PipCall | Build] = []
    lines: list[str] = []
    index: str | None = None

    def close() -> None:
        nonlocal index
        if lines:
            steps.append(PipCall(requirements=tuple(lines), index=index))
        lines.clear()
        index = None

    for line in (raw.strip() for raw in text.splitlines()):
        word, _, rest = line.removeprefix("#:").strip().partition(" ")
        if not line.startswith("#:"):
            if line and not line.startswith("#"):
                lines.append(line)
        elif word == "index":
            index = rest
        elif word == "step":
            close()
        elif word == "uninstall":
            close()
            steps.append(PipCall(uninstall=tuple(rest.split())))
        elif word == "build":
            close()
            requirement, _, folder = rest.partition("#")
            steps.append(Build(requirement, folder))
        elif word in _OF_BUILDS and steps and isinstance(building := steps[-1], Build):
            more: Any = {(field := _OF_BUILDS[word]): (*getattr(building, field), *rest.split())}
            steps[-1] = replace(building, **more)
        elif word in ("about", "python", "disk", "check"):
            facts[word] = rest
        else:
            raise InternalError(f"{name}.txt: no directive is called {word!r}")
    close()
    # Only what pip and cmake are told decides whether an environment is still the right one.
    digest = hashlib.sha256(f"[{', '.join(map(_identity, steps))}]".encode()).hexdigest()[:12]
    return Recipe(
        name=name,
        digest=digest,
        steps=tuple(steps),
        about=facts.get("about", ""),
        python=facts.get("python", ""),
        disk=int(facts.get("disk", 0)) * 1_000_000,
        check=facts.get("check", ""),
    )


def _identity(step: PipCall | Build) -> str:
    """What a step is made of, as text that outlives the names of our classes: environments are found again by it."""
    name = "Step" if isinstance(step, PipCall) else "Build"
    return f"{name}({', '.join(f'{one.name}={getattr(step, one.name)!r}' for one in fields(step))})"


def _folder() -> Traversable:
    return files("bench.environments") / "requirements"


def _holds(version: Minor, clause: str) -> bool:
    match = re.fullmatch(r"(>=|<=|<|>|==|!=)\s*(\d+)\.(\d+)", clause)
    if match is None:
        raise UsageError(f"{clause!r} is not a range of Python versions")
    wanted = (int(match[2]), int(match[3]))
    return {
        ">=": version >= wanted,
        "<=": version <= wanted,
        "<": version < wanted,
        ">": version > wanted,
        "==": version == wanted,
        "!=": version != wanted,
    }[match[1]]
