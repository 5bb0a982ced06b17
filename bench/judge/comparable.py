"""What two variants must have in common before their times mean anything beside each other.

Host class, model, prompts and tokens: where they differ a ratio would be an answer to another question, so there is
none. Two runs must moreover have been interleaved block by block; one after the other, a drifting machine looks like a
change (13–57 % false alarms), so there is a ratio but no verdict.

What is comparable is paired: the blocks that have a value on both sides. What became of the others is told.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from bench.analyse.metrics import Metric
from bench.errors import IncomparableError, UnknownName, UsageError
from bench.judge import likeness
from bench.scenario.variant import level_text

if TYPE_CHECKING:
    from bench.analyse.run import Launch, Run

WORKLOAD = ("prompts", "output_tokens", "ignore_eos", "temperature", "arrivals", "requests", "unique")
TOKEN_COLUMNS = ("request_id", "prompt_id", "stage", "error_kind", "prompt_tokens", "completion_tokens")


def check(run: Run, a: str, other: Run, b: str) -> None:
    """IncomparableError naming everything in which variant `b` of the other run differs from `a` where it must not."""
    found = [*_runs(run, other), *_models(run, a, other, b)]
    found = found or list(_requests(run, a, other, b))
    if found:
        raise IncomparableError(
            f"{a} and {b} cannot be compared:\n" + "\n".join(f"  {line}" for line in found),
            hint="`bench report` shows them side by side, without a verdict",
        )


def unpaired(run: Run, other: Run) -> tuple[str, ...]:
    """Why the blocks of two runs are no pairs, in words; empty if they are."""
    found = []
    if changed := likeness.differences(run.manifest.fingerprint, other.manifest.fingerprint):
        found.append(f"the machine's state differs between the runs ({'; '.join(changed)})")
    if run.manifest.seed != other.manifest.seed:
        found.append(f"the runs drew their prompts with different seeds ({run.manifest.seed}, {other.manifest.seed})")
    if not _interleaved(run.per_launch, other.per_launch):
        found.append("the runs were taken one after the other: a drifting machine would look like a change")
    return tuple(found)


def _runs(run: Run, other: Run) -> Iterator[str]:
    if run is other:
        return
    here, there = likeness.host_class(run.manifest.fingerprint), likeness.host_class(other.manifest.fingerprint)
    if here != there:
        yield f"host class: {here} and {there}"
    if bool(run.manifest.emulated) != bool(other.manifest.emulated):
        yield f"emulated: {run.manifest.emulated or 'no'} and {other.manifest.emulated or 'no'}"
    mine, theirs = run.scenario.get("workload") or {}, other.scenario.get("workload") or {}
    for key in WORKLOAD:
        if mine.get(key) != theirs.get(key):
            yield f"workload.{key}: {_short(mine.get(key))} and {_short(theirs.get(key))}"


def _models(run: Run, a: str, other: Run, b: str) -> Iterator[str]:
    mine, theirs = run.manifest.variant(a), other.manifest.variant(b)
    for key in ("source", "revision", "sha256"):
        if mine.model.get(key) != theirs.model.get(key):
            yield f"model {key}: {_short(mine.model.get(key))} and {_short(theirs.model.get(key))}"
    if mine.quantization == theirs.quantization:
        here, there = _digests(run, a), _digests(other, b)
        if here and there and here != there:
            yield f"weights: {', '.join(sorted(here))} and {', '.join(sorted(there))}"


def _requests(run: Run, a: str, other: Run, b: str) -> Iterator[str]:
    """Compare what was asked and answered in the first block that both sides have; the plan repeats it in all."""
    left, right = _valid(run, a), _valid(other, b)
    for block in sorted(left.keys() & right.keys()):
        mine, theirs = _tokens(left[block]), _tokens(right[block])
        both = mine.join(theirs, "number", right_suffix="_b", join_type="inner")
        if len(mine) != len(theirs):
            yield f"requests in block {block + 1}: {len(mine)} and {len(theirs)}"
        if pc.any(pc.not_equal(both["prompt_id"], both["prompt_id_b"])).as_py():
            yield f"prompts of block {block + 1}: not the same ones"
        answered = both.filter(pc.and_(pc.is_null(both["error_kind"]), pc.is_null(both["error_kind_b"])))
        for name, remedy in (("prompt_tokens", "same tokenizer?"), ("completion_tokens", "set ignore_eos: true")):
            sums = _total(answered[name]), _total(answered[f"{name}_b"])
            if None not in sums and sums[0] != sums[1]:
                yield f"{name} over {len(answered)} requests of block {block + 1}: {sums[0]} and {sums[1]} ({remedy})"
        return


def _valid(run: Run, variant: str) -> dict[int, Launch]:
    return {
        launch.record.block: launch
        for launch in run.all
        if launch.record.variant == variant and launch.record.status == "ok"
    }


def _tokens(launch: Launch) -> pa.Table:
    """The workload's requests, numbered from 0: a warm-up before them takes the first of a launch's own numbers."""
    table = launch.table("requests", TOKEN_COLUMNS)
    asked = table.filter(pc.is_in(table["stage"], value_set=pa.array(["first", "measured"]))).sort_by("request_id")
    return asked.drop_columns(["request_id"]).append_column("number", pa.array(range(len(asked)), pa.int64()))


def _total(column: pa.ChunkedArray) -> int | None:
    return None if column.null_count or not len(column) else int(pc.sum(column).as_py())


def _digests(run: Run, variant: str) -> set[str]:
    facts = (launch.record.facts for launch in _valid(run, variant).values())
    return {str(fact["checkpoint_digest"]) for fact in facts if fact.get("checkpoint_digest")}


def _interleaved(mine: pd.DataFrame, theirs: pd.DataFrame) -> bool:
    """Whether each block's launches of both runs lie together in time, and not always in the same order."""
    if not len(mine) or not len(theirs):
        return False
    starts = [
        frame.groupby("block")["wall_time"].agg(["min", "max"]).add_prefix(side)
        for frame, side in ((mine, "a_"), (theirs, "b_"))
    ]
    blocks = starts[0].join(starts[1], how="inner").dropna()
    if len(blocks) < 2:
        return False
    begin, end = blocks[["a_min", "b_min"]].min(axis=1), blocks[["a_max", "b_max"]].max(axis=1)
    apart = (begin.to_numpy()[1:] > end.to_numpy()[:-1]).all()
    first = (blocks["a_min"] < blocks["b_min"]).to_numpy()
    return bool(apart and first.any() and not first.all())


def _short(value: Any) -> str:
    text = "unset" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


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


def pairs_of(measure: Metric, a: pd.DataFrame, b: pd.DataFrame) -> tuple[tuple[Pair, ...], tuple[str, ...]]:
    """The blocks in which both sides have a value that can be compared, and in words what was left out."""
    left, right = values_of(a, measure.id), values_of(b, measure.id)
    both = sorted(left.keys() & right.keys())
    notes = []
    lowest = {block: min(left[block], right[block]) for block in both}
    impossible = [block for block in both if lowest[block] < 0 or (lowest[block] == 0 and not measure.by_difference)]
    if impossible:
        what = "negative" if any(lowest[block] < 0 for block in impossible) else "zero"
        notes.append(f"{what} in block{'s' * (len(impossible) > 1)} {_list(impossible)}")
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
    return _marked("unsteady", sides)


def crowded_blocks(*sides: pd.DataFrame) -> frozenset[int]:
    """Blocks in which others were on the processors with a valid launch of either side, or may have been."""
    return _marked("crowded", sides)


def _marked(column: str, sides: Sequence[pd.DataFrame]) -> frozenset[int]:
    return frozenset(
        int(block)
        for rows in sides
        if column in rows
        for block in rows.loc[(rows["status"] == "ok") & rows[column].astype(bool), "block"]
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
        (failed if row["status"] in {"failed", "unsupported"} else invalid).append(f"block {row['block'] + 1}: {why}")
    requests = int(rows.loc[rows["status"] == "ok", "requests"].sum()) if "requests" in rows else 0
    return Side(label, len(rows), len(answered), requests, tuple(failed), tuple(invalid))


def variant_id(run: Run, wanted: str | Mapping[str, Any]) -> str:
    """The id of a variant given by id or by factors; UnknownName says which there are, UsageError if several fit."""
    if isinstance(wanted, str) and wanted in run.variants:
        return wanted
    selector = _selector(wanted) if isinstance(wanted, str) else wanted
    factors = {variant.id: variant.factors for variant in run.manifest.variants}
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
    # Records count from 0, people from 1.
    shown = ", ".join(str(block + 1) for block in blocks[:5])
    return shown if len(blocks) <= 5 else f"{shown} and {len(blocks) - 5} more"
