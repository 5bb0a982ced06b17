"""Rules about the machine and the harness: throttling, power, memory, clocks, stops, and readings that came late."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from bench.analyse.energy import COVERED, CROSS_CHECK, of_window, source_of
from bench.analyse.series import Series
from bench.judge.evidence import Evidence, Said, rule
from bench.record.cooling import HARDWARE, Effect, effect
from bench.record.launches import ProbeAccount

# NVML's clock-event reason for a clock at its power limit.
POWER_CAP = 0x4
CAPPED = 0.02
SLEPT_MS = 1.0
LOCKED_SHARE = 0.97


@rule(
    limit=f"no hardware or thermal slowdown; power limit in ≤ {CAPPED:.0%} of samples",
    remedy="cool the GPU, lower its clock with `sudo nvidia-smi -lgc`, or declare a power limit with `-pl`",
)
def gpu_throttle(e: Evidence) -> Said | None:
    """NVML says why its clock is not higher."""
    masks = {name: e.during("nvml", name) for name in e.samples.matching("nvml", end=".clock_reasons")}
    known = {name: series for name, series in masks.items() if len(series)}
    if not masks:
        return None
    if not known:
        return "unknown", f"the driver does not say ({next(iter(masks.values())).why or 'no sample in the window'})"
    for name, series in known.items():
        bits = series.value.astype(np.int64)
        for bit, words in HARDWARE.items():
            if share := float(np.mean((bits & bit) != 0)):
                return "violated", f"{name.split('.')[0]}: {words} in {share:.0%} of the steady samples"
        if (share := float(np.mean((bits & POWER_CAP) != 0))) > CAPPED:
            return "warning", f"{name.split('.')[0]}: at its power limit in {share:.0%} of the steady samples"
    return "ok", "no hardware or thermal slowdown"


@rule(
    limit="no cooling device that slows a processor or the GPU at work",
    remedy="a lower power mode (`sudo nvpmodel -m`), the fan at full speed (`sudo jetson_clocks --fan`), a cool-down",
)
def thermal_throttle(e: Evidence) -> Said | None:
    """A cooling device that slows a processor or the GPU is at work, or one of unknown effect changed its state."""
    named = {name: name.removeprefix("throttle.") for name in e.samples.matching("thermal", start="throttle.")}
    states = {kind: e.during("thermal", name) for name, kind in named.items() if effect(kind) is not Effect.HARMLESS}
    known = {kind: series for kind, series in states.items() if len(series)}
    if not known:
        return ("unknown", "cooling devices gave no reading") if states else None
    slowing = {kind: series for kind, series in known.items() if effect(kind) is Effect.SLOWS}
    active = {kind: float(np.mean(series.value > 0)) for kind, series in slowing.items() if np.any(series.value > 0)}
    if active:
        return "violated", "; ".join(f"{kind} in {share:.0%}" for kind, share in active.items())
    # A state that was there before and stayed may be a setting; one that moved is the machine's answer to heat.
    moved = [kind for kind, series in known.items() if kind not in slowing and _span(series)]
    if moved:
        return "warning", f"{', '.join(moved)} changed while measuring, and what it does is not known"
    return "ok", f"{len(known)} cooling devices at rest"


@rule(
    limit=f"≥ {LOCKED_SHARE:.0%} of the locked GPU clock under load",
    remedy="the board throttles although its clocks are locked: a lower power mode, or better cooling",
)
def clock_below_lock(e: Evidence) -> Said | None:
    """Clocks are said to be locked, and yet the GPU runs below its lock under load."""
    jetson = e.fingerprint.get("jetson") or {}
    if not (jetson.get("clocks") or {}).get("gpu"):
        return None
    clock, load = e.during("jetson", "gpu_clock_mhz"), e.during("jetson", "gpu_load")
    if not len(clock) or not len(load):
        return "unknown", "GPU clock or load was not recorded"
    lock = float(e.samples.of("jetson", "gpu_clock_mhz").value.max())
    busy = np.interp(clock.t_ns, load.t_ns, load.value) > 50
    low = busy & (clock.value < LOCKED_SHARE * lock)
    # Three in a row: a single sample may fall into a switch.
    if len(low) >= 3 and np.any(low[:-2] & low[1:-1] & low[2:]):
        return "violated", f"down to {clock.value[low].min():.0f} MHz of {lock:.0f} under load"
    return "ok", f"{clock.value.min():.0f} MHz at least, locked at {lock:.0f}"


@rule(
    limit="no under-voltage or average over-current event",
    remedy="a stronger supply, or a lower power mode (`sudo nvpmodel -m`)",
)
def over_current(e: Evidence) -> Said | None:
    """The Tegra's own counters of under-voltage and average over-current events."""
    grown = {name: e.growth("thermal", f"{name}_events") for name in ("oc1", "oc2")}
    if not any(len(e.samples.of("thermal", f"{name}_events")) for name in grown):
        return None
    if found := {name: count for name, count in grown.items() if count}:
        words = {"oc1": "under-voltage", "oc2": "average over-current"}
        return "violated", ", ".join(f"{count:.0f} {words[name]} events" for name, count in found.items())
    return "ok", "no under-voltage, no average over-current"


@rule(limit="no instantaneous over-current event", remedy="common at full power; a lower power mode avoids it")
def instant_over_current(e: Evidence) -> Said | None:
    """Short peaks are normal at full power on some boards: a warning with a rate."""
    count = e.growth("thermal", "oc3_events")
    if count is None or e.window is None:
        return None
    rate = count / ((e.window[1] - e.window[0]) / 1e9)
    return ("warning", f"{rate:.1f} events/s") if count else ("ok", "no event")


@rule(
    limit="no page swapped while measuring",
    remedy="a smaller model or cache; `sudo swapoff -a`, `sudo systemctl disable nvzramconfig` on a Jetson",
)
def swap(e: Evidence) -> Said | None:
    """Pages went to swap or came from it while measuring."""
    moved = [e.growth("pressure", name) for name in ("swap_in_pages", "swap_out_pages")]
    if None in moved:
        return "unknown", "swap counters were not recorded"
    pages = sum(count or 0.0 for count in moved)
    return ("violated", f"{pages:.0f} pages while measuring") if pages else ("ok", "no page moved")


@rule(limit="nothing killed", remedy="a smaller model or cache, or fewer other programs")
def out_of_memory(e: Evidence) -> Said | None:
    """The kernel killed something for want of memory, at any time of the launch."""
    kills = e.samples.of("pressure", "oom_kills").grown()
    if kills is None:
        return None
    return ("violated", f"{kills:.0f} processes killed by the kernel") if kills else ("ok", "none killed")


@rule(limit="wall clock within 1 ms", remedy="no clock setting during a run")
def clocks(e: Evidence) -> Said | None:
    """The wall clock was set while measuring."""
    step = e.during("sampler", "clock_step_ms")
    if not len(step):
        return "unknown", "clocks were not compared"
    moved = _span(step)
    if moved > 1.0:
        # Every stamp is monotonic, so durations are right; times of day before and after do not belong together.
        return "warning", f"wall clock moved by {moved:.1f} ms against the monotonic one"
    return "ok", f"wall clock within {moved:.3f} ms of the monotonic one"


@rule(
    limit="no process stopped or frozen, no suspend",
    remedy="no Ctrl-Z, SIGSTOP, `docker pause` or closed lid during a run (`systemd-inhibit bench run …` keeps it "
    "awake)",
)
def stopped(e: Evidence) -> Said | None:
    """Somebody kept a process of the launch, or the whole machine, from running, at any time of the launch."""
    words = []
    for stop in e.record.stops or ():
        known = stop.start_ns is not None and stop.end_ns is not None
        for_s = f" for {((stop.end_ns or 0) - (stop.start_ns or 0)) / 1e9:.2f} s" if known else ""
        words.append(f"the {stop.process} (process {stop.pid}) was stopped{for_s}")
    engine = e.samples.of("tree", "stopped")
    if np.any(engine.value > 0) and not any(stop.process == "engine" for stop in e.record.stops or ()):
        words.append("a process of the engine was stopped")
    frozen, asleep = (e.samples.of("sampler", name).grown() for name in ("frozen_ms", "suspended_ms"))
    # The sampler's own stop is a pause that it noticed itself.
    if frozen and not any(stop.process == "sampler" for stop in e.record.stops or ()):
        words.append(f"everything stood still for {frozen / 1000:.2f} s (frozen)")
    if asleep is not None and asleep > SLEPT_MS:
        words.append(f"the machine slept for {asleep / 1000:.1f} s")
    if words:
        return "violated", "; ".join(words)
    if e.record.stops is None or frozen is None or asleep is None:
        return "unknown", "nobody watched whether processes were stopped"
    return "ok", "every process ran throughout"


@rule(limit=f"≥ {COVERED:.0%} of readings in time", remedy="`bench doctor` shows what each probe can do")
def sampling(e: Evidence) -> Said | None:
    """The sampler kept its periods."""
    account = e.record.client.sampler
    if account is None:
        return "unknown", "the sampler gave no account"
    if not account.complete:
        return "warning", "the sampler was lost before its end"
    troubled = list(_troubles(account.probes))
    if lost := account.lost_lines:
        troubled.append(f"{lost} lines could not be written")
    return ("warning", "; ".join(troubled)) if troubled else ("ok", "every probe kept its period")


def _troubles(probes: Mapping[str, ProbeAccount]) -> Iterator[str]:
    for name, probe in probes.items():
        missed = probe.missed or 0
        due = (probe.samples or 0) + missed
        if probe.error:
            yield f"{name}: {probe.error}"
        elif due and missed / due > 1 - COVERED:
            yield f"{name}: {missed} of {due:.0f} readings late"


@rule(limit=f"≥ {COVERED:.0%} of the window covered", remedy="more requests per launch")
def power_coverage(e: Evidence) -> Said | None:
    """Power was read often enough, and its two sources agree."""
    source = source_of(e.record, e.samples)
    if source is None or e.window is None:
        return None
    energy = of_window(source, *e.window)
    if energy.joules is None:
        return "warning", f"no energy figure: {energy.reason}"
    if energy.cross_check is not None and energy.cross_check > CROSS_CHECK:
        return "warning", f"counter and integrated power differ by {energy.cross_check:.0%}"
    relative = f" ± {energy.relative:.1%}" if energy.relative is not None else ""
    return "ok", f"{energy.joules:.1f} J{relative}, {energy.coverage or 0:.0%} covered"


def _span(series: Series) -> float:
    return float(series.value.max() - series.value.min())
