"""What a launch starts from unless a step says otherwise: no compile cache. Verified like everything else."""

from __future__ import annotations

from bench.engines.engine import LaunchTrace
from bench.record.schema import Check
from bench.warmup.compiled import Caches
from bench.warmup.step import Step
from bench.warmup.strategy import HostState, Prepared


class FreshCaches(Step):
    """Compile caches in an empty folder; doubted if the engine says that it found something."""

    name = "fresh-caches"

    def __init__(self) -> None:
        self._caches: Caches | None = None

    def prepare(self, state: HostState) -> Prepared:
        """Empty the folder of the launch before and point every cache at it."""
        self._caches = Caches.cold(state.caches / "fresh")
        return self._caches.prepared()

    def verify(self, trace: LaunchTrace, prepared: Prepared) -> list[Check]:
        """Nothing may have come from a cache."""
        return [self._caches.check(trace)] if self._caches else []
