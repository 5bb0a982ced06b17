"""The page of what a monitor recorded: first tokens over time, a line a day, and what changed when."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import dates
from matplotlib.figure import Figure as Drawing

from bench import __version__
from bench.analyse.run import Run
from bench.errors import RecordError
from bench.record.documents import keep_text
from bench.report import drawing as draw
from bench.report import html
from bench.report.elements import Block, Cell, Figure, Heading, Note, Notes, Page, Prose, Section, Table, Tone
from bench.service.days import by_endpoint
from bench.service.journal import FOLDER, lines
from bench.service.watch import AVAILABILITY
from bench.service.watchlist import STREAMS

# Canaries that a point of the line is the median of; fewer than this many make none.
MEDIAN_OF, LEAST = 15, 5
_TITLES = {"warm": "warm, unseen prompt", "idle": "first after a pause", "cached": "same prompt again"}
_MOST_EVENTS = 200


@dataclass(frozen=True, slots=True)
class Recorded:
    """What was recorded of one endpoint: a row per canary (time, stream, ttft_ms, tpot_ms, ok, error), its events."""

    canaries: pd.DataFrame
    events: list[tuple[datetime, str, dict[str, Any]]]


def write(folder: Path, page: Path) -> Path:
    """Write the page; the path. RecordError where nothing was recorded."""
    seen = gather(folder)
    if not seen:
        raise RecordError(f"{folder} holds no canaries yet", hint="bench monitor FILE --into that folder records some")
    return keep_text(page, html.pages([of(folder.name, seen)], [folder.name]))


def gather(folder: Path) -> dict[str, Recorded]:
    """What was recorded of each endpoint, in order of time: whole days, and the journals that no day is made of yet."""
    rows: list[dict[str, Any]] = []
    events: dict[str, list[tuple[datetime, str, dict[str, Any]]]] = {}
    if (folder / "manifest.json").exists():
        run = Run.open(folder)
        for launch in run.all:
            offset = launch.record.clock.offset_before_ns or 0
            name = launch.record.variant
            requests = launch.read("requests")
            requests = requests.assign(**_durations(requests))
            rows += [_row(name, offset, row) for row in _records(requests)]
            found = _records(launch.read("events"))
            events.setdefault(name, []).extend(_event(offset, one) for one in found)
    for journal in sorted((folder / FOLDER).glob("*.jsonl")):
        for name, seen in by_endpoint(lines(journal)).items():
            canaries = [one for one in seen if one["kind"] == "canary"]
            offset = canaries[0]["offset_ns"] if canaries else 0
            if canaries:
                table = pd.DataFrame([one["row"] for one in canaries])
                rows += [_row(name, offset, row) for row in _records(table.assign(**_durations(table)))]
            events.setdefault(name, []).extend(_event(offset, one) for one in seen if one["kind"] == "event")
    if not rows:
        return {}
    table = pd.DataFrame(rows).sort_values("time", kind="stable")
    return {
        str(name): Recorded(part.reset_index(drop=True), sorted(events.get(str(name), []), key=lambda one: one[0]))
        for name, part in table.groupby("endpoint", sort=True)
    }


def of(name: str, seen: dict[str, Recorded]) -> Page:
    """The page's content."""
    began = min(one.canaries["time"].iloc[0] for one in seen.values())
    ended = max(one.canaries["time"].iloc[-1] for one in seen.values())
    number = sum(len(one.canaries) for one in seen.values())
    return Page(
        title=f"{name}, watched",
        subtitle=f"{number} canaries, {began:%Y-%m-%d %H:%M} to {ended:%Y-%m-%d %H:%M} UTC",
        sections=tuple(Section(f"e{place}", one, tuple(_blocks(seen[one]))) for place, one in enumerate(seen)),
        variants=tuple(seen),
        foot=f"firsttoken {__version__}; `bench monitor … --page` makes it again.",
    )


def _blocks(seen: Recorded) -> Iterator[Block]:
    if seen.canaries["ttft_ms"].notna().any():
        yield _trend(seen)
    else:
        yield Notes((Note("No canary was answered.", str(seen.canaries["error"].iloc[-1] or ""), "bad"),))
    yield _by_day(seen.canaries)
    yield _changes(seen)


def _trend(seen: Recorded) -> Figure:
    answered = seen.canaries[seen.canaries["ttft_ms"].notna()]
    failed = seen.canaries[~seen.canaries["ok"]]

    def paint(drawing: Drawing, width: int) -> None:
        axes = drawing.add_subplot()
        # matplotlib's dates carry no types.
        module: Any = dates
        number = module.date2num
        for place, stream in enumerate(reversed(STREAMS)):
            part = answered[answered["stream"] == stream]
            if not len(part):
                continue
            times, values = number(part["time"].to_numpy()), part["ttft_ms"].to_numpy(dtype=float)
            colour = draw.colour(STREAMS.index(stream))
            axes.plot(times, values, ".", color=colour, alpha=0.5, markersize=4, zorder=place)
            line = part["ttft_ms"].rolling(MEDIAN_OF, min_periods=LEAST).median().to_numpy(dtype=float)
            axes.plot(times, line, color=colour, label=_TITLES[stream], zorder=place + 5)
        values = answered["ttft_ms"].to_numpy(dtype=float)
        low, high = np.quantile(values, [0.0, 0.995])
        axes.set_yscale("log")
        axes.set_ylim(low * 0.85, max(high, low * 1.2) * 1.25)
        draw.milliseconds(axes, "y")
        if len(failed):
            draw.edge_marks(axes, number(failed["time"].to_numpy()), 0.02)
        for when, what, detail in seen.events:
            if what == "slower" or detail.get("to") == "alarm":
                axes.axvline(float(number(when)), color=draw.BAD, linewidth=0.8, linestyle=(0, (2, 3)))
        locator = module.AutoDateLocator(maxticks=4 if width < draw.WIDE else 9)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(module.ConciseDateFormatter(locator))
        axes.set_title("Time to first token, ms")
        axes.legend(loc="upper left", ncols=1 if width < draw.WIDE else 3)

    return draw.figure(
        paint,
        (300, 260),
        caption=(
            f"Dots are canaries, lines medians of the last {MEDIAN_OF}. Crosses: canaries that failed. "
            "Dotted: an alarm, or a change told. Times are UTC; the axis is logarithmic."
        ),
        alt="Time to first token of each canary over time",
    )


def _by_day(canaries: pd.DataFrame) -> Table:
    rows = []
    for day, part in canaries.groupby(canaries["time"].dt.strftime("%Y-%m-%d"), sort=True):
        cells = [Cell(str(day)), Cell(str(len(part)))]
        share = float(part["ok"].mean())
        failed = int((~part["ok"]).sum())
        note = f"{failed} failed" if failed else ""
        cells.append(Cell(f"{share:.1%}", note=note, tone="bad" if share < AVAILABILITY.warning else ""))
        for stream, quantile in (("warm", 0.5), ("warm", 0.95), ("idle", 0.5), ("cached", 0.5)):
            values = part.loc[part["stream"] == stream, "ttft_ms"].dropna()
            cells.append(Cell(f"{values.quantile(quantile):.1f}") if len(values) else Cell("–", tone="muted"))
        rates = 1000.0 / part["tpot_ms"].dropna()
        cells.append(Cell(f"{rates.median():.1f}") if len(rates) else Cell("–", tone="muted"))
        rows.append(tuple(cells))
    columns = (
        Heading("day", "UTC"),
        Heading("canaries", numeric=True),
        Heading("answered", numeric=True),
        Heading("warm p50", "ms", numeric=True),
        Heading("warm p95", "ms", numeric=True),
        Heading("after a pause p50", "ms", numeric=True),
        Heading("cached p50", "ms", numeric=True),
        Heading("throughput", "tokens/s, one stream", numeric=True),
    )
    return Table(columns, tuple(rows), "By day")


def _changes(seen: Recorded) -> Block:
    if not seen.events:
        return Prose(("No state changed.",))
    rows = tuple(
        (Cell(f"{when:%Y-%m-%d %H:%M:%S}"), Cell(_words(what, detail), tone=_tone(what, detail)))
        for when, what, detail in seen.events[-_MOST_EVENTS:]
    )
    return Table((Heading("when", "UTC"), Heading("what changed")), rows, "Changes")


def _words(what: str, detail: dict[str, Any]) -> str:
    if what == "state":
        figure = str(detail.get("figure", "")).replace("_", " ")
        return (
            f"{figure}: {detail.get('from')} → {detail.get('to')} at {detail.get('value')} "
            f"(warning {detail.get('warning')}, alarm {detail.get('alarm')})"
        )
    if what == "slower":
        return f"the first token became slower than the {detail.get('seen')} before (advice)"
    return f"{what}: {json.dumps(detail, ensure_ascii=False)}"


def _tone(what: str, detail: dict[str, Any]) -> Tone:
    if what == "slower":
        return "warn"
    tones: dict[str, Tone] = {"alarm": "bad", "warning": "warn", "ok": "good"}
    return tones.get(str(detail.get("to")), "")


def _durations(table: pd.DataFrame) -> dict[str, Any]:
    """First token and time per token, ms, as the canary itself has them."""
    whole = {name: pd.to_numeric(table[name]).astype("Float64") for name in _STAMPS}
    more = whole["completion_tokens"] - whole["first_tokens"].fillna(1)
    span = (whole["last_token_ns"] - whole["first_token_ns"]) / 1e6
    ok = table["error_kind"].isna()
    return {
        "ttft_ms": ((whole["first_token_ns"] - whole["sent_ns"]) / 1e6).where(ok).astype(float),
        "tpot_ms": (span / more).where(ok & (more > 0) & (span > 0)).astype(float),
    }


_STAMPS = ("sent_ns", "first_token_ns", "last_token_ns", "completion_tokens", "first_tokens")


def _row(endpoint: str, offset_ns: int, row: dict[str, Any]) -> dict[str, Any]:
    return {
        "endpoint": endpoint,
        "time": datetime.fromtimestamp((int(row["intended_ns"]) + offset_ns) / 1e9, UTC),
        "stream": row["label"],
        "ttft_ms": row["ttft_ms"],
        "tpot_ms": row["tpot_ms"],
        "ok": not isinstance(row["error_kind"], str),
        "error": row["error"],
    }


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _event(offset_ns: int, line: Mapping[str, Any]) -> tuple[datetime, str, dict[str, Any]]:
    detail = json.loads(line["detail"]) if line.get("detail") else {}
    return datetime.fromtimestamp((int(line["t_ns"]) + offset_ns) / 1e9, UTC), str(line["name"]), detail
