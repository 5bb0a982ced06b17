"""What a cold start was made of: every second between the spawn and the first token, by phase.

Phases nest and overlap; every instant is given to the innermost phase, which is the shortest one that runs then. So
phases and the unattributed rest add up to the cold TTFT.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from bench.analyse.run import Launch, Run

# The article that this project began with divides a start into four; what it calls by these names happens in these
# phases of the engines.
SHARES: Mapping[str, tuple[str, ...]] = {
    "load": ("download", "model_load", "model_init", "weights"),
    "compile": (
        "dynamo",
        "inductor",
        "compile_load",
        "compile",
        "warmup_run",
        "compile_artifacts_load",
        "graph_capture",
        "kernel_warmup",
    ),
    "kv_cache": ("kv_cache", "static_cache", "profile"),
    "preprocessing": ("tokenizer", "chat_template"),
}
PHASE_COLUMNS = ["launch", "variant", "block", "state", "phase", "seconds", "whole", "share", "source", "reason"]
STATE = ".state"
AS_ASKED, NOT_AS_ASKED, UNVERIFIED = "as asked", "not as asked", "unverified"
# Launches whose state was not the one asked for are judged invalid; here they are shown apart, not lost.
SEEN = ("ok", "invalid")


def exclusive(phases: pd.DataFrame, begin_ns: int, end_ns: int) -> dict[str, float]:
    """Seconds per phase name of one launch, each instant counted once, for the shortest phase that covers it."""
    spans = _spans(phases, begin_ns, end_ns)
    edges = sorted({begin_ns, end_ns, *(edge for start, end, _ in spans for edge in (start, end))})
    total: dict[str, float] = {}
    for left, right in itertools.pairwise(edges):
        around = [span for span in spans if span[0] <= left and right <= span[1]]
        name = min(around, key=lambda span: (span[1] - span[0], -span[0]))[2] if around else "unattributed"
        total[name] = total.get(name, 0.0) + (right - left) / 1e9
    return total


def whole(phases: pd.DataFrame, begin_ns: int, end_ns: int) -> dict[str, float]:
    """Seconds per phase name of one launch from its beginning to its end, with all that ran within it."""
    total: dict[str, float] = {}
    reached: dict[str, int] = {}
    for start, end, name in sorted(_spans(phases, begin_ns, end_ns)):
        fresh = max(start, reached.get(name, begin_ns))
        total[name] = total.get(name, 0.0) + max(0, end - fresh) / 1e9
        reached[name] = max(end, reached.get(name, begin_ns))
    return total


def _spans(phases: pd.DataFrame, begin_ns: int, end_ns: int) -> list[tuple[int, int, str]]:
    """The phases that were seen, as far as they lie between two instants."""
    timed = phases.dropna(subset=["start_ns", "end_ns"])
    spans = [
        (max(int(start), begin_ns), min(int(end), end_ns), str(name))
        for name, start, end in zip(timed["name"], timed["start_ns"], timed["end_ns"], strict=True)
    ]
    return [span for span in spans if span[0] < span[1]]


def verified(launch: Launch) -> str:
    """Whether the state before start was the one asked for: as asked, not as asked, or unverified."""
    found = {check.status for check in launch.record.checks if check.name.endswith(STATE)}
    if "violated" in found:
        return NOT_AS_ASKED
    return UNVERIFIED if "unknown" in found else AS_ASKED


def phase_table(run: Run) -> pd.DataFrame:
    """One row per launch and phase: seconds of its own, the whole of it with what ran within, its own share of the cold
    start, source, reason where null.

    The seconds of one launch, `unattributed` with them, add up to its cold TTFT.
    """
    rows: list[dict[str, Any]] = []
    for launch in run.all:
        begin, end = launch.record.stamps.get("spawn"), launch.record.stamps.get("first_token")
        if launch.record.status not in SEEN or begin is None or end is None:
            continue
        phases = launch.read("phases")
        own = exclusive(phases, begin, end)
        together = whole(phases, begin, end)
        cold = (end - begin) / 1e9
        head = {"launch": launch.id, "variant": launch.record.variant, "block": launch.record.block}
        head["state"] = verified(launch)
        sources = dict(zip(phases["name"], phases["source"], strict=True))
        own.setdefault("unattributed", 0.0)
        rows += [
            head
            | {
                "phase": name,
                "seconds": spent,
                "whole": together.get(name, spent),
                "share": spent / cold,
                "source": sources.get(name),
                "reason": None,
            }
            for name, spent in own.items()
        ]
        absent = phases[phases["start_ns"].isna() | phases["end_ns"].isna()].drop_duplicates("name")
        rows += [
            head | {"phase": name, "seconds": None, "whole": None, "share": None, "source": source, "reason": reason}
            for name, source, reason in zip(absent["name"], absent["source"], absent["reason"], strict=True)
            if name not in own
        ]
    return pd.DataFrame(rows, columns=PHASE_COLUMNS)


def phases_by_variant(run: Run) -> pd.DataFrame:
    """Median seconds, own and whole, and share per variant, state and phase, in the order in which phases begin.

    Null stays null.
    """
    table = phase_table(run)
    if table.empty:
        return table
    known = table.groupby(["variant", "state", "phase"], sort=False, observed=True)
    return known.agg(
        seconds=("seconds", "median"),
        whole=("whole", "median"),
        share=("share", "median"),
        launches=("launch", "nunique"),
        reason=("reason", "first"),
    ).reset_index()


def waterfall(launch: Launch) -> pd.DataFrame:
    """The phases of one launch to draw: name, parent, source, process, start_s and end_s since spawn, depth."""
    begin = launch.record.stamps.get("spawn")
    phases = launch.read("phases").dropna(subset=["start_ns", "end_ns"])
    if begin is None or phases.empty:
        return pd.DataFrame(columns=["name", "parent", "source", "process", "start_s", "end_s", "depth"])
    nested = phases.dropna(subset=["parent"])
    parents = dict(zip(nested["name"], nested["parent"], strict=True))
    drawn = phases.assign(
        start_s=(phases["start_ns"] - begin) / 1e9,
        end_s=(phases["end_ns"] - begin) / 1e9,
        depth=[_depth(name, parents) for name in phases["name"]],
    )
    columns = ["name", "parent", "source", "process", "start_s", "end_s", "depth"]
    return drawn.sort_values(["start_s", "end_s"], ascending=[True, False])[columns].reset_index(drop=True)


def shares(run: Run) -> pd.DataFrame:
    """The article's four shares as measured: per variant and state the median seconds and part of the cold start.

    Rows load, compile, kv_cache, preprocessing, and `elsewhere`: what the article has no name for.
    """
    table = phase_table(run).dropna(subset=["seconds"])
    if table.empty:
        return pd.DataFrame(columns=["variant", "state", "share_of", "seconds", "share"])
    names = {phase: share for share, phases in SHARES.items() for phase in phases}
    table = table.assign(share_of=[names.get(phase, "elsewhere") for phase in table["phase"]])
    each = table.groupby(["variant", "state", "launch", "share_of"], observed=True)[["seconds", "share"]].sum()
    full = each.unstack("share_of", fill_value=0.0).stack("share_of", future_stack=True).reset_index()
    medians = full.groupby(["variant", "state", "share_of"], sort=False, observed=True)[["seconds", "share"]].median()
    return medians.reset_index()


def _depth(name: str, parents: Mapping[str, str | None]) -> int:
    return sum(1 for _ in _ancestors(name, parents))


def _ancestors(name: str, parents: Mapping[str, str | None]) -> Iterator[str]:
    seen = {name}
    above = parents.get(name)
    while above and above not in seen:
        seen.add(above)
        yield above
        above = parents.get(above)
