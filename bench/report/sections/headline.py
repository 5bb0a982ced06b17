"""The run in plain words: what was found, and what these figures can and cannot say."""

from __future__ import annotations

from collections.abc import Iterator

from bench.analyse.estimate import needed
from bench.phrases import listed
from bench.report.elements import Note, Notes, Prose, Section
from bench.report.numbers import count, duration, interval, number, quantity
from bench.report.sections import client, pace
from bench.report.view import View, contended, neighbour_notes


def section(view: View) -> Section:
    """The finding first, its limits right under it."""
    return Section("headline", "In short", (Prose(tuple(findings(view)), lead=True), Notes(tuple(limits(view)))))


def findings(view: View) -> Iterator[str]:
    """The ends of the field: once steady, on the first request, and from a cold start."""
    if neighbour := contended(view):
        yield neighbour
    if not view.measured:
        yield "No launch of this run counts, so there is no figure to report; the reasons are below."
        return
    if view.known("ttft.p50"):
        yield _steady(view)
    else:
        yield "No answer of this run has a token of text, so there is no TTFT; what came instead is in the table."
    if first := _first(view):
        yield first
    if cold := _cold(view):
        yield cold


def _ranked(view: View, metric: str) -> list[tuple[str, float]]:
    values = ((variant, view.value(variant, metric)) for variant in view.measured)
    return sorted(((variant, value) for variant, value in values if value is not None), key=lambda item: item[1])


def _steady(view: View) -> str:
    lengths = view.all_lengths()
    return " ".join(_at_length(view, name) for name in lengths) if len(lengths) > 1 else _at_any(view)


def _at_length(view: View, family: str) -> str:
    """A median over prompts of different lengths is one of none of them: each length has its own."""
    ranked = _ranked(view, f"{family}.p50")
    if not ranked:
        return f"No prompt of {family[5:-1]} tokens was answered once steady."
    best, value = ranked[0]
    row = view.row(best, f"{family}.p50")
    inside = interval(row.low, row.high) if row else ""
    text = f"Once steady, prompts of {family[5:-1]} tokens get their first token after {quantity(value, 'ms')}"
    text += f" with {best} (median{f'; 95 % interval {inside} ms' if inside else ''})"
    if len(ranked) == 1:
        return f"{text}."
    return f"{text}; {quantity(ranked[-1][1], 'ms')} with {ranked[-1][0]}."


def _at_any(view: View) -> str:
    ranked = _ranked(view, "ttft.p50")
    best, value = ranked[0]
    row = view.row(best, "ttft.p50")
    inside = interval(row.low, row.high) if row else ""
    text = f"Once steady, {best} gives the first token after {quantity(value, 'ms')}"
    text += f" (median; 95 % interval {inside} ms)" if inside else " (median)"
    if len(ranked) == 1:
        return text + f"{_pace(view, best)}."
    worst, slowest = ranked[-1]
    between = " and the others between" if len(ranked) > 2 else ""
    return text + f"{_pace(view, best)}; {worst} takes {quantity(slowest, 'ms')}{_pace(view, worst)}{between}."


def _pace(view: View, variant: str) -> str:
    pace = view.value(variant, "output_throughput")
    return "" if pace is None else f", at {quantity(pace, 'tok/s')}"


def _first(view: View) -> str | None:
    ratios = []
    for variant, first in _ranked(view, "first_ttft"):
        steady = view.value(variant, "ttft.p50")
        if steady:
            ratios.append((first / steady, variant, first))
    if not ratios:
        return None
    ratio, variant, first = max(ratios)
    if ratio < 1.15:
        return "The first request of a launch is about as quick as the ones after it."
    words = f"takes {duration(first / 1000)}, {number(ratio, 1)} times as long as a steady one"
    if len(ratios) == 1:
        return f"The first request of a launch {words}."
    return f"The first request of a launch costs most under {variant}: it {words}."


def _cold(view: View) -> str | None:
    ranked = _ranked(view, "cold_ttft")
    if not ranked:
        return None
    best, value = ranked[0]
    text = f"From starting the engine to the first token of the workload it is {duration(value)} with {best}"
    return text + (f" and {duration(ranked[-1][1])} with {ranked[-1][0]}." if len(ranked) > 1 else ".")


def limits(view: View) -> Iterator[Note]:
    """What the figures can and cannot say, the gravest first."""
    yield from _state(view)
    yield from neighbour_notes(view)
    yield from pace.notes(view)
    yield from _sample(view)
    yield from _client(view)
    if not view.measured:
        return
    yield Note(
        "The figures hold for this machine in this state, this model, these prompts and these versions.",
        "“Machine and versions” lists them. Another power mode, or another day, can move the figures by more than the "
        "intervals say.",
    )


def _state(view: View) -> Iterator[Note]:
    manifest, launches = view.run.manifest, view.run.all
    if manifest.emulated:
        yield Note(f"Emulated: {manifest.emulated}.", "No figure here is one of the board that it names.", "bad")
    if manifest.state != "complete":
        planned = f" of {len(manifest.plan)}" if manifest.plan else ""
        how = "still going on, or was killed" if manifest.state == "running" else manifest.state
        here = count(len(launches), "launch") if not planned else f"{len(launches)}{planned} launches"
        words = f"The run is {how}; here: {here}."
        yield Note(words, "`bench run --resume` goes on with one that is not running any more.", "warn")
    if view.troubled:
        variants = dict.fromkeys(launch.record.variant for launch in view.troubled)
        one = len(view.troubled) == 1
        verb = "does" if one else "do"
        words = f"{len(view.troubled)} of {count(len(launches), 'launch')} {verb} not count ({listed(variants)})."
        kept_out, reasons = ("It is", "its reason") if one else ("They are", "their reasons")
        yield Note(words, f"{kept_out} in no figure; “What does not count” gives {reasons}.", "warn")
    yield from _made_up(view)
    for text in manifest.notes:
        yield Note(text)


def _made_up(view: View) -> Iterator[Note]:
    """Where the engine or the weights are not real ones."""
    described = view.run.manifest.variants
    engines = {variant.adapter for variant in described}
    sources = {variant.source for variant in described}
    if "simulated" in engines:
        yield Note("A scripted server stands in for an engine.", "Its figures say nothing about any model.", "warn")
    elif any(source.startswith("dummy:") for source in sources):
        words = "The model has its true shape and random weights: its speed is real, its words are noise."
        yield Note(words, "No figure of quality is given for it.")


def _sample(view: View) -> Iterator[Note]:
    fewest = min((len(view.valid(variant)) for variant in view.measured), default=0)
    if 0 < fewest < needed(0.5):
        few = f"With as few as {count(fewest, 'launch')} of a variant"
        words = f"{few}, what a launch gives only once has a range, not an interval."
        yield Note(words, "Six launches are the fewest that give one.")
    requests = [row.n for variant in view.measured if (row := view.row(variant, "ttft.p50")) and row.n]
    tails = {"p90": 0.9, "p95": 0.95, "p99": 0.99}
    missing = [name for name, q in tails.items() if requests and min(requests) < needed(q)]
    if missing:
        wants = listed(f"{name} needs {needed(tails[name])}" for name in missing)
        few = f"{count(min(requests), 'request')} per variant {'is' if min(requests) == 1 else 'are'} too few"
        yield Note(f"{few} for {listed(missing, 'or')}.", f"{wants}.")


def _client(view: View) -> Iterator[Note]:
    """The harness's own error beside what it measured."""
    yield from client.notes(view)
    lags = [lag for variant in view.measured if (lag := view.value(variant, "client_lag.p50")) is not None]
    requests = view.run.requests
    sources = set(requests["stamp_source"].dropna()) if len(requests) else set()
    if sources == {"kernel"}:
        if lags:
            words = (
                f"The client held a first token {number(max(lags), 0)} µs after the kernel had received it (median)."
            )
            yield Note(words, "The stamps are the kernel's, so this lag is in no figure.")
    elif sources:
        words = "Some stamps are the client's own" if "kernel" in sources else "The stamps are the client's own"
        detail = "TLS, a proxy or this platform gives no kernel stamps; figures include the client's delay."
        yield Note(f"{words}, not the kernel's.", detail, "warn")
