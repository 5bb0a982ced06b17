"""A fleet run as sessions of baselines: one for each board, and one for the class that they are of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench.analyse.run import Run
from bench.errors import BenchError
from bench.fleet.ledger import Ledger
from bench.judge import baseline
from bench.record.store import RunFolder

BOARDS = "boards"


def add(folder: Path, ledger: Ledger, baselines: Path) -> Iterator[str]:
    """Add every finished board's runs to DIR/boards/<alias> and to DIR; what was done, or why not, in words.

    A board's own baseline tells whether this board has changed; the class's has the spread between boards in it.
    """
    for member in ledger.of("finished"):
        for outcome in member.outcomes:
            if outcome.run is None:
                continue
            run = Run(RunFolder.open(folder / "boards" / member.alias / outcome.run))
            for variant in run.variants:
                for place in (baselines / BOARDS / member.alias, baselines):
                    yield _added(run, variant, place, member.alias)


def _added(run: Run, variant: str, place: Path, alias: str) -> str:
    empty = baseline.start(run, variant)
    file = place / empty.file
    try:
        grown = baseline.add(baseline.load(file) if file.exists() else empty, run)
    except BenchError as error:
        return f"{alias}: not added to {file}: {error.message}"
    baseline.save(grown, place)
    return f"{alias}: {file} has {len(grown.sessions)} sessions"
