"""Memory and energy: what a launch held and what it took, with the scope of each figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from matplotlib.figure import Figure as Drawing

from bench.analyse import energy, footprint
from bench.analyse.run import Launch
from bench.analyse.series import Samples
from bench.phrases import listed
from bench.report.drawing import INK, NARROW, colour, figure
from bench.report.elements import Block, Cell, Figure, Heading, Section, Table
from bench.report.numbers import decimals, interval, number
from bench.report.view import View

# Lines that a figure can hold, and points of a line.
LINES, POINTS = 12, 200
WINDOWS = ("startup", "prefill", "decode", "steady")


@dataclass(frozen=True, slots=True)
class Use:
    """What one launch held and took: `memory` as analyse.memory describes it, `energy` by phase."""

    memory: Mapping[str, Any]
    energy: Mapping[str, Mapping[str, Any]]


def section(view: View) -> Section | None:
    """Memory over time and by kind; energy by phase."""
    uses = {variant: [_use(launch) for launch in view.valid(variant)] for variant in view.measured}
    blocks: list[Block] = []
    if any(use.memory["peak"] is not None for found in uses.values() for use in found):
        blocks += [over_time(view), held(view, uses)]
    if (table := taken(view, uses)) is not None:
        blocks.append(table)
    return Section("resources", "Memory and energy", tuple(blocks)) if blocks else None


def _use(launch: Launch) -> Use:
    # A launch's samples are its largest table but one: read once, for both.
    record, requests, samples = launch.record, launch.requests(), Samples(launch.table("samples"))
    return Use(footprint.describe(record, requests, samples), energy.phases(record, requests, samples))


def over_time(view: View) -> Figure:
    """Memory of the engine since its spawn; one launch of each variant, more where there is room."""
    each = max(1, LINES // max(1, len(view.measured)))
    chosen = [launch for variant in view.measured for launch in view.valid(variant)[:each]][: 2 * LINES]
    scopes: dict[str, None] = {}
    lines: list[tuple[str, Any, Any]] = []
    for launch in chosen:
        _, scope, series = footprint.used(launch.record, Samples(launch.table("samples")))
        spawn = launch.record.stamps.get("spawn")
        if len(series) and spawn is not None:
            step = max(1, len(series) // POINTS)
            lines.append((launch.record.variant, (series.t_ns[::step] - spawn) / 1e9, series.value[::step]))
            scopes[scope] = None

    def paint(drawing: Drawing, width: int) -> None:
        axes = drawing.subplots()
        named: set[str] = set()
        for variant, seconds, values in lines:
            label = None if variant in named else variant
            named.add(variant)
            axes.plot(seconds, values, color=colour(view.colour(variant)), linewidth=1.4, alpha=0.85, label=label)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("seconds since the engine was spawned")
        axes.set_ylabel("memory, MiB")
        drawing.legend(loc="outside upper left", ncols=1 if width == NARROW else 3, labelcolor=INK)

    variants = list(dict.fromkeys(variant for variant, _, _ in lines))
    legend = 22 * (1 + len(variants) // 3), 22 * len(variants)
    return figure(
        paint,
        (240 + legend[0], 220 + legend[1]),
        f"Memory over time, one line per launch: {listed(scopes)}.",
        "Memory peaks: "
        + listed(f"{variant} {number(view.value(variant, 'memory.peak'), 0)} MiB" for variant in variants),
    )


def held(view: View, uses: Mapping[str, Sequence[Use]]) -> Table:
    """Idle, steady and peak, and whether it was given back."""
    head = (
        Heading("variant", "what is counted"),
        Heading("idle", "MiB", numeric=True),
        Heading("steady", "MiB", numeric=True),
        Heading("peak", "MiB", numeric=True),
        Heading("swap grew by", "MiB", numeric=True),
        Heading("given back"),
    )
    rows = []
    for variant, all_ in uses.items():
        found = [use.memory for use in all_]
        returned = [use["returned"] for use in found if use["returned"] is not None]
        back = "–" if not returned else "yes" if all(returned) else f"not in {returned.count(False)} of {len(returned)}"
        reason = next((str(use["reason"]) for use in found if use["reason"]), "")
        rows.append(
            (
                Cell(
                    variant,
                    f"{found[0]['kind']}: {found[0]['scope']}" + (f" ({reason})" if reason else ""),
                    colour=view.colour(variant),
                ),
                *(_spread([use[name] for use in found], 0) for name in ("idle", "steady", "peak", "swap_grown")),
                Cell(back, tone="warn" if False in returned else ""),
            )
        )
    return Table(head, tuple(rows))


def taken(view: View, uses: Mapping[str, Sequence[Use]]) -> Table | None:
    """Energy per token beside speed, and by phase with its uncertainty."""
    found = {variant: [use.energy for use in all_] for variant, all_ in uses.items()}
    if not any(phase["steady"]["joules"] is not None for phases in found.values() for phase in phases):
        return None
    head = (
        Heading("variant", "what is counted"),
        Heading("per token", "J", numeric=True),
        Heading("output", "tok/s", numeric=True),
        *(Heading(name, "J", numeric=True) for name in WINDOWS),
        Heading("steady above idle", "J", numeric=True),
        Heading("mean power", "W", numeric=True),
        Heading("uncertainty", "of steady", numeric=True),
    )
    rows = []
    for variant, phases in found.items():
        steady = [phase["steady"] for phase in phases]
        scope = next((f"{item['source']}, {item['scope']}" for item in steady if item["source"]), "")
        doubt = [
            item["uncertainty_j"] / item["joules"]
            for item in steady
            if item["joules"] and item["uncertainty_j"] is not None
        ]
        rows.append(
            (
                Cell(variant, scope, colour=view.colour(variant)),
                Cell(number(view.value(variant, "energy.per_token"))),
                Cell(number(view.value(variant, "output_throughput"))),
                *(_window([phase[name] for phase in phases]) for name in WINDOWS),
                _spread([item["above_idle_j"] for item in steady]),
                _spread([item["mean_w"] for item in steady]),
                Cell(f"±{100 * median(doubt):.1f} %" if doubt else "–"),
            )
        )
    return Table(head, tuple(rows), "Energy: medians over launches, with their range")


def _window(items: Sequence[Mapping[str, Any]]) -> Cell:
    if not any(item["joules"] is not None for item in items):
        return Cell("–", str(next((item["reason"] for item in items if item["reason"]), "")), "muted")
    return _spread([item["joules"] for item in items])


def _spread(values: Sequence[float | None], places: int | None = None) -> Cell:
    known = [float(value) for value in values if value is not None]
    if not known:
        return Cell("–", tone="muted")
    places = decimals(known) if places is None else places
    return Cell(number(median(known), places), interval(min(known), max(known), places) if len(known) > 1 else "")
