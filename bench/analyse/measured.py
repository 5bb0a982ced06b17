"""What a run was asked to measure: the tables are about that, and not about all that happened to be seen."""

from __future__ import annotations

from collections.abc import Iterable

from bench.analyse.run import Run
from bench.scenario.measures import NEEDS


def asked(run: Run, names: Iterable[str]) -> tuple[str, ...]:
    """Of these metrics those that belong to the scenario's `measure`; all of them where it does not say."""
    groups = run.scenario.get("measure")
    if not isinstance(groups, list):
        return tuple(names)
    # `ttft[128].p50` is of the family `ttft`.
    return tuple(name for name in names if NEEDS.get(name, NEEDS.get(name.partition("[")[0])) in groups)
