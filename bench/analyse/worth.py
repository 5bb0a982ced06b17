"""What each warm-up costs and saves, and after how many requests it has paid."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from scipy import stats

from bench.analyse.coldstart import AS_ASKED, NOT_AS_ASKED, SEEN, STATE, verified
from bench.analyse.estimate import Estimate, mean
from bench.analyse.run import Launch, Run
from bench.phrases import counted
from bench.record.launches import LaunchRecord


@lru_cache(maxsize=1)
def launches(run: Run) -> pd.DataFrame:
    """One row per launch that reached its first token: variant, block, state and what was read and paid.

    Columns: launch, variant, block, status, state, why (the evidence where the state is not as asked), start,
    cold_ttft_s, restored_s and second_token_s (of a restored launch: the process runs again; the second token of the
    first answer), parent_s and parent_mib (making its warm parent or image, and what a parent holds with nothing
    served; nothing by exec), image_mib (on disk), first_start_s (both times together: the first start from a parent has
    to wait for it), startup_s, prepare_s, warmup_s, warmup_requests, first_ttft_ms, first_e2el_ms, ttft_ms, tpot_ms,
    e2el_ms, tokens (of an answer), memory_mib, cache_mib, warmup_j. Medians over the steady requests. Every table here
    starts from it, and it reads all requests: it is kept, and not to be changed.
    """
    metrics: dict[str, Any] = {str(row["launch"]): row for row in run.per_launch.to_dict("records")}
    rows = [_row(launch, metrics[launch.id]) for launch in run.all if launch.record.status in SEEN]
    table = pd.DataFrame(rows)
    return table if table.empty else table[table["cold_ttft_s"].notna()].reset_index(drop=True)


def summary(run: Run) -> pd.DataFrame:
    """One row per variant and state: launches and medians. States are never averaged together."""
    table = launches(run)
    if table.empty:
        return table
    figures = [c for c in table.columns if c not in ("launch", "variant", "block", "status", "state", "why", "start")]
    grouped = table.groupby(["variant", "state"], sort=False, observed=True)
    medians = grouped[figures].median()
    medians.insert(0, "launches", grouped.size())
    medians["cold_ttft_min_s"], medians["cold_ttft_max_s"] = grouped["cold_ttft_s"].min(), grouped["cold_ttft_s"].max()
    medians["why"], medians["start"] = grouped["why"].first(), grouped["start"].first()
    return medians.reset_index()


def by_variant(run: Run) -> dict[str, dict[Any, Any]]:
    """The summary's row of each variant that has one: of its launches as asked where there are any."""
    rows: dict[str, dict[Any, Any]] = {}
    rank = {AS_ASKED: 0, NOT_AS_ASKED: 2}
    for row in sorted(summary(run).to_dict("records"), key=lambda row: rank.get(row["state"], 1)):
        rows.setdefault(str(row["variant"]), row)
    return {variant: rows[variant] for variant in run.variants if variant in rows}


def against(run: Run, baseline: str) -> pd.DataFrame:
    """Each variant beside the baseline, paired by block, launches as asked alone.

    Columns: variant, n (blocks), first_saving_ms (baseline's first TTFT − its own), first_ratio, cold_saving_s,
    cold_ratio, steady_tpot_ratio, steady_ttft_ratio, break_even (requests after which the slower start has been
    made up, the making of its warm parent with it; 0 if it starts no slower once there is a parent, infinite if it
    never does), parent_even (starts after which quicker ones have made up the parent's making; null without one),
    steady_saving_ms (a whole request) and lost_after (requests after which the lead of a faster start is lost; infinite
    if it serves no slower, null if it starts no faster) each with `_low` and `_high` at 95 %; tokens_per_request, and
    verdict in words.
    """
    table = launches(run)
    table = table[(table["state"] != NOT_AS_ASKED) & (table["status"] == "ok")] if not table.empty else table
    rows = []
    for variant in run.variants:
        if variant == baseline or table.empty:
            continue
        pairs = _pairs(table, baseline, variant)
        if pairs.empty:
            continue
        figures = {
            "first_saving_ms": mean(pairs["first_ttft_ms_a"] - pairs["first_ttft_ms_b"]),
            "first_ratio": _ratio(pairs, "first_ttft_ms"),
            "cold_saving_s": mean(pairs["cold_ttft_s_a"] - pairs["cold_ttft_s_b"]),
            "cold_ratio": _ratio(pairs, "cold_ttft_s"),
            "steady_tpot_ratio": _ratio(pairs, "tpot_ms"),
            "steady_ttft_ratio": _ratio(pairs, "ttft_ms"),
            "steady_saving_ms": mean(pairs["e2el_ms_a"] - pairs["e2el_ms_b"]),
            "break_even": _even(pairs),
            "parent_even": parent_even(pairs),
            "lost_after": lost_after(pairs),
        }
        row: dict[str, Any] = {"variant": variant, "n": len(pairs), "tokens_per_request": _tokens(pairs)}
        for name, estimate in figures.items():
            row |= {name: estimate.value, f"{name}_low": estimate.low, f"{name}_high": estimate.high}
        words = _words(figures, row["tokens_per_request"])
        made = "image" if (pairs["start_b"] == "restored").any() else "parent"
        rows.append(row | {"verdict": words + _paid(made, figures["parent_even"])})
    return pd.DataFrame(rows)


def break_even(pairs: pd.DataFrame, start: str = "cold_ttft_s") -> Estimate:
    """Requests after which b, which starts slower than a, has served as many as a in the same time.

    N = mean(start_b − start_a) / mean(e2el_a − e2el_b), `start` naming the column; the interval is Fieller's for a
    ratio of paired means, 95 %.
    """
    cost = (pairs[f"{start}_b"] - pairs[f"{start}_a"]).to_numpy(float)
    gain = ((pairs["e2el_ms_a"] - pairs["e2el_ms_b"]) / 1e3).to_numpy(float)
    known = np.isfinite(cost) & np.isfinite(gain)
    cost, gain = cost[known], gain[known]
    if not len(cost):
        return Estimate(None)
    if cost.mean() <= 0:
        return Estimate(0.0, n=len(cost))
    value = float(cost.mean() / gain.mean()) if gain.mean() > 0 else math.inf
    low, high = fieller(cost, gain)
    return Estimate(value, None if low is None else max(low, 0.0), high, len(cost))


def _even(pairs: pd.DataFrame) -> Estimate:
    """The break-even; what starts no slower from a parent that is there pays for that by starts, see parent_even."""
    later = break_even(pairs)
    return break_even(pairs, "first_start_s") if later.value else later


def parent_even(pairs: pd.DataFrame) -> Estimate:
    """Starts of b after which its warm parent has saved, against starts of a, as many seconds as its making took.

    N = mean(parent_b − parent_a) / mean(cold_a − cold_b), Fieller's interval at 95 %; null if b starts no faster, for
    then the parent saves nothing at the start.
    """
    cost = (pairs["parent_s_b"] - pairs["parent_s_a"]).to_numpy(float)
    gain = (pairs["cold_ttft_s_a"] - pairs["cold_ttft_s_b"]).to_numpy(float)
    known = np.isfinite(cost) & np.isfinite(gain)
    cost, gain = cost[known], gain[known]
    if not len(cost) or cost.mean() <= 0 or gain.mean() <= 0:
        return Estimate(None)
    low, high = fieller(cost, gain)
    return Estimate(float(cost.mean() / gain.mean()), None if low is None else max(low, 0.0), high, len(cost))


def lost_after(pairs: pd.DataFrame) -> Estimate:
    """Requests after which b, which starts faster than a and serves slower, has lost its lead.

    The break-even the other way round: of a, which starts slower than b. Null if b starts no faster.
    """
    columns = [name[:-2] for name in pairs.columns if name.endswith("_a")]
    turned = {f"{name}_a": f"{name}_b" for name in columns} | {f"{name}_b": f"{name}_a" for name in columns}
    found = break_even(pairs.rename(columns=turned))
    return Estimate(None) if found.value == 0 else found


def fieller(top: np.ndarray[Any, Any], bottom: np.ndarray[Any, Any]) -> tuple[float | None, float | None]:
    """The 95 % interval of mean(top)/mean(bottom) for paired samples; an infinite end where the bottom may be zero.

    Fieller 1954. Both ends are null below two pairs.
    """
    n = len(top)
    if n < 2:
        return None, None
    t = float(stats.t.ppf(0.975, n - 1))
    covariance = np.cov(top, bottom) / n
    x, y = float(top.mean()), float(bottom.mean())
    a = y * y - t * t * covariance[1, 1]
    b = x * y - t * t * covariance[0, 1]
    c = x * x - t * t * covariance[0, 0]
    root = b * b - a * c
    if a <= 0:
        # The gain is not told from none: no number of requests is sure to be enough.
        return (None if root < 0 else c / (b + math.sqrt(root)) if b + math.sqrt(root) > 0 else None), math.inf
    return (b - math.sqrt(root)) / a, (b + math.sqrt(root)) / a


def cost_curve(run: Run, requests: Sequence[int]) -> pd.DataFrame:
    """Seconds from spawn until the n-th request is answered, per variant: variant, requests, seconds.

    Medians of launches as asked: cold TTFT, the rest of the first answer, then n − 1 steady ones.
    """
    table = launches(run)
    rows = []
    if not table.empty:
        good = table[(table["state"] != NOT_AS_ASKED) & (table["status"] == "ok")]
        for variant, group in good.groupby("variant", sort=False):
            first = (group["cold_ttft_s"] + (group["first_e2el_ms"] - group["first_ttft_ms"]) / 1e3).median()
            each = (group["e2el_ms"] / 1e3).median()
            rows += [{"variant": variant, "requests": n, "seconds": first + (n - 1) * each} for n in requests]
    return pd.DataFrame(rows, columns=["variant", "requests", "seconds"])


def _row(launch: Launch, metrics: Mapping[str, Any]) -> dict[str, Any]:
    record = launch.record
    requests = launch.requests()
    first = requests.filter(np.asarray(requests["stage"]) == "first").to_pandas()
    e2el = float(first["e2el_ms"].iloc[0]) if len(first) and pd.notna(first["e2el_ms"].iloc[0]) else None
    state = verified(launch)
    start, parent, image = record.start, record.start.parent, record.start.image
    made = parent if start.forked else image
    making = (made.seconds if made else None) if start.copied else 0.0
    restored = start.mode == "restored"
    cold = metrics.get("cold_ttft")
    doubt = [c.evidence for c in record.checks if c.name.endswith(STATE) and c.status in ("violated", "unknown")]
    return {
        "launch": launch.id,
        "variant": record.variant,
        "block": record.block,
        "status": record.status,
        "state": state,
        "why": "; ".join(doubt) or None,
        "start": start.mode if start.copied else "exec",
        "cold_ttft_s": cold,
        "startup_s": metrics.get("startup"),
        "parent_s": making,
        "parent_mib": (parent.pss_mib if parent else None) if start.forked else 0.0,
        "image_mib": (image.mib if image else None) if restored else 0.0,
        "restored_s": since(record, record.stamps.get("restored")),
        "second_token_s": since(record, _second_token(launch, requests)) if restored else None,
        "first_start_s": None if making is None or cold is None else cold + making,
        "prepare_s": record.state_before.prepare_s,
        "warmup_s": metrics.get("warmup"),
        "warmup_requests": sum(stage.requests for stage in record.warmup),
        "first_ttft_ms": metrics.get("first_ttft"),
        "first_e2el_ms": e2el,
        "ttft_ms": metrics.get("ttft.p50"),
        "tpot_ms": metrics.get("tpot.p50"),
        "e2el_ms": metrics.get("e2el.p50"),
        "tokens": _answered(requests),
        "memory_mib": metrics.get("memory.peak"),
        "cache_mib": None if (size := record.state_before.cache_bytes) is None else size / 2**20,
        "warmup_j": metrics.get("energy.warmup"),
    }


def since(record: LaunchRecord, moment: int | None) -> float | None:
    """Seconds from the spawn to a moment, where there are both."""
    spawn = record.stamps.get("spawn")
    return None if moment is None or spawn is None else (moment - spawn) / 1e9


def _second_token(launch: Launch, requests: pa.Table) -> int | None:
    """When the second output event of the workload's first request came; null where it has but one."""
    first = requests.filter(np.asarray(requests["stage"]) == "first")["request_id"].to_pylist()
    chunks = launch.read("chunks", ["request_id", "kernel_ns", "user_ns", "kind"])
    if not first or chunks.empty:
        return None
    mine = chunks[(chunks["request_id"] == first[0]) & chunks["kind"].isin(["content", "reasoning"])]
    if len(mine) < 2:
        return None
    row = mine.iloc[1]
    return int(row["kernel_ns"] if pd.notna(row["kernel_ns"]) else row["user_ns"])


def _answered(requests: pa.Table) -> float | None:
    """Output tokens of the median steady answer; null where none was counted."""
    steady = requests.filter(pc.equal(requests["stage"], "measured")).to_pandas()
    known = steady["completion_tokens"].dropna() if "completion_tokens" in steady else steady.iloc[:0, 0]
    return float(known.median()) if len(known) else None


def _pairs(table: pd.DataFrame, a: str, b: str) -> pd.DataFrame:
    """The last good launch of each in every block that has both, columns suffixed _a and _b."""
    last = table.drop_duplicates(["variant", "block"], keep="last")
    left, right = last[last["variant"] == a], last[last["variant"] == b]
    return left.merge(right, on="block", suffixes=("_a", "_b"))


def _ratio(pairs: pd.DataFrame, column: str) -> Estimate:
    return mean(np.log((pairs[f"{column}_b"] / pairs[f"{column}_a"]).to_numpy(float))).exp()


def _paid(made: str, even: Estimate) -> str:
    """What was made before has paid after a number of starts, of which only whole ones happen."""
    if even.value is None:
        return ""
    starts = math.ceil(even.value)
    return f"; its {made} has paid after {starts} start" + ("" if starts == 1 else "s")


def _tokens(pairs: pd.DataFrame) -> float | None:
    """Output tokens of a steady request, as b answered them; null where none was counted."""
    known = pairs["tokens_b"].dropna()
    return float(known.median()) if len(known) else None


def _words(figures: Mapping[str, Estimate], tokens: float | None) -> str:
    """What a start is worth, claiming no more than the intervals do."""
    even, start, steady = figures["break_even"], figures["cold_saving_s"], figures["steady_saving_ms"]
    if even.value is None:
        return "not measured"
    if even.value == 0:
        return _lead(figures["lost_after"], start, tokens)
    if math.isinf(even.value):
        if _below(start) and steady.high is not None and steady.high <= 0:
            return "starts slower and serves no faster: never pays"
        slower = "starts slower" if _below(start) else "no difference at the start is sure"
        return f"{slower}; that it serves faster was not seen, and is not excluded"
    if even.high is None or math.isinf(even.high):
        return f"pays after about {_requests(even.value)}; this run cannot say surely that it does"
    return f"pays after {_requests(even.value)} ({even.low:.0f} to {even.high:.0f})"


def _lead(lost: Estimate, start: Estimate, tokens: float | None) -> str:
    """Of a start that is no slower: whether surely, and how long its lead lasts."""
    words = "starts faster" if start.low is not None and start.low > 0 else "starts faster, not surely"
    if lost.value is None or math.isinf(lost.value):
        return words
    when = _requests(lost.value)
    if tokens:
        when = f"{lost.value * tokens:.0f} tokens ({when})"
    sure = lost.high is not None and not math.isinf(lost.high)
    if sure:
        return f"{words}, serves slower: its lead is lost after {when}"
    return f"{words}; if it serves slower, as it seems, its lead is lost after about {when}"


def _below(estimate: Estimate) -> bool:
    return estimate.high is not None and estimate.high < 0


def _requests(amount: float) -> str:
    return counted(round(amount), "request")
