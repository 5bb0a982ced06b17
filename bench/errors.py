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
        super().__init__(f"no {kind} is called {name!r}: {choices(name, known)}")


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


def choices(name: object, known: Iterable[str]) -> str:
    """The allowed names and the nearest one, as a phrase for an error message."""
    names = sorted(known)
    near = nearest(name, names)
    phrase = f"one of {', '.join(names)}" if names else "none exist"
    return f"{phrase} (did you mean {near}?)" if near else phrase


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The known name that was probably meant: a slip of the keyboard away, or the only one that begins like it.

    A slip is at most one edit in three characters (insertion, deletion, replacement, two neighbours swapped); what is
    farther away would send its reader astray. Upper case and `-` for `_` are no difference.
    """
    wanted = _folded(str(name))
    names = list(known)
    near = [(_edits(wanted, _folded(one)), place, one) for place, one in enumerate(names)]
    near = [found for found in near if found[0] <= max(len(wanted), len(found[2])) // 3]
    if near:
        return min(near)[2]
    begun = [one for one in names if len(wanted) >= 3 and _folded(one).startswith(wanted)]
    return begun[0] if len(begun) == 1 else None


def _folded(name: str) -> str:
    return name.lower().replace("-", "_")


def _edits(a: str, b: str) -> int:
    """Optimal string alignment distance."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        earlier, before, row = before, row, [i]
        for j, right in enumerate(b, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (left != right))
            if i > 1 and j > 1 and left == b[j - 2] and a[i - 2] == right:
                cost = min(cost, earlier[j - 2] + 1)
            row.append(cost)
    return row[-1]
