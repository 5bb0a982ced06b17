"""A virtual environment per engine, made from its recipe and kept between runs."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.environments import pip
from bench.environments.build import build
from bench.environments.pythons import Python, choose, probe
from bench.environments.recipe import Build, PipCall, Recipe, names, recipe
from bench.errors import EnvironmentFault
from bench.home import Progress, clear, home, locked, room, writing
from bench.scenario.model import EngineSetting

_MARKER = "firsttoken.json"


@dataclass(frozen=True, slots=True)
class Environment:
    """An environment's place; `ready` once its marker has been written, which is last of all."""

    recipe: Recipe
    folder: Path

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def program(self) -> Path:
        """What runs the engine: its interpreter, or what was built in it."""
        return self.folder / "bin" / self.recipe.program

    @property
    def log(self) -> Path:
        """All that pip and compilers said while it was made."""
        return self.folder.with_suffix(".log")

    @property
    def ready(self) -> bool:
        """Whether it is complete."""
        return self.python.exists() and self.program.exists() and bool(self.about.get("complete"))

    @property
    def about(self) -> dict[str, object]:
        """What the marker says: the interpreter it was built on, the steps done, whether complete."""
        try:
            marker: dict[str, object] = json.loads((self.folder / _MARKER).read_text())
        except (OSError, ValueError):
            return {}
        return marker

    def note(self, **about: object) -> None:
        """Rewrite the marker in one piece."""
        fresh = self.folder / f"{_MARKER}.new"
        fresh.write_text(json.dumps(about))
        fresh.replace(self.folder / _MARKER)


def environment(name: str) -> Environment:
    """Where the environment of that name is, made or not."""
    return _place(recipe(name))


def environments() -> list[Environment]:
    """Every environment there is a recipe for, made or not."""
    return [environment(name) for name in names()]


def interpreter(engine: EngineSetting) -> Path:
    """The Python that runs an engine: the scenario's own, else the provisioned one; EnvironmentFault if absent."""
    if engine.python:
        given = Path(engine.python).expanduser()
        found = shutil.which(given) if given.name == engine.python else str(given.absolute())
        if found is None or not os.access(found, os.X_OK):
            raise EnvironmentFault(f"`python: {engine.python}` is not an interpreter that can be run")
        return Path(found)
    return provisioned(engine.environment or engine.engine)


def program(engine: EngineSetting) -> Path:
    """The binary that runs an engine: the scenario's `path:`, else the one built here; EnvironmentFault if absent."""
    if engine.path is None:
        name = engine.environment or engine.engine
        provisioned(name)
        return environment(name).program
    given = Path(engine.path).expanduser()
    found = shutil.which(given) if given.name == engine.path else str(given.absolute())
    if found is None or not Path(found).is_file() or not os.access(found, os.X_OK):
        raise EnvironmentFault(f"`path: {engine.path}` is not a program that can be run")
    return Path(found)


def needed(engine: EngineSetting) -> str | None:
    """The provisioned environment that an engine runs in; None for one that brings its own, or needs none."""
    if engine.python or engine.base_url or engine.image or engine.path:
        return None
    return engine.environment or (engine.engine if engine.engine in names() else None)


def provisioned(name: str) -> Path:
    """The interpreter of an installed environment; EnvironmentFault with the command that installs it."""
    place = environment(name)
    if not place.ready:
        state = "only half installed" if place.folder.exists() else "not installed"
        raise EnvironmentFault(
            f"the environment {name!r} is {state}",
            hint=f"run `bench engines install {name}`, or name an interpreter with `python:` in the scenario",
        )
    return place.python


def install(
    name: str,
    *,
    python: Path | None = None,
    index: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Environment:
    """Make an environment, or finish one that was interrupted; nothing happens if it is there.

    `python` is the interpreter to build on and `index` an extra package index for the steps that allow one.
    """
    return make(recipe(name), python=python, index=index, force=force, progress=progress)


def make(
    wanted: Recipe,
    *,
    python: Path | None = None,
    index: str | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Environment:
    """Make the environment of a recipe, which need not be one of ours."""
    tell = progress or (lambda line: None)
    place = _place(wanted)
    with locked(place.folder.with_suffix(".lock"), tell), writing(place.folder):
        done = place.about
        base = choose(wanted, python) if python or not place.ready or force else None
        if base is None or (place.ready and not force and done.get("base") == str(base.path)):
            return place
        if force or done.get("base") != str(base.path) or probe(place.python) is None:
            clear(place.folder)
        finished = int(str(place.about.get("steps", 0)))
        if not finished:
            room(place.folder, wanted.disk, f"the environment {wanted.name}")
            tell(f"{wanted.name}: building on {base}")
            _venv(place, base)
            place.note(base=str(base.path), steps=0, complete=False)
        for number, step in enumerate(wanted.steps, start=1):
            if number > finished:
                tell(f"{wanted.name}: step {number} of {len(wanted.steps)}: {_in_words(step)}")
                if isinstance(step, Build):
                    build(step, place.folder, pip_of(place), place.log, tell)
                else:
                    _pip(place, step, index, tell)
                place.note(base=str(base.path), steps=number, complete=False)
        _check(place)
        place.note(base=str(base.path), steps=len(wanted.steps), complete=True)
        tell(f"{wanted.name}: ready in {place.folder}")
        return place


def remove(name: str) -> bool:
    """Delete an environment; False if there was none."""
    place = environment(name)
    with locked(place.folder.with_suffix(".lock")):
        existed = place.folder.exists()
        for made in (place.folder, place.log, place.folder.with_name(f"{place.folder.name}.build")):
            clear(made)
    return existed


def _place(wanted: Recipe) -> Environment:
    return Environment(wanted, home() / "engines" / f"{wanted.name}-{wanted.digest}")


def _venv(place: Environment, base: Python) -> None:
    """An empty environment; where Python has no ensurepip (Debian without python3-venv), our own pip serves it."""
    place.folder.parent.mkdir(parents=True, exist_ok=True)
    clear(place.folder)
    own_pip = _has_ensurepip(base)
    without_pip = [] if own_pip else ["--without-pip"]
    made = subprocess.run(
        [base.path, "-I", "-m", "venv", *without_pip, place.folder], capture_output=True, text=True, errors="replace"
    )
    if made.returncode or not (own_pip or importlib.util.find_spec("pip")):
        clear(place.folder)
        version = f"python{base.version[0]}.{base.version[1]}"
        raise EnvironmentFault(
            f"{base} cannot make virtual environments: {(made.stdout + made.stderr).strip()[:400] or 'no ensurepip'}",
            hint=f"on Debian and Ubuntu: apt install {version}-venv; or name another interpreter with --python",
        )


def _has_ensurepip(base: Python) -> bool:
    return subprocess.run([base.path, "-I", "-c", "import ensurepip"], capture_output=True).returncode == 0


def _in_words(step: PipCall | Build) -> str:
    if isinstance(step, Build):
        return f"building {', '.join(step.targets)} from {step.requirement.split()[0]}"
    return f"removing {', '.join(step.uninstall)}" if step.uninstall else ", ".join(step.requirements)


def _pip(place: Environment, step: PipCall, index: str | None, tell: Progress) -> None:
    said = pip.run([*pip_of(place), *_arguments(step, index)], place.log, tell)
    if said is not None:
        meaning, hint = pip.explain(said)
        raise EnvironmentFault(
            f"{place.recipe.name} could not be installed: {meaning} (all of pip's words: {place.log})",
            hint=hint or "run the same command again: it goes on where it stopped",
        )


def pip_of(place: Environment) -> list[str]:
    """The pip that installs into an environment, as words: its own, else ours on its behalf."""
    own = (place.folder / "bin" / "pip").exists()
    return [str(place.python), "-m", "pip"] if own else [sys.executable, "-m", "pip", "--python", str(place.python)]


def _arguments(step: PipCall, index: str | None) -> list[str]:
    if step.uninstall:
        return ["uninstall", "--yes", *step.uninstall]
    source = (index or os.environ.get(step.index)) if step.index else None
    return ["install", "--progress-bar", "off", *(("--extra-index-url", source) if source else ()), *step.requirements]


def _check(place: Environment) -> None:
    if not place.recipe.check:
        return
    ran = subprocess.run(
        [place.python, "-I", "-c", place.recipe.check], capture_output=True, text=True, errors="replace"
    )
    if ran.returncode:
        raise EnvironmentFault(
            f"{place.recipe.name} was installed but does not work: {ran.stderr.strip().splitlines()[-1]}",
            hint=f"run `bench engines install {place.recipe.name} --force`",
        )
