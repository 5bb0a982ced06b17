"""What a launch starts from unless a step says otherwise: no compile cache. Verified like everything else."""

from __future__ import annotations

from bench.engines.base import LaunchTrace
from bench.record.schema import Check
from bench.warmup.base import HostState, Prepared
from bench.warmup.compiled import compile_state_check
from bench.warmup.step import Step


class FreshCaches(Step):
    """Compile caches in the launch's own, still empty folder; doubted if the engine says that it found something."""

    name = "fresh-caches"

    def prepare(self, state: HostState) -> Prepared:
        """Nothing to do: the launch's own folder is new."""
        return Prepared(state={"asked": "cold"})

    def verify(self, trace: LaunchTrace, prepared: Prepared) -> list[Check]:
        """Cold was asked for; a cache hit in the engine's own words is a violation."""
        return [compile_state_check("cold", prepared.state, trace)]
