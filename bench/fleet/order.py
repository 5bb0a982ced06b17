"""fleet.yaml: which boards run which scenarios, how many at once, and how much may go wrong.

Whatever is wrong with it is reported at once, each mistake with its place, as for a scenario.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, PositiveFloat, PositiveInt

from bench.errors import Problem, ScenarioError
from bench.phrases import why
from bench.scenario import document
from bench.scenario.load import Scenario
from bench.scenario.model import SCENARIO_NAME, Strict
from bench.scenario.validate import describe, errors_of

SHARE = r"^(\d{1,2}|100)%$"
Amount = Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern=SHARE)]


class Provision(Strict):
    """How firsttoken gets onto a board: a virtual environment with this package in it."""

    package: str = Field("firsttoken", description="what pip installs: a name with its version, or a wheel's file here")
    python: str = Field("python3", description="the interpreter on the board that the environment is made with")


class Bounds(Strict):
    """What a board's results may be at most; more is refused, for a board is not trusted with this disk."""

    megabytes: PositiveInt = Field(2000, description="size of a board's results, in MB")
    files: PositiveInt = Field(100_000, description="files in a board's results")


class OrderModel(Strict):
    """The file as types. Relative paths start from its folder."""

    fleet: str = Field(pattern=SCENARIO_NAME, description="the fleet's name")
    inventory: str = Field(description="an Ansible inventory, INI or YAML, as it is")
    group: str = Field("all", description="the inventory's group, or pattern, of the boards meant")
    scenarios: Annotated[list[str], Field(min_length=1)] = Field(description="scenario files, run in this order")
    classes: list[str] = Field([], description="host classes that take part; a board of another is refused")
    serial: Amount = Field("100%", description="boards that measure at the same time: a number or a percentage")
    quorum: Amount = Field("100%", description="boards that must be fit to begin, and finish for the result to count")
    failures: Amount = Field("100%", description="boards that may fail before no further one is begun")
    program: str | None = Field(None, description="the bench on the board; by default the one that provisioning makes")
    provision: Provision | None = Field(None, description="make a virtual environment with firsttoken on each board")
    emulate: str | None = Field(None, description="pretend that each board is this one; every page says so")
    install: bool = Field(False, description="install missing engine environments on the boards")
    apply: bool = Field(False, description="set the declared power mode and clocks on the boards")
    environment: dict[str, str] = Field({}, description="variables for the runs; they travel in a file of mode 600")
    poll_s: PositiveFloat = Field(60.0, description="seconds between two looks at a board that measures")
    patience_minutes: PositiveFloat = Field(30.0, description="how long a link that is gone is waited for")
    limits: Bounds = Bounds()


@dataclass(frozen=True)
class Order:
    """A fleet's order: its file, and the scenarios that it names."""

    path: Path
    model: OrderModel
    scenarios: tuple[Scenario, ...]

    @classmethod
    def load(cls, path: Path) -> Order:
        """Read fleet.yaml and its scenarios; ScenarioError carries every problem found in any of them."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            said = why(error).lower() if isinstance(error, OSError) else "is not UTF-8"
            raise ScenarioError([Problem(str(path), 1, 1, "", f"cannot be read: {said}")]) from error
        read = document.read(text, str(path))
        if isinstance(read.data, dict):
            describe(read, OrderModel, read.data, errors_of(OrderModel, read.data))
        elif not read.problems:
            read.problem((), "a fleet is a mapping (`fleet: name`, `inventory: file`, `scenarios: [file]`)")
        if read.problems:
            raise ScenarioError(sorted(set(read.problems), key=lambda one: (one.line, one.column, one.path)))
        model = OrderModel.model_validate(read.data)
        return cls(path, model, _scenarios(read, model, path.parent))

    @property
    def inventory(self) -> Path:
        """The inventory's file."""
        return self.path.parent / self.model.inventory

    def boards(self, amount: int | str, of: int) -> int:
        """So many boards of `of`: a number as it is, a percentage rounded up."""
        if isinstance(amount, int):
            return amount
        return -(-int(amount.removesuffix("%")) * of // 100)

    def digests(self) -> dict[str, str]:
        """Scenario name → digest of what it asks for."""
        return {scenario.name: scenario.digest for scenario in self.scenarios}


def _scenarios(read: document.Document, model: OrderModel, base: Path) -> tuple[Scenario, ...]:
    """The scenarios, each found beside fleet.yaml or among the shipped; a name may stand once."""
    found: list[Scenario] = []
    problems: list[Problem] = []
    for index, name in enumerate(model.scenarios):
        beside = base / name
        try:
            scenario = Scenario.load(beside if beside.exists() else Path(name))
        except ScenarioError as error:
            problems += error.problems
            continue
        if scenario.name in {one.name for one in found}:
            read.problem(("scenarios", index), f"a scenario called {scenario.name!r} stands above; keep one of the two")
        found.append(scenario)
    if problems or read.problems:
        raise ScenarioError([*read.problems, *problems])
    return tuple(found)


def secretive(variables: dict[str, Any]) -> bool:
    """Whether host variables carry a password: never recorded, and worth a word."""
    return any(re.search(r"(password|_pass)$", name) for name in variables)
