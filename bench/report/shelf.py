"""The page of a fleet: every board in its own row, how much boards differ, and in what; nothing is pooled over them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from matplotlib.figure import Figure as Drawing

from bench import __version__
from bench.analyse.estimate import Estimate
from bench.analyse.metrics import Metric, comparable, metric
from bench.analyse.run import Run
from bench.judge import likeness
from bench.judge.comparable import pairs_of, values_of
from bench.judge.compare import rows_of
from bench.judge.spread import ENOUGH_BOARDS, Spread, drifts, spread
from bench.phrases import counted, listed
from bench.report.drawing import BAD, INK, MUTED, NARROW, figure
from bench.report.elements import Block, Cell, Facts, Figure, Heading, Note, Notes, Page, Prose, Section, Table, Tone
from bench.report.numbers import NULL, change, changes, interval, number, quantity
from bench.report.view import View

# What is set beside one another, where the runs have it.
SHOWN = ("ttft.p50", "tpot.p50", "output_throughput", "cold_ttft", "memory.peak", "energy.per_token")
PAIRED = ("ttft.p50", "output_throughput", "cold_ttft")
TONES: Mapping[str, Tone] = {"finished": "good", "running": "", "waiting": "muted"}
# A clock that is farther off is told; durations are the board's own and do not feel it.
CLOCK_S = 60.0
METHOD = (
    "A board's value is the mean of its launches; “typical” is the mean of the boards' values with a t interval over "
    "boards. “Between boards” is the standard deviation of the board in the one-way random-effects model, with the "
    "interval of Tukey and Williams (1962); “within” is the same from launch to launch of one board. Both are on the "
    "logarithmic scale, shown as per cent. Where one more board would lie is a 95 % prediction interval. No launch of "
    "one board is ever pooled with another's."
)


@dataclass(frozen=True, slots=True)
class ShelfRow:
    """One board as a row: its alias, its state and why, its class and its clock, launches planned and recorded."""

    alias: str
    state: str
    reason: str | None = None
    host_class: str | None = None
    clock_offset_s: float | None = None
    planned: int | None = None
    recorded: int | None = None


@dataclass(frozen=True)
class Shelf:
    """A fleet run: its name and id, its boards, and scenario → alias → run of the boards that finished."""

    name: str
    id: str
    places: Sequence[ShelfRow]
    runs: Mapping[str, Mapping[str, Run]]
    notes: Sequence[str] = ()
    emulated: str | None = None
    _spreads: dict[tuple[str, str, str], Spread] = field(default_factory=dict, repr=False)

    def spread(self, scenario: str, variant: str, name: str) -> Spread:
        """How much the boards differ in a metric of a variant, on the comparison scale."""
        key = (scenario, variant, name)
        if key not in self._spreads:
            measure = metric(name)
            found = {alias: _values(run, variant, measure) for alias, run in self.runs[scenario].items()}
            self._spreads[key] = spread(found)
        return self._spreads[key]

    def variants(self, scenario: str) -> tuple[str, ...]:
        """The variants of a scenario in its order."""
        return next(iter(self.runs[scenario].values())).variants

    def metrics(self, scenario: str) -> tuple[str, ...]:
        """The metrics that any board has of a scenario."""
        frames = [run.per_launch for run in self.runs[scenario].values()]
        return tuple(name for name in SHOWN if any(name in frame and frame[name].notna().any() for frame in frames))

    @cached_property
    def machines(self) -> Mapping[str, Mapping[str, object]]:
        """Alias → the lines of its fingerprint that bear on a figure."""
        found = {alias: run for by_board in self.runs.values() for alias, run in by_board.items()}
        return {alias: likeness.state(run.manifest.fingerprint) for alias, run in found.items()}


def page(shelf: Shelf) -> Page:
    """A fleet's page."""
    sections = [Section("short", "In short", (Prose(tuple(_findings(shelf)), lead=True), *_remarks(shelf)))]
    sections.append(Section("boards", "Boards", (_places(shelf),)))
    for number_, scenario in enumerate(shelf.runs, start=1):
        sections += _of_scenario(shelf, scenario, number_)
    if shelf.machines:
        sections.append(_machines(shelf))
    finished = sum(place.state == "finished" for place in shelf.places)
    return Page(
        title=f"Fleet {shelf.name}",
        subtitle=f"{counted(len(shelf.places), 'board')}, {finished} finished · {listed(shelf.runs)}",
        sections=tuple(sections),
        variants=(),
        banner=shelf.emulated,
        foot=f"firsttoken {__version__}, from fleet run {shelf.id}; `bench fleet collect` makes it again.",
    )


def _findings(shelf: Shelf) -> Iterator[str]:
    finished = [place for place in shelf.places if place.state == "finished"]
    yield f"{len(finished)} of {counted(len(shelf.places), 'board')} finished."
    for scenario in shelf.runs:
        for variant in shelf.variants(scenario):
            found = shelf.spread(scenario, variant, "ttft.p50")
            if found.typical.value is None:
                continue
            text = (
                f"{variant} of {scenario}: the typical board gives the first token after {_typical(found, 'ttft.p50')}"
            )
            if found.between.value is not None:
                ends = f"{_percent(found.between.low)} to {_percent(found.between.high)}"
                text += f"; boards differ by {_percent(found.between.value)} (standard deviation; 95 % interval {ends})"
            yield f"{text}."


def _remarks(shelf: Shelf) -> tuple[Block, ...]:
    notes = [Note(f"{words}.", tone="warn") for words in shelf.notes]
    for place in shelf.places:
        if place.clock_offset_s is not None and abs(place.clock_offset_s) > CLOCK_S:
            off = f"{abs(place.clock_offset_s) / 60:.1f} min {'ahead' if place.clock_offset_s > 0 else 'behind'}"
            detail = "Its dates are wrong by as much; durations are taken on its own monotonic clock and stand."
            notes.append(Note(f"The clock of {place.alias} is {off}.", detail, "warn"))
    for scenario in shelf.runs:
        for variant in shelf.variants(scenario):
            notes += _apart(shelf, scenario, variant)
    return (Notes(tuple(notes)),) if notes else ()


def _apart(shelf: Shelf, scenario: str, variant: str) -> Iterator[Note]:
    """Boards that stand apart from the others, and boards that drift."""
    for name in shelf.metrics(scenario):
        measure, found = metric(name), shelf.spread(scenario, variant, name)
        for alias in found.outliers:
            usual = _median([one.value for one in found.by_board.values() if one.value is not None])
            value = found.by_board[alias].value
            assert value is not None
            ratio = change(math.exp(value - usual)) if not measure.by_difference else number(value - usual)
            yield Note(
                f"{alias} stands apart: {measure.title} of {variant} is {ratio} from the boards' median.",
                _why(shelf, alias),
                "warn",
            )
        series = {alias: _course(run, variant, measure) for alias, run in shelf.runs[scenario].items()}
        for alias, slope in drifts(series).items():
            assert slope.value is not None
            yield Note(
                f"{alias} drifts: {measure.title} of {variant} changes by {change(math.exp(slope.value))} per hour.",
                "Its launches are no repetitions of one another; look at its temperature and clocks.",
                "warn",
            )


def _why(shelf: Shelf, alias: str) -> str:
    lines = [line for line, _, others in _differing(shelf) if alias in others]
    return f"It differs from the others in {listed(lines)}." if lines else "Its fingerprint is that of the others."


def _places(shelf: Shelf) -> Table:
    columns = (
        Heading("board"),
        Heading("state"),
        Heading("class"),
        Heading("clock", "s, the board's minus ours", numeric=True),
        Heading("launches", "recorded of planned", numeric=True),
    )
    rows = tuple(
        (
            Cell(place.alias),
            Cell(place.state, place.reason or "", TONES.get(place.state, "bad")),
            Cell(place.host_class or NULL),
            Cell(number(place.clock_offset_s)),
            Cell(NULL if place.planned is None else f"{place.recorded} of {place.planned}"),
        )
        for place in shelf.places
    )
    return Table(columns, rows)


def _of_scenario(shelf: Shelf, scenario: str, number_: int) -> Iterator[Section]:
    blocks: list[Block] = [_spreads(shelf, scenario)]
    for variant in shelf.variants(scenario):
        if shelf.spread(scenario, variant, "ttft.p50").boards:
            blocks.append(_drawn(shelf, scenario, variant))
        blocks.append(_by_board(shelf, scenario, variant))
    yield Section(f"spread-{number_}", f"{scenario}: board beside board", (*blocks, Prose((METHOD,))))
    run = next(iter(shelf.runs[scenario].values()))
    baseline = View(run).baseline
    if baseline is not None and len(run.variants) > 1:
        others = [variant for variant in run.variants if variant != baseline]
        words = (
            "Each board is compared with itself, block by block; what is averaged over boards is the board's own "
            "ratio, and the interval is over boards."
        )
        table = _paired(shelf, scenario, baseline, others)
        yield Section(
            f"paired-{number_}", f"{scenario}: against {baseline}, within each board", (table, Prose((words,)))
        )


def _spreads(shelf: Shelf, scenario: str) -> Table:
    columns = (
        Heading("variant"),
        Heading("metric"),
        Heading("typical board", "95 % interval", numeric=True),
        Heading("between boards", "SD, 95 % interval", numeric=True),
        Heading("within a board", "SD", numeric=True),
        Heading("one more board", "95 %", numeric=True),
    )
    rows = []
    for variant in shelf.variants(scenario):
        for name in shelf.metrics(scenario):
            found, measure = shelf.spread(scenario, variant, name), metric(name)
            if found.typical.value is None:
                continue
            back = _back(measure)
            another = interval(back(found.another[0]), back(found.another[1])) if found.another else ""
            rows.append(
                (
                    Cell(variant),
                    Cell(measure.title),
                    Cell(quantity(back(found.typical.value), measure.unit), _ends(found.typical, measure)),
                    Cell(_percent(found.between.value), found.between.reason or _percents(found.between)),
                    Cell(_percent(found.within)),
                    Cell(another or NULL, "" if another else f"{ENOUGH_BOARDS} boards are needed"),
                )
            )
    return Table(columns, tuple(rows), f"How much boards differ, {scenario}")


def _by_board(shelf: Shelf, scenario: str, variant: str) -> Table:
    measures = [metric(name) for name in shelf.metrics(scenario)]
    columns = (Heading("board"), *(Heading(measure.title, measure.unit, numeric=True) for measure in measures))
    rows = []
    for alias in shelf.runs[scenario]:
        cells = [Cell(alias)]
        for measure in measures:
            found = shelf.spread(scenario, variant, measure.id)
            one = found.by_board.get(alias)
            if one is None or one.value is None:
                cells.append(Cell(NULL, "no valid launch"))
                continue
            tone: Tone = "warn" if alias in found.outliers else ""
            cells.append(Cell(number(_back(measure)(one.value)), _ends(one, measure), tone))
        rows.append(tuple(cells))
    return Table(columns, tuple(rows), f"Board by board, {variant}: mean of its launches, 95 % interval")


def _drawn(shelf: Shelf, scenario: str, variant: str) -> Figure:
    """Each board's TTFT with its interval, slowest last, and the typical board's as a band."""
    found = shelf.spread(scenario, variant, "ttft.p50")
    ranked = sorted((one.value or 0.0, alias, one) for alias, one in found.by_board.items())

    def paint(drawing: Drawing, width: int) -> None:
        axes = drawing.subplots()
        if found.typical.low is not None and found.typical.high is not None:
            axes.axvspan(
                math.exp(found.typical.low), math.exp(found.typical.high), color=MUTED, alpha=0.18, linewidth=0
            )
        for row, (value, alias, one) in enumerate(ranked):
            shade = BAD if alias in found.outliers else INK
            if one.low is not None and one.high is not None:
                axes.plot([math.exp(one.low), math.exp(one.high)], [row, row], color=shade)
            axes.plot([math.exp(value)], [row], "o", color=shade)
        axes.set_yticks(range(len(ranked)), [alias for _, alias, _ in ranked])
        axes.set_ylim(len(ranked) - 0.4, -0.6)
        axes.set_xlabel("TTFT p50, ms")
        axes.grid(visible=False, axis="y")
        if width == NARROW:
            axes.locator_params(axis="x", nbins=4)

    height = 70 + 24 * len(ranked)
    said = listed(f"{alias} {quantity(math.exp(value), 'ms')}" for value, alias, _ in ranked)
    caption = (
        f"TTFT of {variant} by board: mean of its launches with a 95 % interval. The band is the typical board's; a "
        "board drawn in red stands apart from the others."
    )
    return figure(paint, (height, height), caption, f"TTFT by board: {said}")


def _paired(shelf: Shelf, scenario: str, baseline: str, others: Sequence[str]) -> Table:
    columns = (
        Heading("variant"),
        Heading("metric"),
        Heading("change", "95 % interval over boards", numeric=True),
        Heading("between boards", "SD of the change", numeric=True),
        Heading("boards", numeric=True),
        Heading("from", "to, board by board", numeric=True),
    )
    rows = []
    for variant in others:
        for name in PAIRED:
            measure = metric(name)
            ratios = {alias: _ratios(run, baseline, variant, measure) for alias, run in shelf.runs[scenario].items()}
            found = spread(ratios)
            if found.typical.value is None:
                continue
            values = [one.value for one in found.by_board.values() if one.value is not None]
            ends = _both(found.typical)
            rows.append(
                (
                    Cell(variant),
                    Cell(measure.title),
                    Cell(change(math.exp(found.typical.value)), changes(ends) if ends else found.typical.reason or ""),
                    Cell(_percent(found.between.value), found.between.reason or _percents(found.between)),
                    Cell(str(found.boards)),
                    Cell(f"{change(math.exp(min(values)))} to {change(math.exp(max(values)))}"),
                )
            )
    return Table(columns, tuple(rows))


def _machines(shelf: Shelf) -> Section:
    differing = list(_differing(shelf))
    same = dict(next(iter(shelf.machines.values())))
    for line, _, _ in differing:
        same.pop(line, None)
    alike = Facts(tuple((line, _shown(value)) for line, value in same.items()), "Alike on every board")
    if not differing:
        return Section("machines", "Machines", (Prose(("Every board's fingerprint is the same.",)), alike))
    columns = (Heading("line of the fingerprint"), Heading("usual"), Heading("boards that differ"))
    rows = tuple(
        (
            Cell(line),
            Cell(_shown(usual)),
            Cell("; ".join(f"{alias}: {_shown(value)}" for alias, value in others.items()), tone="warn"),
        )
        for line, usual, others in differing
    )
    return Section("machines", "Machines", (Table(columns, rows, "In what boards differ"), alike))


def _differing(shelf: Shelf) -> Iterator[tuple[str, object, Mapping[str, object]]]:
    """The lines in which fingerprints differ: the usual value, and the boards that have another."""
    machines = shelf.machines
    for line in sorted({line for state in machines.values() for line in state}):
        values = {alias: state.get(line) for alias, state in machines.items()}
        usual = Counter(map(repr, values.values())).most_common(1)[0][0]
        others = {alias: value for alias, value in values.items() if repr(value) != usual}
        if others:
            yield line, next(value for value in values.values() if repr(value) == usual), others


def _values(run: Run, variant: str, measure: Metric) -> list[float]:
    found = list(values_of(rows_of(run.per_launch, variant), measure.id).values())
    if not measure.by_difference:
        found = [value for value in found if value > 0]
    return comparable(measure, found).tolist() if found else []


def _course(run: Run, variant: str, measure: Metric) -> list[tuple[float, float]]:
    """(hours since the first, value on the comparison scale) of a board's valid launches."""
    rows = rows_of(run.per_launch, variant)
    values = values_of(rows, measure.id)
    if not values:
        return []
    valid = rows[rows["status"] == "ok"]
    times = dict(zip(valid["block"], valid["wall_time"], strict=True))
    taken = [
        (datetime.fromisoformat(str(times[block])).timestamp() / 3600, float(comparable(measure, value)))
        for block, value in values.items()
        if times.get(block) and (value > 0 or measure.by_difference)
    ]
    return [(hours - taken[0][0], value) for hours, value in taken]


def _ratios(run: Run, a: str, b: str, measure: Metric) -> list[float]:
    launches = run.per_launch
    pairs, _ = pairs_of(measure, rows_of(launches, a), rows_of(launches, b))
    return [math.log(pair.ratio) for pair in pairs]


def _back(measure: Metric) -> Callable[[float], float]:
    """From the comparison scale to the metric's own unit."""
    return float if measure.by_difference else math.exp


def _typical(found: Spread, name: str) -> str:
    measure = metric(name)
    assert found.typical.value is not None
    text = quantity(_back(measure)(found.typical.value), measure.unit)
    ends = _ends(found.typical, measure)
    return f"{text} (95 % interval {ends} {measure.unit})" if ends else text


def _ends(one: Estimate, measure: Metric) -> str:
    ends = _both(one)
    return interval(_back(measure)(ends[0]), _back(measure)(ends[1])) if ends else ""


def _both(one: Estimate) -> tuple[float, float] | None:
    return None if one.low is None or one.high is None else (one.low, one.high)


def _percent(value: float | None) -> str:
    """A standard deviation of logarithms, as the per cent that it is for small ones."""
    return NULL if value is None else f"{number(100 * math.expm1(value), 2 if value < 0.1 else 0)} %"


def _percents(one: Estimate) -> str:
    return "" if one.low is None else f"{_percent(one.low)} to {_percent(one.high)}"


def _median(values: Sequence[float]) -> float:
    ranked = sorted(values)
    middle = len(ranked) // 2
    return ranked[middle] if len(ranked) % 2 else (ranked[middle - 1] + ranked[middle]) / 2


def _shown(value: object) -> str:
    if isinstance(value, Sequence) and not isinstance(value, str):
        # Processors and GPUs are lists of mappings: what is known of each.
        return "; ".join(_shown(one) for one in value) or "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items() if item is not None)
    text = "unknown" if value is None else str(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
