"""Hand-overs: when one engine took over from another, what that held, and how the pace of the answers went with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure as Drawing

from bench.analyse.run import Launch
from bench.phrases import listed
from bench.record.launches import HandOverAccount
from bench.report.drawing import GRID, INK, MARKERS, MUTED, NARROW, colour, figure
from bench.report.elements import Cell, Figure, Heading, Section, Table
from bench.report.numbers import duration, number
from bench.report.view import COLOURS, View

# Whatever went through the address that both engines stand behind; the second one's own warm-up did not.
THROUGH = "hand-over"
_TOLD = pa.array(["first", "measured"])


def section(view: View) -> Section | None:
    """One row per hand-over, and every answer's pace over the time since the spawn; None where none took place."""
    shown = [launch for launch in view.run.all if launch.record.hand_over is not None]
    if not shown:
        return None
    drawn = _drawn(view, shown)
    figures = (over_time(view, drawn),) if drawn else ()
    return Section("hand-over", "From one engine to the next", (_table(view, shown), *figures))


def _table(view: View, shown: list[Launch]) -> Table:
    columns = (
        Heading("launch"),
        Heading("first token", "since spawn", numeric=True),
        Heading("second spawned", "since spawn", numeric=True),
        Heading("went over", "since spawn", numeric=True),
        Heading("first gone", "since spawn", numeric=True),
        Heading("both held", "MiB at most", numeric=True),
        Heading("requests", "first, second", numeric=True),
        Heading("lost", numeric=True),
    )
    caption = (
        "New requests go to the second engine once it has been warm; running ones end where they began. Lost are "
        "requests whose engine died, or that found none."
    )
    return Table(columns, tuple(_row(view, launch) for launch in shown), caption)


def _row(view: View, launch: Launch) -> tuple[Cell, ...]:
    told, record = launch.record.hand_over, launch.record
    assert told is not None
    ends = (record.stamps.get("first_token"), told.second_spawn_ns, told.over_ns, told.first_gone_ns)
    passed = [told.requests[name].begun if name in told.requests else 0 for name in ("first", "second")]
    return (
        Cell(launch.id, told.reason or "", "bad" if told.reason else "", view.colour(record.variant)),
        *(Cell("–" if (since := _since(launch, end)) is None else duration(since)) for end in ends),
        Cell("–" if told.peak_mib is None else number(told.peak_mib)),
        Cell(f"{passed[0]}, {passed[1]}"),
        Cell(str(told.lost), tone="bad" if told.lost else ""),
    )


def _since(launch: Launch, stamp: int | None) -> float | None:
    spawn = launch.record.stamps.get("spawn")
    return None if stamp is None or spawn is None else (stamp - spawn) / 1e9


def _drawn(view: View, shown: list[Launch]) -> list[Launch]:
    """Of each variant the first launch that counts and has paces to show."""
    found: dict[str, Launch] = {}
    for launch in shown:
        if launch.record.status == "ok" and len(_paces(launch)[0]):
            found.setdefault(launch.record.variant, launch)
    return list(found.values())


def _paces(launch: Launch) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """When each answer that came through the address began, seconds since the spawn, and its TPOT, ms."""
    table, spawn = launch.requests(), launch.record.stamps.get("spawn") or 0
    through = pc.or_(pc.is_in(table["stage"], _TOLD), pc.fill_null(pc.equal(table["label"], THROUGH), False))
    table = table.filter(pc.and_(through, pc.is_valid(table["tpot_ms"])))
    begun = table["first_token_ns"].to_numpy().astype(np.int64)
    return (begun - spawn) / 1e9, table["tpot_ms"].to_numpy().astype(float)


def over_time(view: View, launches: list[Launch]) -> Figure:
    """TPOT of every answer against the time since the spawn, with the seconds at which the engines changed."""

    def paint(drawing: Drawing, width: int) -> None:
        axes = drawing.subplots()
        for launch in launches:
            place = view.variants.index(launch.record.variant)
            tint = colour(view.colour(launch.record.variant))
            seconds, paces = _paces(launch)
            axes.plot(
                seconds, paces, marker=MARKERS[place % COLOURS], markersize=4, linestyle="none", color=tint, alpha=0.7,
                label=launch.record.variant,
            )  # fmt: skip
            told = launch.record.hand_over or HandOverAccount()
            for words, stamp in (("second starts", told.second_spawn_ns), ("goes over", told.over_ns)):
                if (since := _since(launch, stamp)) is not None:
                    axes.axvline(
                        since, color=tint if len(launches) > 1 else MUTED, linewidth=1, linestyle="--", zorder=1
                    )
                    axes.annotate(
                        words, (since, 1), (4, -4), xycoords=("data", "axes fraction"), textcoords="offset points",
                        va="top", fontsize=10.5, color=INK,
                    )  # fmt: skip
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
        axes.grid(color=GRID)
        axes.set_xlabel("seconds since the spawn of the first engine")
        axes.set_ylabel("TPOT, ms")
        drawing.legend(loc="outside upper left", ncols=1 if width == NARROW else 3, labelcolor=INK)

    return figure(
        paint,
        (330, 300),
        "Each point is an answer: when its first token came, and its time per token after that. Between the two lines "
        "the first engine answers while the second one compiles beside it.",
        listed(_sentence(launch) for launch in launches),
    )


def _sentence(launch: Launch) -> str:
    told = launch.record.hand_over or HandOverAccount()
    seconds, paces = _paces(launch)
    over = _since(launch, told.over_ns)
    parts = [paces[seconds < over], paces[seconds >= over]] if over is not None else [paces]
    words = " then ".join(f"{np.median(part):.1f} ms" for part in parts if len(part))
    at = "" if over is None else f", over at {over:.1f} s"
    return f"{launch.record.variant}: median TPOT {words}{at}"
