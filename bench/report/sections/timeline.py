"""The timeline: phases and requests of a launch above what the machine did meanwhile, to zoom into."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from bench.analyse.coldstart import waterfall
from bench.analyse.run import Launch
from bench.record.launches import FieldInfo
from bench.report.elements import Section, Timeline
from bench.report.view import View

# Points per launch, and characters of data in all: what a page can carry.
POINTS, BUDGET = 240, 450_000
REQUESTS = 400
# Rows of nested phases.
DEPTH = 3
SERIES = 6
PANELS = {"MiB": "memory", "W": "power", "°C": "temperature", "%": "load", "MHz": "clocks", "cores": "processor"}
# In these a peak matters more than a mean.
PEAKS = {"MiB", "W", "°C"}
# Whose readings come first where a panel is full, and what says the same as another.
SCOPES = ("engine", "machine", "harness", "sampler")
LEFT_OUT = {
    "uss_mib",
    "peak_rss_mib",
    "cgroup_peak_mib",
    "mem_free_mib",
    "mem_cached_mib",
    "cpu_idle_s",
    "cpu_iowait_s",
    "cpu_full_s",
}
STAMPS = ("first_output", "port_open", "health", "ready", "warmup_end", "first_token", "stop")


def section(view: View) -> Section | None:
    """One launch at a time, chosen by the reader; as many as fit are in the page."""
    launches: list[dict[str, Any]] = []
    spent = 0
    for launch in _order(view):
        content = _launch(view, launch)
        spent += len(json.dumps(content))
        if launches and spent > BUDGET:
            break
        launches.append(content)
    if not launches:
        return None
    launches.sort(key=lambda content: str(content["id"]))
    of = len(view.run.all)
    chosen = "" if len(launches) == of else f" {len(launches)} of {of} launches are in this page."
    caption = (
        "Requests above, pale until their first token; sensors below, thinned to "
        f"{POINTS} points, each the peak (memory, power, temperature) or the mean of its slice. Seconds count from the "
        f"spawn of the engine. Drag to zoom, double-click to go back.{chosen}"
    )
    return Section("timeline", "The machine beside the requests", (Timeline({"launches": launches}, caption),))


def _order(view: View) -> Iterator[Launch]:
    """One launch of each variant first, then the second of each: what is cut off is a repetition."""
    rounds: dict[int, list[Launch]] = {}
    seen: dict[str, int] = {}
    for launch in sorted(view.run.all, key=lambda launch: launch.record.status != "ok"):
        variant = launch.record.variant
        seen[variant] = seen.get(variant, 0) + 1
        rounds.setdefault(seen[variant], []).append(launch)
    for number in sorted(rounds):
        yield from rounds[number]


def _launch(view: View, launch: Launch) -> dict[str, Any]:
    record = launch.record
    known = [stamp for stamp in record.stamps.values() if stamp is not None]
    origin = record.stamps.get("spawn") or min(known, default=0)
    phases = waterfall(launch)
    requests = launch.read("requests", ("stage", "stream", "sent_ns", "first_token_ns", "end_ns", "error_kind"))
    requests = requests.dropna(subset=["sent_ns", "end_ns"])
    shown = requests.iloc[:: max(1, -(-len(requests) // REQUESTS))]
    samples = launch.read("samples", ("t_ns", "probe", "field", "value")).dropna(subset=["value"])
    seconds = (samples["t_ns"].to_numpy(dtype="int64") - origin) / 1e9
    ends = [*(stamp - origin for stamp in known), *(int(end) - origin for end in requests["end_ns"])]
    last = max([*(end / 1e9 for end in ends), *seconds[-1:], 1.0])
    edges = np.linspace(0, last, POINTS + 1)
    return {
        "id": launch.id,
        "status": record.status,
        "colour": view.colour(record.variant),
        "t": [round(float(t), 3) for t in (edges[:-1] + edges[1:]) / 2],
        "end": round(float(last), 3),
        "marks": [
            [name.replace("_", " "), round((stamp - origin) / 1e9, 3)]
            for name in STAMPS
            if (stamp := record.stamps.get(name)) is not None
        ],
        "phases": [
            [str(row["name"]).replace("_", " "), round(row["start_s"], 3), round(row["end_s"], 3), int(row["depth"])]
            for row in phases[phases["depth"] < DEPTH].to_dict("records")
        ],
        "requests": [
            [row["stage"], int(row["stream"]), *_seconds(origin, row["sent_ns"], row["first_token_ns"], row["end_ns"]),
             isinstance(row["error_kind"], str)]
            for row in shown.to_dict("records")
        ],
        "panels": list(_panels(samples.assign(t=seconds), record.fields, edges)),
    }  # fmt: skip


def _seconds(origin: int, *stamps: Any) -> list[float | None]:
    return [None if pd.isna(stamp) else round((int(stamp) - origin) / 1e9, 3) for stamp in stamps]


def _panels(samples: pd.DataFrame, fields: list[FieldInfo], edges: np.ndarray[Any, Any]) -> Iterator[dict[str, Any]]:
    """The sensors of a launch, by unit; in one panel the engine's first, and those that move most."""
    panels: dict[tuple[str, str], list[tuple[int, float, dict[str, Any]]]] = {}
    groups = dict(iter(samples.groupby(["probe", "field"], observed=True)))
    for info in fields:
        part = groups.get((info.probe, info.field))
        if part is None or len(part) < 2 or info.field in LEFT_OUT:
            continue
        times, values, unit = part["t"].to_numpy(), part["value"].to_numpy(dtype=float), info.unit
        if info.doc.startswith("cumulative"):
            # Seconds of processor time per second are cores; other counters would need a reader's own window.
            if unit != "s" or "cpu" not in info.field:
                continue
            steps = np.diff(times)
            times, values, unit = times[1:], np.diff(values) / np.where(steps > 0, steps, np.nan), "cores"
        if unit not in PANELS or not np.nanmax(np.abs(values)) > 0:
            continue
        series = {"label": _label(info), "doc": info.doc, "v": _thin(times, values, edges, peak=unit in PEAKS)}
        rank = SCOPES.index(info.scope) if info.scope in SCOPES else 1
        # Beside the whole machine's memory, an engine's would be a flat line.
        whole = "machine's " if unit == "MiB" and info.scope == "machine" else ""
        panels.setdefault((unit, whole), []).append((rank, -float(np.nanmax(values) - np.nanmin(values)), series))
    for unit, title in PANELS.items():
        for whole in ("", "machine's "):
            if found := panels.get((unit, whole)):
                moving = sorted(found, key=lambda item: item[:2])[:SERIES]
                yield {"title": f"{whole}{title}", "unit": unit, "series": [series for *_, series in moving]}


def _label(info: FieldInfo) -> str:
    """`engine pss`, `machine cpu steal`: whose it is, and what it is, without the unit that the panel names."""
    bare = re.sub(r"_(mib|w|c|s|mhz|percent)$", "", info.field).replace("_", " ").replace(".", " ")
    return f"{info.scope} {bare}" if info.scope in SCOPES and not bare.startswith(info.scope) else bare


def _thin(
    times: np.ndarray[Any, Any], values: np.ndarray[Any, Any], edges: np.ndarray[Any, Any], *, peak: bool
) -> list[float | None]:
    """One value per slice; null where none was taken."""
    place = np.clip(np.searchsorted(edges, times, side="right") - 1, 0, len(edges) - 2)
    kept = np.isfinite(values)
    series = pd.Series(values[kept]).groupby(place[kept])
    found = (series.max() if peak else series.mean()).reindex(range(len(edges) - 1))
    return [None if not np.isfinite(value) else float(f"{value:.4g}") for value in found]
