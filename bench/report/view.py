"""What the sections of a report look at: a run, its summary by variant and metric, and the variants' colours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from bench.analyse.crowd import Crowd, crowd
from bench.analyse.run import Launch, Run
from bench.errors import UsageError
from bench.judge.comparable import variant_id
from bench.report.elements import Note

# Colours of the palette; a ninth variant takes the first colour again, with another line style.
COLOURS = 8


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """One line of the summary; null where the sample carries no value."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    launches: int
    launch_min: float | None
    launch_max: float | None
    reason: str | None


class View:
    """A run as the report sees it."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @cached_property
    def _rows(self) -> Mapping[tuple[str, str], SummaryRow]:
        names = ("value", "low", "high", "n", "launches", "launch_min", "launch_max", "reason")
        return {
            (str(row["variant"]), str(row["metric"])): SummaryRow(*(_none(row[name]) for name in names))
            for row in self.run.summary().to_dict("records")
        }

    def row(self, variant: str, metric: str) -> SummaryRow | None:
        """The summary of a metric, or None if the run has nothing of the kind."""
        return self._rows.get((variant, metric))

    def value(self, variant: str, metric: str) -> float | None:
        """The summary's value alone."""
        row = self.row(variant, metric)
        return row.value if row else None

    def known(self, metric: str) -> bool:
        """Whether any variant has a value for it."""
        return any(self.value(variant, metric) is not None for variant in self.variants)

    def lengths(self, variant: str) -> tuple[str, ...]:
        """The families of TTFT by prompt length that a variant has: `ttft[128]`."""
        return tuple(name for name in self.run.reduction.pooled.get(variant, ()) if name.startswith("ttft["))

    def all_lengths(self) -> tuple[str, ...]:
        """The same for all variants, shortest first."""
        names = {name for variant in self.variants for name in self.lengths(variant)}
        return tuple(sorted(names, key=lambda name: int(name[5:-1])))

    @property
    def variants(self) -> tuple[str, ...]:
        """Variant ids in the order of the scenario."""
        return self.run.variants

    @cached_property
    def measured(self) -> tuple[str, ...]:
        """The variants of which at least one launch counts."""
        counted = {launch.record.variant for launch in self.run.all if launch.record.status == "ok"}
        return tuple(variant for variant in self.variants if variant in counted)

    @cached_property
    def baseline(self) -> str | None:
        """The variant that the others are set against: the gate's, else the quality reference, else the first."""
        return self._named("gate", "baseline") or self.reference or next(iter(self.measured), None)

    @cached_property
    def reference(self) -> str | None:
        """The variant that the answers are compared with, where the scenario asks for that."""
        return self._named("quality", "against")

    def _named(self, part: str, key: str) -> str | None:
        asked = self.run.scenario.get(part)
        selector = asked.get(key) if isinstance(asked, dict) else None
        with suppress(UsageError):
            return variant_id(self.run, selector) if isinstance(selector, dict) else None
        return None

    def colour(self, variant: str) -> int:
        """The number of the variant's colour, the same throughout the report."""
        return self.variants.index(variant) % COLOURS

    def valid(self, variant: str) -> list[Launch]:
        """The launches that count."""
        return [launch for launch in self.run.all if launch.record.variant == variant and launch.record.status == "ok"]

    @property
    def troubled(self) -> list[Launch]:
        """The launches that do not count."""
        return [launch for launch in self.run.all if launch.record.status != "ok"]

    @property
    def per_launch(self) -> pd.DataFrame:
        """One row per launch with every metric."""
        return self.run.per_launch


def _crowd(view: View) -> Crowd:
    """The run's launches by what neighbours did to them."""
    return crowd(launch.record for launch in view.run.all)


def contended(view: View) -> str | None:
    """The report's first sentence where engines had to wait for other programs; None where none had."""
    words = _crowd(view).contended
    return f"Contended: {words}, so these figures are not the engine's alone." if words else None


def neighbour_notes(view: View) -> Iterator[Note]:
    """Others that ran beside the engine, and launches of which nobody knows."""
    found = _crowd(view)
    if found.accompanied:
        shared = "The engine hardly waited for them; caches, memory and clocks were shared all the same."
        yield Note(f"{found.accompanied[0].upper()}{found.accompanied[1:]}.", shared, "warn")
    if found.unknown:
        yield Note(f"{found.unknown[0].upper()}{found.unknown[1:]}.", tone="warn")


def crowded_variants(view: View) -> frozenset[str]:
    """The variants with a launch that had to wait for others."""
    return frozenset(record.variant for record in _crowd(view).waited)


def _none(value: Any) -> Any:
    return None if isinstance(value, float) and value != value else value
