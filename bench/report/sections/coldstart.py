"""What a cold start was made of: phases as they ran, and where the time went."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from bench.analyse import coldstart
from bench.analyse.coldstart import NOT_AS_ASKED, SHARES
from bench.analyse.run import Launch
from bench.phrases import listed
from bench.report.drawing import INK, MUTED, NARROW, PAPER, PHASE, figure
from bench.report.elements import Block, Cell, Figure, Fold, Heading, Section, Table
from bench.report.numbers import count, duration
from bench.report.view import View

# Variants and bars that a waterfall can hold; phases shorter than this part of the whole are left to the table.
PANELS, BARS, SMALLEST = 6, 14, 0.004
UNATTRIBUTED = "unattributed"
ROW = 19


def section(view: View) -> Section | None:
    """Waterfall, phases in figures, and the four shares that the founding article divides a start into."""
    drawn = [launch for variant in view.measured if (launch := _typical(view, variant)) is not None][:PANELS]
    blocks: list[Block] = []
    if drawn:
        blocks += [waterfall(drawn), phases(view)]
    if drawn:
        blocks.append(Fold("The four shares of a start: load, compile, KV cache, preprocessing", (shares(view),)))
    return Section("cold-start", "What the cold start is made of", tuple(blocks)) if blocks else None


def _typical(view: View, variant: str) -> Launch | None:
    """The launch with the median cold TTFT among those that count and were in the state asked for."""
    good = [launch for launch in view.valid(variant) if coldstart.verified(launch) != NOT_AS_ASKED]
    frame = view.per_launch.set_index("launch")["cold_ttft"]
    timed = sorted((float(frame[launch.id]), launch.id, launch) for launch in good if not math.isnan(frame[launch.id]))
    launch = timed[(len(timed) - 1) // 2][2] if timed else None
    return launch if launch is not None and not coldstart.waterfall(launch).empty else None


def waterfall(launches: Sequence[Launch]) -> Figure:
    """The phases of one launch of each variant, nested as they ran."""
    tables = [(launch, _bars(launch)) for launch in launches]
    end = max(float(table["end_s"].max()) for _, table in tables)
    rows = [len(table) for _, table in tables]

    def paint(drawing: Drawing, width: int) -> None:
        grid = drawing.subplots(
            len(tables), 1, squeeze=False, sharex=True, height_ratios=[count_ + 1 for count_ in rows]
        )
        for axes, (launch, table) in zip(grid[:, 0], tables, strict=True):
            _panel(axes, table, end, 0.3 if width == NARROW else 0.1)
            axes.set_title(f"{launch.record.variant}, {duration(_cold(launch))}")
        grid[-1, 0].set_xlabel("seconds since the engine was spawned")

    height = 50 + ROW * sum(rows) + 40 * len(rows)
    return figure(
        paint,
        (height, height),
        "The launch with the median cold TTFT of each variant, from spawn to the first token of the workload. "
        "Phases within others are lighter; grey is time that no source explains. Phases shorter than 0.4 % of the "
        "whole are in the table only.",
        "Phases of a cold start: "
        + listed(f"{launch.record.variant} {count(n, 'phase')}" for (launch, _), n in zip(tables, rows, strict=True)),
    )


def _bars(launch: Launch) -> pd.DataFrame:
    table = coldstart.waterfall(launch)
    if (cold := _cold(launch)) is not None:
        table = table[table["start_s"] < cold]
        table = table.assign(end_s=table["end_s"].clip(upper=cold))
    spent = table["end_s"] - table["start_s"]
    kept = table[spent >= SMALLEST * float(table["end_s"].max())]
    longest = (kept["end_s"] - kept["start_s"]).nlargest(BARS).index
    return kept.loc[kept.index.isin(longest)]


def _cold(launch: Launch) -> float | None:
    spawn, first = launch.record.stamps.get("spawn"), launch.record.stamps.get("first_token")
    return None if spawn is None or first is None else (first - spawn) / 1e9


def _panel(axes: Axes, table: pd.DataFrame, end: float, room: float) -> None:
    for place, row in enumerate(table.to_dict("records")):
        spent, depth = row["end_s"] - row["start_s"], int(row["depth"])
        unknown = row["name"] == UNATTRIBUTED
        axes.barh(
            place,
            spent,
            left=row["start_s"],
            height=0.72,
            color=PHASE[5 if unknown else 0],
            alpha=1.0 if unknown else max(0.35, 1 - 0.25 * depth),
        )
        inside = spent > room * end
        axes.annotate(
            duration(spent),
            (row["end_s"], place),
            (-5 if inside else 5, 0),
            textcoords="offset points",
            ha="right" if inside else "left",
            va="center",
            fontsize=11,
            color=MUTED if not inside else INK if unknown or depth else PAPER,
        )
    names = [
        f"{'  ' * int(depth)}{str(name).replace('_', ' ')}"
        for name, depth in zip(table["name"], table["depth"], strict=True)
    ]
    axes.set_yticks(range(len(table)), names)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    axes.set_ylim(len(table) - 0.4, -0.6)
    axes.set_xlim(0, end * 1.06)
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)


def phases(view: View) -> Table:
    """Median duration per phase as the waterfall draws it; beside it the part that is its own, each instant counted
    once, for the innermost phase, so that these shares add up."""
    table = coldstart.phases_by_variant(view.run)
    states = table[["variant", "state"]].drop_duplicates().to_dict("records")
    states.sort(key=lambda row: view.variants.index(str(row["variant"])))
    several = {row["variant"] for row in states if sum(other["variant"] == row["variant"] for other in states) > 1}
    head = [Heading("phase")]
    for row in states:
        note = row["state"] if row["variant"] in several or row["state"] == NOT_AS_ASKED else "share"
        head.append(Heading(str(row["variant"]), str(note), numeric=True))
    rows = []
    for phase in table["phase"].drop_duplicates():
        cells = [Cell(str(phase).replace("_", " "))]
        for row in states:
            found = table[
                (table["phase"] == phase) & (table["variant"] == row["variant"]) & (table["state"] == row["state"])
            ]
            cells.append(_phase(found.iloc[0].to_dict()) if len(found) else Cell(""))
        rows.append(tuple(cells))
    return Table(
        tuple(head),
        tuple(rows),
        "Where the time went: medians over launches; of a phase with others within, also its own part",
    )


def _phase(row: dict[str, object]) -> Cell:
    seconds, share = row["seconds"], row["share"]
    if not isinstance(seconds, float) or math.isnan(seconds):
        return Cell("–", row["reason"].replace("_", " ") if isinstance(row["reason"], str) else "", "muted")
    own = f"{100 * share:.1f} %" if isinstance(share, float) else ""
    whole = row["whole"]
    if isinstance(whole, float) and duration(whole) != duration(seconds):
        # What the waterfall draws, with what ran within it; only its own part adds up with the others.
        return Cell(duration(whole), f"own {duration(seconds)}, {own}" if seconds else "all of it in the phases within")
    return Cell(duration(seconds), own)


def shares(view: View) -> Table:
    """Load, compile, KV cache and preprocessing as measured, and what has none of these names."""
    table = coldstart.shares(view.run)
    names = (*SHARES, "elsewhere")
    head = (Heading("variant"), *(Heading(name.replace("_", " "), "share", numeric=True) for name in names))
    rows = []
    for (variant, state), part in table.groupby(["variant", "state"], sort=False, observed=True):
        found = part.set_index("share_of").to_dict("index")
        cells = [Cell(str(variant), "" if state != NOT_AS_ASKED else str(state))]
        for name in names:
            row = found.get(name)
            cells.append(
                Cell(duration(row["seconds"]), f"{100 * row['share']:.1f} %") if row else Cell("–", tone="muted")
            )
        rows.append(tuple(cells))
    return Table(head, tuple(rows))
