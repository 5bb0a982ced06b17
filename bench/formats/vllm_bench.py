"""The result JSON of `vllm bench serve`, which most dashboards and converters read. Lists are in seconds there.

Its `ttft` is the first chunk, ours the first token: what they write as `ttft` is read as our TTFR. What we write says
that we wrote it, and is read back under the names that it was written with.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from bench.analyse.run import Launch, Run
from bench.formats.figures import STATISTICS as READ
from bench.formats.figures import Row, rate, times
from bench.formats.sglang_bench import is_ours as _sglangs

STATISTICS = ("mean", "median", "std", "p50", "p90", "p95", "p99")
READ_AS = {"ttft": "ttfr", "tpot": "tpot", "itl": "itl", "e2el": "e2el"}
WRITER = "firsttoken"
OURS = {name: name for name in ("ttft", "ttfr", "ttfot", "tpot", "itl", "e2el")}
RATES = {
    "output_throughput": "output_throughput",
    "total_token_throughput": "total_throughput",
    "request_throughput": "request_throughput",
    "request_goodput": "goodput",
}


def export(run: Run) -> Mapping[str, Any]:
    """One result per variant, its valid launches taken together."""
    made = {}
    for variant in run.variants:
        launches = [one for one in run.all if one.record.variant == variant and one.record.status == "ok"]
        if launches:
            made[f"{run.manifest.scenario}-{variant}.json"] = _result(run, variant, launches)
    return made


def is_ours(document: Any) -> bool:
    """Whether a file is such a result."""
    return (
        isinstance(document, dict) and "mean_ttft_ms" in document and "completed" in document and not _sglangs(document)
    )


def read(document: Mapping[str, Any]) -> list[Row]:
    """Its statistics, and its rates; nothing if no request was completed."""
    # Some versions write a key with its colon: "request_goodput:".
    plain = {key.rstrip(": "): value for key, value in document.items()}
    return list(_rows(plain)) if plain.get("completed") else []


def _rows(document: Mapping[str, Any]) -> Iterator[Row]:
    names = OURS if document.get("written_by") == WRITER else READ_AS
    for theirs, ours in names.items():
        keys = {statistic: f"{statistic}_{theirs}_ms" for statistic in READ}
        if keys["p50"] not in document:
            keys["p50"] = f"median_{theirs}_ms"
        yield from times(ours, {statistic: (key, document.get(key)) for statistic, key in keys.items()})
    for theirs, ours in RATES.items():
        yield from rate(ours, document.get(theirs), theirs)


def _result(run: Run, variant: str, launches: list[Launch]) -> dict[str, Any]:
    tables = [launch.requests().to_pandas() for launch in launches]
    steady = [table[table["measured"]] for table in tables]
    asked = pd.concat(steady, ignore_index=True)
    done = asked[asked["ok"]]
    duration = sum(float(table["end_ns"].max() - table["sent_ns"].min()) / 1e9 for table in steady)
    gaps = np.concatenate([launch.gaps(launch.requests()) for launch in launches])
    planned = run.manifest.variant(variant)
    arrivals = (run.scenario.get("workload") or {}).get("arrivals") or {"closed": 1}
    rate = arrivals.get("rate") or arrivals.get("poisson")
    tokens = {name: _sum(done[f"{name}_tokens"]) for name in ("prompt", "completion")}
    total = None if None in tokens.values() else sum(value for value in tokens.values() if value is not None)
    start = float(asked["sent_ns"].min())
    return {
        "date": (run.manifest.created or "").replace("-", "").replace(":", "").replace("T", "-")[:15],
        "endpoint_type": "openai",
        "written_by": WRITER,
        "backend": planned.adapter,
        "label": variant,
        "model_id": planned.source or None,
        "tokenizer_id": planned.source or None,
        "num_prompts": len(asked),
        "request_rate": rate or "inf",
        "burstiness": 1.0,
        "max_concurrency": arrivals.get("closed") or arrivals.get("max_in_flight"),
        "duration": duration,
        "completed": len(done),
        "failed": len(asked) - len(done),
        "total_input_tokens": tokens["prompt"],
        "total_output_tokens": tokens["completion"],
        "request_throughput": _per(len(done), duration),
        "output_throughput": _per(tokens["completion"], duration),
        "total_token_throughput": _per(total, duration),
        **_statistics("ttft", done["ttft_ms"].to_numpy(dtype=float)),
        **_statistics("ttfr", done["ttfr_ms"].to_numpy(dtype=float)),
        **_statistics("ttfot", done["ttfot_ms"].to_numpy(dtype=float)),
        **_statistics("tpot", done["tpot_ms"].to_numpy(dtype=float)),
        **_statistics("itl", gaps),
        **_statistics("e2el", done["e2el_ms"].to_numpy(dtype=float)),
        "input_lens": _list(done["prompt_tokens"]),
        "output_lens": _list(done["completion_tokens"]),
        "ttfts": _list(done["ttft_ms"] / 1e3),
        "latencies": _list(done["e2el_ms"] / 1e3),
        "start_times": _list((done["sent_ns"] - start) / 1e9),
        "errors": [str(error) for error in asked.loc[~asked["ok"], "error"]],
    }


def _statistics(name: str, values: np.ndarray) -> dict[str, float | None]:
    kept = values[np.isfinite(values)]
    if not len(kept):
        return {f"{statistic}_{name}_ms": None for statistic in STATISTICS}
    found = {"mean": kept.mean(), "median": np.median(kept), "std": kept.std()}
    found |= {f"p{q}": np.percentile(kept, q) for q in (50, 90, 95, 99)}
    return {f"{statistic}_{name}_ms": float(found[statistic]) for statistic in STATISTICS}


def _sum(column: pd.Series) -> int | None:
    return None if column.isna().any() or not len(column) else int(column.sum())


def _per(amount: float | None, seconds: float) -> float | None:
    return None if amount is None or not seconds else amount / seconds


def _list(column: pd.Series) -> list[float | None]:
    return [None if pd.isna(value) else float(value) for value in column]
