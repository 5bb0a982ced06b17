"""What a test session had to run twice: counted, named, and an error when the same test needs it in two runs in a row.

A shared machine stalls now and then, and a mistake fails twice; a race, which fails now and then, is told by its name
coming back. Standard library only: the noxfile imports this.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Account:
    """The tests that passed only when they were run again, and those of them that did so in the run before, too."""

    again: tuple[str, ...]
    repeated: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """What is printed at the end, a test a line; nothing where nothing was run again."""
        counted = [f"RERUN {name}" for name in self.again]
        return [*counted, f"{len(counted)} tests passed only when run again"] if counted else []

    @property
    def complaint(self) -> str | None:
        """Why the session fails; None where it does not."""
        if not self.repeated:
            return None
        return f"needed a second attempt in two runs in a row, so it is no stall: {', '.join(self.repeated)}"


def failed(cache: Path) -> tuple[str, ...]:
    """The tests that pytest's cache folder has as failed; none where it has no list."""
    try:
        return tuple(sorted(json.loads((cache / "v/cache/lastfailed").read_text(encoding="utf-8"))))
    except (OSError, ValueError):
        return ()


def attempt(run: Callable[[Sequence[str]], bool], cache: Path, kept: Path) -> Account | None:
    """Run the tests, and once more what failed; None if something fails for good.

    `run` takes further options of pytest's and says whether all passed. `cache` is the folder of pytest's cache, `kept`
    the file with the names of the run before, which is written anew.
    """
    if run(("--cache-clear",)):
        again: tuple[str, ...] = ()
    else:
        # Where pytest itself failed there is no list, and a second attempt would run everything or nothing.
        again = failed(cache)
        if not again or not run(("--last-failed", "--last-failed-no-failures=none")):
            return None
    before = _read(kept)
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(again, indent=1) + "\n", encoding="utf-8")
    return Account(again, tuple(name for name in again if name in before))


def _read(kept: Path) -> tuple[str, ...]:
    try:
        return tuple(json.loads(kept.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return ()
