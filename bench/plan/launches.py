"""The planned launches of a run."""

from __future__ import annotations

from dataclasses import dataclass

from bench.scenario.variant import Variant


@dataclass(frozen=True, slots=True)
class PlannedLaunch:
    """One launch: block and position count from 0; `seed` draws the prompts and is the same for a whole block."""

    block: int
    position: int
    variant: str
    seed: int

    @property
    def id(self) -> str:
        """Folder name of the launch; sorts in order of time."""
        return f"{self.block:03d}-{self.position:02d}-{self.variant}"


@dataclass(frozen=True, slots=True)
class Plan:
    """Every variant and every launch, in order."""

    variants: tuple[Variant, ...]
    launches: tuple[PlannedLaunch, ...]
    seed: int

    def variant(self, variant_id: str) -> Variant:
        """The variant of that id; KeyError if there is none."""
        for variant in self.variants:
            if variant.id == variant_id:
                return variant
        raise KeyError(variant_id)
