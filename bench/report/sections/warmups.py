"""What each warm-up costs and saves, and after how many requests it has paid."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from matplotlib.figure import Figure as Drawing

from bench.analyse import worth
from bench.analyse.coldstart import NOT_AS_ASKED
from bench.phrases import listed
from bench.report.drawing import INK, NARROW, colour, figure, milliseconds
from bench.report.elements import Block, Cell, Figure, Heading, Section, Table
from bench.report.numbers import count, duration, interval, number
from bench.report.view import View


def section(view: View) -> Section | None:
    """Variants against the baseline, the curve of time against requests, and launches in another state than asked."""
    blocks: list[Block] = []
    if view.baseline and not (compared := worth.against(view.run, view.baseline)).empty:
        blocks += [warmups(view, compared), curve(view)]
    if woken := restored(view):
        blocks.append(woken)
    if doubtful := _doubtful(view):
        blocks.append(doubtful)
    return Section("warm-ups", "What a start costs, and when it has paid", tuple(blocks)) if blocks else None


def warmups(view: View, compared: pd.DataFrame) -> Table:
    """What each variant saves at the first request, costs at the start, and when it has paid."""
    costs = worth.by_variant(view.run)
    parents = any(cost["start"] != "exec" for cost in costs.values())
    head = (
        Heading("variant"),
        *((Heading("made before", numeric=True),) if parents else ()),
        Heading("warm-up", numeric=True),
        Heading("saved on the first request", "ms", numeric=True),
        Heading("saved on the cold start", "s", numeric=True),
        Heading("steady TPOT", "ratio", numeric=True),
        Heading("break-even", "requests", numeric=True),
        Heading("in words"),
    )

    def cell(row: dict[str, float], name: str, places: int) -> Cell:
        value = row[name]
        if math.isinf(value):
            # "Never" only where the intervals of what it costs and of what it gains say so.
            sure = row["cold_saving_s_high"] < 0 and row["steady_saving_ms_high"] <= 0
            return Cell("never" if sure else "not seen")
        if name == "break_even" and value == 0 and math.isfinite(row["lost_after"]):
            return Cell("0", f"lead lost after {number(row['lost_after'], 0)}")
        return Cell(number(value, places), interval(row[f"{name}_low"], row[f"{name}_high"], places))

    rows = []
    for row in compared.to_dict("records"):
        variant = str(row["variant"])
        values = {
            str(name): math.nan if value is None or isinstance(value, str) else float(value)
            for name, value in row.items()
        }
        rows.append(
            (
                Cell(variant, f"{count(int(values['n']), 'block')}", colour=view.colour(variant)),
                *((_parent(costs[variant]),) if parents else ()),
                _cost(costs[variant]),
                cell(values, "first_saving_ms", 0),
                cell(values, "cold_saving_s", 2),
                cell(values, "steady_tpot_ratio", 3),
                cell(values, "break_even", 0),
                Cell(str(row["verdict"])),
            )
        )
    return Table(head, tuple(rows), f"Against {view.baseline}, paired by block, 95 % intervals")


def restored(view: View) -> Table | None:
    """The three times of every restored launch; None where none was."""
    table = worth.launches(view.run)
    if table.empty or (part := table[table["start"] == "restored"]).empty:
        return None
    rows = [
        (
            Cell(str(row["launch"])),
            Cell(duration(row["restored_s"])),
            Cell(duration(row["cold_ttft_s"])),
            Cell(duration(row["second_token_s"]) if pd.notna(row["second_token_s"]) else "–"),
            Cell(f"{row['image_mib']:.0f}"),
        )
        for row in part.to_dict("records")
    ]
    head = (
        Heading("launch"),
        Heading("process restored", numeric=True),
        Heading("first token", numeric=True),
        Heading("second token", numeric=True),
        Heading("image", "MiB", numeric=True),
    )
    return Table(head, tuple(rows), "Restored from an image: a process that runs again has not answered yet")


def _parent(row: dict[Any, Any]) -> Cell:
    """What a warm parent or an image took to make, and what it holds while nothing is served."""
    if row["start"] == "exec":
        return Cell("nothing")
    if row["start"] == "restored":
        return Cell(duration(row["parent_s"]), f"{row['image_mib']:.0f} MiB on disk")
    held = row["parent_mib"]
    return Cell(duration(row["parent_s"]), f"holds {held:.0f} MiB" if pd.notna(held) else "its memory is not known")


def _cost(row: dict[Any, Any]) -> Cell:
    """What a warm-up takes after the engine is ready; its disk and energy where they were seen."""
    seconds = row["warmup_s"]
    more = [count(round(row["warmup_requests"]), "request")] if row["warmup_requests"] else []
    if pd.notna(row["cache_mib"]) and row["cache_mib"] > 0:
        more.append(f"{row['cache_mib']:.0f} MiB on disk")
    if pd.notna(row["warmup_j"]):
        more.append(f"{number(row['warmup_j'], 1)} J")
    return Cell("–" if pd.isna(seconds) else duration(seconds), ", ".join(more))


def curve(view: View) -> Figure:
    """Time from the spawn until the n-th request is answered: who is ahead, and from when on."""
    amounts = sorted({round(10 ** (step / 8)) for step in range(33)})
    table = worth.cost_curve(view.run, amounts)
    variants = [variant for variant in view.measured if (table["variant"] == variant).any()]

    def paint(drawing: Drawing, width: int) -> None:
        axes = drawing.subplots()
        for variant in variants:
            part = table[table["variant"] == variant]
            axes.plot(part["requests"], part["seconds"], color=colour(view.colour(variant)), label=variant)
        axes.set_xscale("log")
        axes.set_yscale("log")
        milliseconds(axes)
        milliseconds(axes, "y")
        axes.set_xlabel("requests answered one after another")
        axes.set_ylabel("seconds since spawn")
        drawing.legend(loc="outside upper left", ncols=1 if width == NARROW else 3, labelcolor=INK)

    legend = 22 * (1 + len(variants) // 3), 22 * len(variants)
    return figure(
        paint,
        (270 + legend[0], 240 + legend[1]),
        "Time until the n-th request is answered, the start included: a variant that starts slowly and serves "
        "quickly overtakes where its line crosses the other's.",
        "Break-even: " + listed(variants),
    )


def _doubtful(view: View) -> Table | None:
    """Launches that did not start from the state that was asked for."""
    table = worth.launches(view.run)
    if table.empty or not (wrong := table[table["state"] == NOT_AS_ASKED]).size:
        return None
    rows = [
        (
            Cell(str(row["launch"])),
            Cell(row["why"] if isinstance(row["why"], str) else "–"),
            Cell(duration(row["cold_ttft_s"])),
        )
        for row in wrong.to_dict("records")
    ]
    head = (Heading("launch"), Heading("evidence"), Heading("cold TTFT", numeric=True))
    return Table(
        head, tuple(rows), "Launches that did not start from the state asked for: never averaged with those that did"
    )
