"""The validity rules, each a few lines, and the one table that lists them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow.compute as pc

from bench.analyse.energy import COVERED, CROSS_CHECK, of_window, source_of
from bench.analyse.series import Series
from bench.analyse.steady import of_requests
from bench.judge.evidence import Evidence, Rule, Verdict, failed

# NVML's clock-event reasons.
HARDWARE = {0x8: "hardware slowdown", 0x20: "software thermal", 0x40: "hardware thermal", 0x80: "power brake"}
POWER_CAP = 0x4
STEAL, FOREIGN_CPU, CAPPED = 0.01, 0.05, 0.02
CLIENT_CORE = 0.7
LOCKED_SHARE = 0.97


def gpu_throttle(e: Evidence) -> Verdict | None:
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


def thermal_throttle(e: Evidence) -> Verdict | None:
    """A cooling device that slows something down is at work."""
    states = {name: e.during("thermal", name) for name in e.samples.matching("thermal", start="throttle.")}
    known = {name: series for name, series in states.items() if len(series)}
    if not known:
        return ("unknown", "cooling devices gave no reading") if states else None
    active = {name: float(np.mean(series.value > 0)) for name, series in known.items() if np.any(series.value > 0)}
    if not active:
        return "ok", f"{len(known)} cooling devices at rest"
    return "violated", "; ".join(f"{name.removeprefix('throttle.')} in {share:.0%}" for name, share in active.items())


def clock_below_lock(e: Evidence) -> Verdict | None:
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


def over_current(e: Evidence) -> Verdict | None:
    """The Tegra's own counters of under-voltage and average over-current events."""
    grown = {name: e.growth("thermal", f"{name}_events") for name in ("oc1", "oc2")}
    if not any(len(e.samples.of("thermal", f"{name}_events")) for name in grown):
        return None
    if found := {name: count for name, count in grown.items() if count}:
        words = {"oc1": "under-voltage", "oc2": "average over-current"}
        return "violated", ", ".join(f"{count:.0f} {words[name]} events" for name, count in found.items())
    return "ok", "no under-voltage, no average over-current"


def instant_over_current(e: Evidence) -> Verdict | None:
    """Short peaks are normal at full power on some boards: a warning with a rate."""
    count = e.growth("thermal", "oc3_events")
    if count is None or e.window is None:
        return None
    rate = count / ((e.window[1] - e.window[0]) / 1e9)
    return ("warning", f"{rate:.1f} events/s") if count else ("ok", "no event")


def swap(e: Evidence) -> Verdict | None:
    """Pages went to swap or came from it while measuring."""
    moved = [e.growth("pressure", name) for name in ("swap_in_pages", "swap_out_pages")]
    if None in moved:
        return "unknown", "swap counters were not recorded"
    pages = sum(count or 0.0 for count in moved)
    return ("violated", f"{pages:.0f} pages while measuring") if pages else ("ok", "no page moved")


def out_of_memory(e: Evidence) -> Verdict | None:
    """The kernel killed something for want of memory, at any time of the launch."""
    kills = e.samples.of("pressure", "oom_kills").grown()
    if kills is None:
        return None
    return ("violated", f"{kills:.0f} processes killed by the kernel") if kills else ("ok", "none killed")


def foreign_gpu(e: Evidence) -> Verdict | None:
    """Somebody else's processes on the GPU."""
    counts = [e.during("nvml", name) for name in e.samples.matching("nvml", end=".foreign_processes")]
    if not counts:
        return None
    known = [series for series in counts if len(series)]
    if not known:
        return "unknown", f"the driver does not list processes ({counts[0].why})"
    most = max(float(series.value.max()) for series in known)
    return ("violated", f"{most:.0f} other processes") if most else ("ok", "none")


def steal(e: Evidence) -> Verdict | None:
    """The hypervisor gave this machine's processors to others."""
    parts = {name: e.growth("host", name) for name in ("cpu_busy_s", "cpu_idle_s", "cpu_iowait_s", "cpu_steal_s")}
    if None in parts.values():
        return "unknown", "processor time was not recorded"
    total = sum(part or 0.0 for part in parts.values())
    share = (parts["cpu_steal_s"] or 0.0) / total if total else 0.0
    allowed = e.design.get("max_steal", STEAL)
    words = f"{share:.2%} of processor time" + (f", the scenario allows {allowed:.0%}" if allowed != STEAL else "")
    return ("violated" if share > allowed else "ok"), words


def foreign_cpu(e: Evidence) -> Verdict | None:
    """Processor time that neither the engine nor the harness used."""
    busy, idle = e.growth("host", "cpu_busy_s"), e.growth("host", "cpu_idle_s")
    ours = [e.growth("tree", "cpu_s"), e.growth("tree", "harness_cpu_s"), e.growth("sampler", "cpu_s")]
    if busy is None or idle is None or ours[0] is None or not busy + idle:
        return "unknown", "processor time of the engine was not recorded"
    share = max(0.0, busy - sum(part or 0.0 for part in ours)) / (busy + idle)
    return ("warning" if share > FOREIGN_CPU else "ok"), f"{share:.1%} of the machine's processor time"


def steadiness(e: Evidence) -> Verdict | None:
    """Answers that came later and later, or settled only past the middle: no median stands for such a launch."""
    seen = of_requests(e.requests)
    if seen.kind == "too short":
        return None
    moved = seen.drift or seen.change or 0.0
    if seen.kind in ("slowdown", "not steady"):
        return "warning", f"{seen.kind}: TTFT changed by {moved:+.1%} over {seen.n} requests"
    return "ok", f"{seen.kind}: steady from request {(seen.first or 0) + 1} on of {seen.n}"


def client_saturation(e: Evidence) -> Verdict | None:
    """The load generator itself was the bottleneck."""
    if e.window is None:
        return None
    used = e.rate("tree", "harness_cpu_s")
    delays = e.steady["dispatch_delay_ms"].drop_null().to_numpy()
    ttft = e.steady["ttft_ms"].drop_null().to_numpy()
    limit = max(1.0, 0.02 * float(np.median(ttft))) if len(ttft) else 1.0
    words, status = [], "ok"
    # In a closed loop a request is meant to be sent when it is sent; an open one shows a client that falls behind.
    if len(delays):
        late = float(np.quantile(delays, 0.99))
        words.append(f"dispatched {late:.2f} ms late at p99, limit {limit:.1f}")
        status = "violated" if late > limit else status
    if used is not None:
        words.append(f"harness used {used:.2f} of a core")
        status = "violated" if used > CLIENT_CORE else status
    if not words:
        return "unknown", "neither dispatch delays nor the harness's processor time were recorded"
    return ("violated" if status == "violated" else "ok"), "; ".join(words)


def clocks(e: Evidence) -> Verdict | None:
    """The machine slept, or its wall clock was set, while measuring."""
    asleep, step = e.during("sampler", "suspended_ms"), e.during("sampler", "clock_step_ms")
    if not len(asleep) or not len(step):
        return "unknown", "clocks were not compared"
    slept, moved = _span(asleep), _span(step)
    if slept > 1.0:
        return "violated", f"the machine slept for {slept / 1000:.1f} s"
    if moved > 1.0:
        # Every stamp is monotonic, so durations are right; times of day before and after do not belong together.
        return "warning", f"wall clock moved by {moved:.1f} ms against the monotonic one"
    return "ok", f"wall clock within {moved:.3f} ms of the monotonic one"


def _span(series: Series) -> float:
    return float(series.value.max() - series.value.min())


def tokens(e: Evidence) -> Verdict | None:
    """The server generated what was asked for."""
    if e.workload.get("ignore_eos", True) is not True:
        return None
    done = e.steady.filter(e.steady["ok"])
    if not len(done):
        return None
    given, asked = done["completion_tokens"], done["output_tokens_asked"]
    if given.null_count or asked.null_count:
        return "unknown", f"{given.null_count} of {len(done)} answers came without a count"
    wrong = int(pc.sum(pc.not_equal(given, asked)).as_py())
    if wrong:
        return "violated", f"{wrong} of {len(done)} answers have another length than asked for"
    return "ok", f"{len(done)} answers, all as long as asked for"


def failed_requests(e: Evidence) -> Verdict | None:
    """A request that fails is a result, and not one of latency."""
    if not len(e.steady):
        return None
    bad = list(failed(e))
    return ("violated", ", ".join(bad)) if bad else ("ok", f"all {len(e.steady)} succeeded")


def cache_contamination(e: Evidence) -> Verdict | None:
    """Prompts that were to be new and were found in a prefix cache."""
    if e.workload.get("unique", True) is not True:
        return None
    done = e.steady.filter(e.steady["ok"])
    cached, prompt = pc.sum(done["cached_tokens"]).as_py(), pc.sum(done["prompt_tokens"]).as_py()
    source = "the server counted"
    if cached is None:
        cached, prompt = e.growth("engine", "prefix_hits"), e.growth("engine", "prefix_queries")
        source = "the engine's metrics count"
    if cached is None or not prompt:
        return "unknown", "the server does not say how many prompt tokens were cached"
    share = cached / prompt
    words = f"{source} {cached:.0f} of {prompt:.0f} prompt tokens cached ({share:.1%})"
    return ("violated" if share > 0.05 else "warning" if cached else "ok"), words


def sampling(e: Evidence) -> Verdict | None:
    """The sampler kept its periods."""
    account = e.record.client.get("sampler")
    if not account:
        return "unknown", "the sampler gave no account"
    if not account.get("complete"):
        return "warning", "the sampler was lost before its end"
    troubled = list(_troubles(account.get("probes") or {}))
    if lost := account.get("lost_lines"):
        troubled.append(f"{lost} lines could not be written")
    return ("warning", "; ".join(troubled)) if troubled else ("ok", "every probe kept its period")


def _troubles(probes: dict[str, dict[str, float | str | None]]) -> Iterator[str]:
    for name, probe in probes.items():
        due = float(probe.get("samples") or 0) + float(probe.get("missed") or 0)
        if probe.get("error"):
            yield f"{name}: {probe['error']}"
        elif due and float(probe.get("missed") or 0) / due > 1 - COVERED:
            yield f"{name}: {probe['missed']} of {due:.0f} readings late"


def power_coverage(e: Evidence) -> Verdict | None:
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


def server_agrees(e: Evidence) -> Verdict | None:
    """The server's own mean TTFT against ours: its clock starts later and stops earlier, by milliseconds."""
    total, count = e.growth("engine", "ttft_sum_s"), e.growth("engine", "ttft_count")
    ours = e.steady.filter(e.steady["ok"])["ttft_ms"].drop_null().to_numpy()
    if total is None or not count or not len(ours):
        return None
    # The pages around the window may hold a request more: only means of about as many can be compared.
    if abs(count - len(ours)) > max(2, 0.2 * len(ours)):
        return "unknown", f"its page counts {count:.0f} requests in the window, the client {len(ours)}"
    server, client = 1000 * total / count, float(ours.mean())
    words = f"server {server:.1f} ms, client {client:.1f} ms on the mean"
    apart = client - server
    return ("warning" if apart > max(5.0, 0.2 * client) or apart < -max(1.0, 0.05 * client) else "ok"), words


RULES = (
    Rule(
        "gpu_throttle",
        f"no hardware or thermal slowdown; power limit in ≤ {CAPPED:.0%} of samples",
        "cool the GPU, lower its clock with `sudo nvidia-smi -lgc`, or declare a power limit with `-pl`",
        gpu_throttle,
    ),
    Rule(
        "thermal_throttle",
        "no cooling device active",
        "a lower power mode (`sudo nvpmodel -m`), the fan at full speed (`sudo jetson_clocks --fan`), a cool-down",
        thermal_throttle,
    ),
    Rule(
        "clock_below_lock",
        f"≥ {LOCKED_SHARE:.0%} of the locked GPU clock under load",
        "the board throttles although its clocks are locked: a lower power mode, or better cooling",
        clock_below_lock,
    ),
    Rule(
        "over_current",
        "no under-voltage or average over-current event",
        "a stronger supply, or a lower power mode (`sudo nvpmodel -m`)",
        over_current,
    ),
    Rule(
        "instant_over_current",
        "no instantaneous over-current event",
        "common at full power; a lower power mode avoids it",
        instant_over_current,
    ),
    Rule(
        "swap",
        "no page swapped while measuring",
        "a smaller model or cache; `sudo swapoff -a`, `sudo systemctl disable nvzramconfig` on a Jetson",
        swap,
    ),
    Rule("out_of_memory", "nothing killed", "a smaller model or cache, or fewer other programs", out_of_memory),
    Rule("foreign_gpu", "no other process on the GPU", "stop it: `nvidia-smi` lists them", foreign_gpu),
    Rule(
        "steal",
        f"≤ {STEAL:.0%} stolen, or `design.max_steal`",
        "a machine of its own, or a dedicated instance",
        steal,
    ),
    Rule(
        "foreign_cpu",
        f"≤ {FOREIGN_CPU:.0%} used by others",
        "stop other programs; on a Jetson `sudo systemctl isolate multi-user.target`",
        foreign_cpu,
    ),
    Rule(
        "steadiness",
        "TTFT neither drifts nor settles only past the middle",
        "a cool-down, a lower power mode, a longer warm-up, or fewer neighbours",
        steadiness,
    ),
    Rule(
        "client_saturation",
        f"dispatched within max(1 ms, 2 % of TTFT) at p99, ≤ {CLIENT_CORE} of a core",
        "a lower rate or fewer streams; `bench selfcheck` shows what this client can carry here",
        client_saturation,
    ),
    Rule("clocks", "no suspend, wall clock within 1 ms", "no sleep, no clock setting during a run", clocks),
    Rule(
        "tokens",
        "every answer as long as asked for",
        "an engine that honours ignore_eos and min_tokens, or `workload.ignore_eos: false`",
        tokens,
    ),
    Rule("failed_requests", "no failed request", "engine.log of the launch has the reason", failed_requests),
    Rule(
        "cache_contamination",
        "≤ 5 % of prompt tokens from a cache",
        "`enable_prefix_caching: false` among the engine's args, or `workload.unique: true`",
        cache_contamination,
    ),
    Rule("sampling", f"≥ {COVERED:.0%} of readings in time", "`bench doctor` shows what each probe can do", sampling),
    Rule("power_coverage", f"≥ {COVERED:.0%} of the window covered", "more requests per launch", power_coverage),
    Rule(
        "server_agrees",
        "client − server ≤ max(5 ms, 20 %)",
        "time goes between engine and client: a proxy, the HTTP front-end, or a busy event loop",
        server_agrees,
    ),
)
