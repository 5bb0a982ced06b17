"""Energy of a window: the integral of sampled power, or a counter's difference, and how far either can be trusted.

Power samples are joined by straight lines (trapezoid), with the power at the window's ends interpolated. The sampler
draws its times at random within each period, so fluctuations too fast to follow show as scatter between neighbouring
samples instead of a bias. That scatter gives the uncertainty: u = 2·T·s/√n, where s² = mean((P[i+1] − P[i])²)/2
(von Neumann), to which half a sampling interval's change of power at each end is added. It is about two standard
errors; pulses so short that a dozen readings or fewer catch them are understated. There is no figure for a window too
short or too thinly sampled to carry one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bench.analyse.series import Samples, Series, Values
from bench.record.launches import LaunchRecord

# Below these a window carries no figure: seconds, and readings within it.
SHORTEST_S = {"counter": 1.0, "power": 1.0, "gpu power": 5.0}
FEWEST = 8
# A gap longer than this leaves the figure without ground: InferenceX's limit.
LONGEST_GAP_S = 3.0
COVERED = 0.95
# A driver's counter moves on every 20 to 100 ms.
COUNTER_STEP_S = 0.1
# Two sources of one energy that differ by more than this are both doubted.
CROSS_CHECK = 0.05


@dataclass(frozen=True, slots=True)
class Energy:
    """Energy of a window, J, or why there is none. `uncertainty_j` is about two standard errors, from sampling alone.

    `coverage` is the share of the window that lies between samples no further apart than three periods.
    """

    joules: float | None
    seconds: float
    source: str | None = None
    scope: str | None = None
    uncertainty_j: float | None = None
    coverage: float | None = None
    max_gap_s: float | None = None
    samples: int = 0
    reason: str | None = None
    cross_check: float | None = None

    @property
    def relative(self) -> float | None:
        """The uncertainty as a share of the energy."""
        return self.uncertainty_j / self.joules if self.joules and self.uncertainty_j is not None else None


@dataclass(frozen=True, slots=True)
class PowerSource:
    """Where a launch's power was recorded: a power series (W), perhaps a counter (J), and what they cover."""

    kind: str
    name: str
    scope: str
    power: Series
    counter: Series | None = None


def integrate(power: Series, start_ns: int, end_ns: int, *, shortest_s: float = 1.0) -> Energy:
    """Energy between two stamps from samples of power."""
    seconds = (end_ns - start_ns) / 1e9
    if len(power) == 0:
        return Energy(None, seconds, reason=power.why or "not_found")
    inside = power.within(start_ns, end_ns)
    if seconds < shortest_s or len(inside) < FEWEST:
        return Energy(None, seconds, samples=len(inside), reason=f"too short: {seconds:.2f} s, {len(inside)} samples")
    near = power.around(start_ns, end_ns)
    # Where there is no sample outside, the nearest one inside stands for the edge.
    times = np.concatenate(([start_ns], inside.t_ns, [end_ns])) / 1e9
    times = times - start_ns / 1e9
    edges = np.interp([start_ns, end_ns], near.t_ns, near.value)
    watts = np.concatenate((edges[:1], inside.value, edges[1:]))
    gaps = np.diff(np.clip(near.t_ns, start_ns, end_ns) / 1e9)
    ends = [max(0.0, (near.t_ns[0] - start_ns) / 1e9), max(0.0, (end_ns - near.t_ns[-1]) / 1e9)]
    period = float(np.median(np.diff(inside.t_ns))) / 1e9
    whole = np.diff(near.t_ns) / 1e9
    uncovered = float(gaps[whole > 3 * period].sum()) + sum(end for end in ends if end > period)
    coverage, longest = 1 - uncovered / seconds, max(float(whole.max(initial=0.0)), *ends)
    joules = float(np.trapezoid(watts, times))
    found = Energy(joules, seconds, uncertainty_j=_uncertainty(inside, edges, seconds, period), samples=len(inside))
    found = replace(found, coverage=coverage, max_gap_s=longest)
    if coverage < COVERED or longest > LONGEST_GAP_S:
        return replace(found, joules=None, uncertainty_j=None, reason=f"partial: {coverage:.0%} covered")
    return found


def _uncertainty(inside: Series, edges: Values, seconds: float, period: float) -> float:
    scatter = math.sqrt(float(np.mean(np.diff(inside.value) ** 2)) / 2)
    border = period / 2 * (abs(inside.value[0] - edges[0]) + abs(inside.value[-1] - edges[1]))
    return float(2 * seconds * scatter / math.sqrt(len(inside)) + border)


def difference(counter: Series, start_ns: int, end_ns: int) -> Energy:
    """Energy between two stamps from a counter (J), interpolated at both ends."""
    seconds = (end_ns - start_ns) / 1e9
    if len(counter) == 0:
        return Energy(None, seconds, reason=counter.why or "not_found")
    near = counter.around(start_ns, end_ns)
    if seconds < SHORTEST_S["counter"] or len(near) < 3:
        return Energy(None, seconds, samples=len(near), reason=f"too short: {seconds:.2f} s, {len(near)} samples")
    if np.any(np.diff(near.value) < 0):
        return Energy(None, seconds, samples=len(near), reason="parse_failed: the counter ran backwards")
    outside = max(0.0, (near.t_ns[0] - start_ns) / 1e9) + max(0.0, (end_ns - near.t_ns[-1]) / 1e9)
    longest = max(float(np.diff(near.t_ns).max()) / 1e9, outside)
    if outside > LONGEST_GAP_S / 3 or longest > LONGEST_GAP_S:
        covered = max(0.0, 1 - outside / seconds)
        return Energy(None, seconds, samples=len(near), coverage=covered, max_gap_s=longest, reason="partial")
    first, last = np.interp([start_ns, end_ns], near.t_ns, near.value)
    joules = float(last - first)
    uncertainty = 2 * COUNTER_STEP_S * joules / seconds / math.sqrt(6)
    return Energy(joules, seconds, "counter", None, uncertainty, 1 - outside / seconds, longest, len(near))


def source_of(record: LaunchRecord, samples: Samples) -> PowerSource | None:
    """The best record of power there is: a board's own sensors, then the GPU's; None if nothing was read."""
    scopes = {(info.probe, info.field): info.scope for info in record.fields}
    for probe in ("jetson", "tegrastats"):
        series = samples.of(probe, "power_w")
        if len(series):
            return PowerSource("power", f"{probe} power", scopes.get((probe, "power_w")) or "unknown", series)
    powers = samples.matching("nvml", end=".power_w")
    counters = samples.matching("nvml", end=".energy_j")
    power = samples.total(list(powers.values()))
    counter = samples.total(list(counters.values()))
    if not len(power) and not len(counter):
        return None
    name = next(iter(powers or counters))
    return PowerSource("gpu power", "nvml", scopes.get(("nvml", name)) or "gpu board", power, counter)


def of_window(source: PowerSource | None, start_ns: int | None, end_ns: int | None) -> Energy:
    """Energy between two stamps from a launch's power source: the counter where there is one, power as cross-check."""
    if start_ns is None or end_ns is None or end_ns <= start_ns:
        return Energy(None, 0.0, reason="not_found: the window has no beginning or no end")
    if source is None:
        return Energy(None, (end_ns - start_ns) / 1e9, reason="not_found: no power was recorded")
    integral = integrate(source.power, start_ns, end_ns, shortest_s=SHORTEST_S[source.kind])
    integral = replace(integral, source=source.name, scope=source.scope)
    if source.counter is None:
        return integral
    counted = difference(source.counter, start_ns, end_ns)
    if counted.joules is None:
        return integral if integral.joules is not None else replace(counted, source=source.name, scope=source.scope)
    apart = abs(integral.joules - counted.joules) / counted.joules if integral.joules and counted.joules else None
    return replace(counted, source=f"{source.name} counter", scope=source.scope, cross_check=apart)


def idle_watts(source: PowerSource | None, record: LaunchRecord) -> float | None:
    """Mean power before the engine was spawned; None with too few readings for one."""
    spawn = record.stamps.get("spawn")
    if source is None or spawn is None:
        return None
    before = source.power.within(None, spawn)
    return float(before.value.mean()) if len(before) >= FEWEST else None


def phases(record: LaunchRecord, requests: pa.Table, samples: Samples) -> dict[str, dict[str, Any]]:
    """Energy by phase, idle-subtracted too: startup, warmup, steady, and within that prefill and decode if apart.

    Each has the fields of Energy, `above_idle_j` (null without an idle reference) and `mean_w`.
    """
    source = source_of(record, samples)
    idle = idle_watts(source, record)
    stamps = record.stamps
    start, end = steady_window(requests)
    found = {
        "startup": of_window(source, stamps.get("spawn"), stamps.get("ready")),
        "warmup": of_window(source, stamps.get("ready"), stamps.get("warmup_end")),
        "steady": of_window(source, start, end),
        **_within_requests(source, requests),
    }
    return {name: _with_idle(energy, idle) for name, energy in found.items()}


def _with_idle(energy: Energy, idle: float | None) -> dict[str, Any]:
    known = energy.joules is not None
    return asdict(energy) | {
        "above_idle_j": energy.joules - idle * energy.seconds if known and idle is not None and energy.joules else None,
        "mean_w": energy.joules / energy.seconds if known and energy.joules and energy.seconds else None,
        "idle_w": idle,
    }


def _within_requests(source: PowerSource | None, requests: pa.Table) -> dict[str, Energy]:
    """Prefill (sent → first token) and decode (first → last token), summed over the steady requests."""
    rows = requests.filter(pc.and_(requests["measured"], pc.is_null(requests["error_kind"])))
    columns = {name: rows[name].to_pylist() for name in ("sent_ns", "first_token_ns", "last_token_ns")}
    spans = [span for span in zip(*columns.values(), strict=True) if None not in span]
    if any(later[0] < earlier[2] for earlier, later in zip(sorted(spans), sorted(spans)[1:], strict=False)):
        overlap = Energy(None, 0.0, reason="unsupported: requests overlap, so prefill and decode cannot be told apart")
        return {"prefill": overlap, "decode": overlap}
    return {
        "prefill": of_windows(source, [(sent, first) for sent, first, _ in spans]),
        "decode": of_windows(source, [(first, last) for _, first, last in spans]),
    }


def of_windows(source: PowerSource | None, windows: list[tuple[int, int]]) -> Energy:
    """Energy of many short windows together. Each must span two sampling periods: shorter ones are guesses."""
    seconds = sum(end - start for start, end in windows) / 1e9
    if source is None or not len(source.power):
        return Energy(None, seconds, reason="not_found: no power was recorded")
    period = float(np.median(np.diff(source.power.t_ns))) / 1e9 if len(source.power) > 1 else math.inf
    typical = float(np.median([end - start for start, end in windows])) / 1e9 if windows else 0.0
    if seconds < SHORTEST_S[source.kind] or typical < 2 * period:
        reason = f"too short: windows of {typical:.2f} s against samples every {period:.2f} s"
        return Energy(None, seconds, source.name, source.scope, reason=reason)
    joules, samples, border = 0.0, 0, 0.0
    changes: list[Values] = []
    for start, end in windows:
        part, near = source.power.within(start, end), source.power.around(start, end)
        edges = np.interp([start, end], near.t_ns, near.value)
        watts = np.concatenate((edges[:1], part.value, edges[1:]))
        joules += float(np.trapezoid(watts, np.concatenate(([start], part.t_ns, [end])) / 1e9))
        samples += len(part)
        changes.append(np.diff(part.value))
        if len(part):
            # Power often steps exactly where a window ends, and the straight line then errs the same way every time:
            # by a sixth of a period's step on average, and these errors add up.
            steps = abs(part.value[0] - near.value[0]) + abs(part.value[-1] - near.value[-1])
            border += float(steps) * period / 4
    every = np.concatenate(changes) if changes else np.empty(0)
    scatter = math.sqrt(float(np.mean(every**2)) / 2) if len(every) else math.inf
    uncertainty = 2 * seconds * scatter / math.sqrt(max(1, samples)) + border
    return Energy(joules, seconds, source.name, source.scope, uncertainty, 1.0, None, samples)


def steady_window(requests: pa.Table) -> tuple[int | None, int | None]:
    """From the first steady request's sending to the last one's end."""
    steady = requests.filter(requests["measured"])
    start, end = pc.min(steady["sent_ns"]).as_py(), pc.max(steady["end_ns"]).as_py()
    return start, end


def of_launch(record: LaunchRecord, requests: pa.Table, samples: Samples) -> Mapping[str, float | None]:
    """The metrics `energy.*`, J: of the start, of the warm-up, and per token and request of the steady window."""
    start, end = steady_window(requests)
    source, stamps = source_of(record, samples), record.stamps
    joules = of_window(source, start, end).joules
    done = requests.filter(pc.and_(requests["measured"], pc.is_null(requests["error_kind"])))
    tokens = done["completion_tokens"]
    produced = None if tokens.null_count or not len(tokens) else pc.sum(tokens).as_py()
    return {
        "energy.startup": of_window(source, stamps.get("spawn"), stamps.get("ready")).joules,
        "energy.warmup": of_window(source, stamps.get("ready"), stamps.get("warmup_end")).joules,
        "energy.per_token": joules / produced if joules is not None and produced else None,
        "energy.per_request": joules / len(done) if joules is not None and len(done) else None,
    }
