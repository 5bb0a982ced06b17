"""The screening: which of many settings are worth a race, found in blocks that halve in width.

The first block launches the start and settings spread over the levers; each following one half as many: those that are
likeliest to be the best by all launches so far, and the best so far again. So a setting is thrown out by what is known
of its levers, mostly without a launch of its own. What is learned here only chooses; nothing is claimed from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from bench.analyse.metrics import Metric, metric
from bench.tune.levers import Candidate
from bench.tune.surrogate import Belief, Sight, believe, spread

# The first block has this share of the grid, within these limits.
FIRST_SHARE, LEAST_FIRST, MOST_FIRST = 0.2, 8, 48
FINALISTS = 2
# A launch is stopped once it takes so many times as long as the best so far.
HOPELESS = 1.5
# How far a setting's chance counts beside what is expected of it, standard deviations.
CURIOSITY = 1.0
STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Screening:
    """A grid to be screened around a start. `guards` are metrics that must not get worse than the start's by a margin.

    Its methods see the launches so far as rows of `Run.per_launch`, of all blocks, with `above`: the seconds after
    which a launch was stopped, else null.
    """

    start: Candidate
    grid: tuple[Candidate, ...]
    objective: Metric
    guards: Mapping[str, float]

    def widths(self) -> list[int]:
        """How many settings each block launches, the start or the best so far among them."""
        width = min(max(LEAST_FIRST, round(FIRST_SHARE * (len(self.grid) + 1))), MOST_FIRST)
        found = [width]
        while width > FINALISTS:
            width = max(FINALISTS, width // 2)
            found.append(width)
        return found

    def chosen(self, rows: pd.DataFrame, width: int) -> tuple[Candidate, ...]:
        """Whom the next block launches."""
        if not len(rows):
            far = spread([one.place for one in self.grid], width - 1, [self.start.place])
            by_place = {one.place: one for one in self.grid}
            return (self.start, *(by_place[place] for place in far))
        lost = {name for name, row in rows.groupby("variant") if not (row["status"] == "ok").any()}
        alive = [one for one in (self.start, *self.grid) if one.id not in lost]
        belief = self._objective(rows, alive)
        allowed = self._allowed(rows, alive, hopeful=True)
        hope = np.where(allowed, belief.mean - CURIOSITY * belief.sd, np.inf)
        best = self.best(rows) or self.start
        ranked = [alive[i] for i in np.argsort(hope, kind="stable") if math.isfinite(hope[i]) and alive[i] != best]
        return (best, *ranked[: width - 1])

    def best(self, rows: pd.DataFrame) -> Candidate | None:
        """The best of those that were launched with success, by what is expected of them; None if none was."""
        return next(iter(self._ranked(rows)), None)

    def finalists(self, rows: pd.DataFrame) -> tuple[Candidate, ...]:
        """Who goes on: the best of those that were launched and are expected to beat the start."""
        ranked = self._ranked(rows)
        before = ranked[: ranked.index(self.start)] if self.start in ranked else ranked
        return tuple(before[:FINALISTS])

    def bound(self, rows: pd.DataFrame) -> float | None:
        """Seconds after the spawn from which a launch can no longer be among the best; None while nothing is known.

        Only an objective that a launch's own beginning decides can be cut short.
        """
        best = self.best(rows) if self.objective.id == "cold_ttft" and len(rows) else None
        if best is None:
            return None
        own = rows.loc[(rows["variant"] == best.id) & (rows["status"] == "ok"), self.objective.id].dropna()
        return HOPELESS * float(own.median()) if len(own) else None

    def _ranked(self, rows: pd.DataFrame) -> list[Candidate]:
        """Those that were launched with success and keep the guards, as far as is known, the best first."""
        ok = set(rows.loc[rows["status"] == "ok", "variant"]) if len(rows) else set()
        seen = [one for one in (self.start, *self.grid) if one.id in ok]
        if not seen:
            return []
        mean, allowed = self._objective(rows, seen).mean, self._allowed(rows, seen)
        return [seen[i] for i in np.argsort(mean, kind="stable") if allowed[i] or seen[i] == self.start]

    def _objective(self, rows: pd.DataFrame, of: Sequence[Candidate]) -> Belief:
        return believe(self._sights(rows, self.objective, lost=True), [one.place for one in of])

    def _allowed(self, rows: pd.DataFrame, of: Sequence[Candidate], *, hopeful: bool = False) -> np.ndarray:
        """Who is expected to keep every guard; with `hopeful`, who may."""
        allowed = np.ones(len(of), dtype=bool)
        places = [one.place for one in (self.start, *of)]
        for name, margin in self.guards.items():
            belief = believe(self._sights(rows, metric(name)), places)
            worse = belief.mean[1:] - belief.mean[0] - (belief.sd[1:] if hopeful else 0.0)
            allowed &= worse <= math.log1p(margin)
        return allowed

    def _sights(self, rows: pd.DataFrame, of: Metric, *, lost: bool = False) -> list[Sight]:
        """The launches as the surrogate sees them: less is better. `lost`: also those that were stopped or failed."""
        by_id = {one.id: one for one in (self.start, *self.grid)}
        sign = -1.0 if of.direction == "higher" else 1.0
        table = rows[rows["variant"].isin(by_id)]
        found = [
            Sight(by_id[row["variant"]].place, row["block"], sign * math.log(row[of.id]))
            for row in _records(table[(table["status"] == "ok") & (table[of.id] > 0)])
        ]
        if not lost or not found:
            return found
        worst = max(one.value for one in found)
        for row in _records(table[~table["status"].isin(["ok", "invalid"])]):
            stopped = row["status"] == STOPPED and row["above"] and math.isfinite(row["above"])
            value = math.log(row["above"]) if stopped else worst
            found.append(Sight(by_id[row["variant"]].place, row["block"], value, above=True))
        return found


def _records(table: pd.DataFrame) -> Any:
    return table.to_dict("records")
