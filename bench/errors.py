"""What can go wrong, and the exit code each ending has.

BenchError
├── UsageError            4  the command line or a path is wrong
│   ├── ScenarioError     4  a scenario file is wrong; carries every problem with its place
│   └── UnknownName       4  no plug-in, variant or metric of that name; says which exist
├── ProvisionError        4  an environment or a model could not be put in place
│   ├── ModelError        4  source missing, checksum wrong, cache entry damaged
│   └── EnvironmentFault  4  an engine's interpreter could not be made
├── RecordError           4  a run's folder is missing, damaged, in use or of another schema version
├── LaunchError           -  one launch failed; recorded and classified, the run goes on
├── IncomparableError     3  the two sides differ in what must be the same
└── InternalError         5  a promise of our own was broken
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum

from bench.phrases import among


class Exit(IntEnum):
    """What a command's exit status means."""

    PASS = 0
    REGRESSION = 1
    INCONCLUSIVE = 2
    INVALID = 3
    USAGE = 4
    INTERNAL = 5
    INTERRUPTED = 130


class BenchError(Exception):
    """An ending that the user can read: what, where, what to do."""

    exit_code: Exit = Exit.INTERNAL

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  → {self.hint}" if self.hint else self.message


class UsageError(BenchError):
    """The command line, or a path on it, is wrong."""

    exit_code = Exit.USAGE


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a scenario file; line and column count from 1."""

    file: str
    line: int
    column: int
    path: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}:{self.column}"
        return f"{where}  {self.path}: {self.message}" if self.path else f"{where}  {self.message}"


class ScenarioError(UsageError):
    """A scenario that cannot be run; `problems` holds all that is wrong with it, in order of place."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class UnknownName(UsageError):
    """A name that nothing answers to."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        super().__init__(f"no {kind} is called {name!r}: {among(sorted(known), name)}")


class ProvisionError(BenchError):
    """An environment or a model could not be put in place."""

    exit_code = Exit.USAGE


class ModelError(ProvisionError):
    """A model's source is missing, its checksum wrong, or its cache entry damaged."""


class EnvironmentFault(ProvisionError):
    """An engine's interpreter could not be made or does not work."""


class RecordError(BenchError):
    """A run's folder is missing, damaged, in use, or of another schema version."""

    exit_code = Exit.USAGE


class LaunchError(BenchError):
    """One launch failed. `kind` is one of record.schema.REASONS; the run goes on to the next launch."""

    def __init__(self, kind: str, message: str, *, tail: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.kind = kind
        self.tail = tuple(tail)


class IncomparableError(BenchError):
    """Two sides differ in what must be the same; the message says in what."""

    exit_code = Exit.INVALID


class InternalError(BenchError):
    """A promise of our own was broken."""

    exit_code = Exit.INTERNAL
