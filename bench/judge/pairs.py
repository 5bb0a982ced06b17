"""Pairs of launches: which blocks have a value on both sides, and what became of the others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from bench.errors import UnknownName, UsageError
from bench.scenario.variant import level_text

if TYPE_CHECKING:
    from bench.analyse.run import Run


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison: its launches. `failed` and `invalid` name the blocks left without a valid one."""

    label: str
    launches: int
    ok: int
    requests: int
    failed: tuple[str, ...] = ()
    invalid: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Pair:
    """One block: the value of each side, in the metric's unit."""

    block: int
    a: float
    b: float

    @property
    def ratio(self) -> float:
        """b over a."""
        return self.b / self.a


def pairs_of(name: str, a: pd.DataFrame, b: pd.DataFrame) -> tuple[tuple[Pair, ...], tuple[str, ...]]:
    """The blocks in which both sides have a value, and in words what was left out."""
    left, right = values_of(a, name), values_of(b, name)
    both = sorted(left.keys() & right.keys())
    notes = []
    if impossible := [block for block in both if left[block] <= 0 or right[block] <= 0]:
        notes.append(f"zero or negative in block{'s' * (len(impossible) > 1)} {_list(impossible)}")
    pairs = tuple(Pair(block, left[block], right[block]) for block in both if block not in impossible)
    if alone := sorted(left.keys() ^ right.keys()):
        notes.append(f"no partner in block{'s' * (len(alone) > 1)} {_list(alone)}")
    return pairs, tuple(notes)


def values_of(rows: pd.DataFrame, name: str) -> dict[int, float]:
    """Block to value, of the valid launches that have one; of a repeated launch the last."""
    if name not in rows or not len(rows):
        return {}
    valid = rows[rows["status"] == "ok"]
    return {
        int(block): float(value)
        for block, value in zip(valid["block"], valid[name], strict=True)
        if value is not None and math.isfinite(value)
    }


def unsteady_blocks(*sides: pd.DataFrame) -> frozenset[int]:
    """Blocks in which a valid launch of either side drifted or never settled."""
    return frozenset(
        int(block)
        for rows in sides
        if "unsteady" in rows
        for block in rows.loc[(rows["status"] == "ok") & rows["unsteady"].astype(bool), "block"]
    )


def side_of(rows: pd.DataFrame, label: str) -> Side:
    """What became of a side's launches; one that was repeated with success is no loss."""
    if not len(rows):
        return Side(label, 0, 0, 0)
    answered = set(rows.loc[rows["status"] == "ok", "block"])
    lost = rows[(rows["status"] != "ok") & ~rows["block"].isin(answered)].drop_duplicates("block", keep="last")
    failed: list[str] = []
    invalid: list[str] = []
    for row in lost.to_dict("records"):
        why = row.get("reason") or row.get("reason_kind") or row["status"]
        (failed if row["status"] in {"failed", "unsupported"} else invalid).append(f"block {row['block']}: {why}")
    requests = int(rows.loc[rows["status"] == "ok", "requests"].sum()) if "requests" in rows else 0
    return Side(label, len(rows), len(answered), requests, tuple(failed), tuple(invalid))


def variant_id(run: Run, wanted: str | Mapping[str, Any]) -> str:
    """The id of a variant given by id or by factors; UnknownName says which there are, UsageError if several fit."""
    if isinstance(wanted, str) and wanted in run.variants:
        return wanted
    selector = _selector(wanted) if isinstance(wanted, str) else wanted
    factors = {str(variant["id"]): variant.get("factors", {}) for variant in run.manifest.variants}
    fitting = [
        name
        for name, levels in factors.items()
        if selector and all(levels.get(factor) == level_text(level) for factor, level in selector.items())
    ]
    if not fitting:
        raise UnknownName("variant", str(wanted), run.variants)
    if len(fitting) > 1:
        raise UsageError(
            f"{wanted} fits {len(fitting)} variants: {', '.join(fitting)}", hint="add factors until one fits"
        )
    return fitting[0]


def _selector(text: str) -> dict[str, str]:
    """`engine=vllm,warmup=none` as a mapping; empty if it is not of that form."""
    parts = [part.partition("=") for part in text.split(",")]
    return {name.strip(): level.strip() for name, equals, level in parts if equals}


def _list(blocks: Sequence[int]) -> str:
    shown = ", ".join(str(block) for block in blocks[:5])
    return shown if len(blocks) <= 5 else f"{shown} and {len(blocks) - 5} more"
