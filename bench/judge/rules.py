"""The validity rules, each a few lines, and the one table that lists them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow.compute as pc

from bench.analyse.energy import COVERED, CROSS_CHECK, of_window, source_of
from bench.analyse.pace import unobserved
from bench.analyse.series import Series
from bench.analyse.steady import of_requests
from bench.judge.crowding import CONTENTION, FOREIGN, contention, device_used, foreign_cpu
from bench.judge.evidence import Evidence, Rule, Said, failed
from bench.judge.load import LOAD_RULES
from bench.record.cooling import Effect, effect
from bench.scenario.words import counted

# NVML's clock-event reasons.
HARDWARE = {0x8: "hardware slowdown", 0x20: "software thermal", 0x40: "hardware thermal", 0x80: "power brake"}
POWER_CAP = 0x4
STEAL, CAPPED = 0.01, 0.02
CLIENT_CORE = 0.7
SLEPT_MS = 1.0
LOCKED_SHARE = 0.97
BUNCHED = 0.5


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


def over_current(e: Evidence) -> Said | None:
    """The Tegra's own counters of under-voltage and average over-current events."""
    grown = {name: e.growth("thermal", f"{name}_events") for name in ("oc1", "oc2")}
    if not any(len(e.samples.of("thermal", f"{name}_events")) for name in grown):
        return None
    if found := {name: count for name, count in grown.items() if count}:
        words = {"oc1": "under-voltage", "oc2": "average over-current"}
        return "violated", ", ".join(f"{count:.0f} {words[name]} events" for name, count in found.items())
    return "ok", "no under-voltage, no average over-current"


def instant_over_current(e: Evidence) -> Said | None:
    """Short peaks are normal at full power on some boards: a warning with a rate."""
    count = e.growth("thermal", "oc3_events")
    if count is None or e.window is None:
        return None
    rate = count / ((e.window[1] - e.window[0]) / 1e9)
    return ("warning", f"{rate:.1f} events/s") if count else ("ok", "no event")


def swap(e: Evidence) -> Said | None:
    """Pages went to swap or came from it while measuring."""
    moved = [e.growth("pressure", name) for name in ("swap_in_pages", "swap_out_pages")]
    if None in moved:
        return "unknown", "swap counters were not recorded"
    pages = sum(count or 0.0 for count in moved)
    return ("violated", f"{pages:.0f} pages while measuring") if pages else ("ok", "no page moved")


def out_of_memory(e: Evidence) -> Said | None:
    """The kernel killed something for want of memory, at any time of the launch."""
    kills = e.samples.of("pressure", "oom_kills").grown()
    if kills is None:
        return None
    return ("violated", f"{kills:.0f} processes killed by the kernel") if kills else ("ok", "none killed")


def foreign_gpu(e: Evidence) -> Said | None:
    """Somebody else's processes on the GPU."""
    counts = [e.during("nvml", name) for name in e.samples.matching("nvml", end=".foreign_processes")]
    if not counts:
        return None
    known = [series for series in counts if len(series)]
    if not known:
        return "unknown", f"the driver does not list processes ({counts[0].why})"
    most = max(float(series.value.max()) for series in known)
    return ("violated", f"{most:.0f} other processes") if most else ("ok", "none")


def steal(e: Evidence) -> Said | None:
    """The hypervisor gave this machine's processors to others."""
    parts = {name: e.growth("host", name) for name in ("cpu_busy_s", "cpu_idle_s", "cpu_iowait_s", "cpu_steal_s")}
    if None in parts.values():
        return "unknown", "processor time was not recorded"
    total = sum(part or 0.0 for part in parts.values())
    share = (parts["cpu_steal_s"] or 0.0) / total if total else 0.0
    allowed = e.design.get("max_steal", STEAL)
    words = f"{share:.2%} of processor time" + (f", the scenario allows {allowed:.0%}" if allowed != STEAL else "")
    return ("violated" if share > allowed else "ok"), words


def steadiness(e: Evidence) -> Said | None:
    """Answers that came later and later, or settled only past the middle: no median stands for such a launch."""
    seen = of_requests(e.requests)
    if seen.kind == "too short":
        return None
    moved = seen.drift or seen.change or 0.0
    if seen.kind in ("slowdown", "not steady"):
        return "warning", f"{seen.kind}: TTFT changed by {moved:+.1%} over {counted(seen.n, 'request')}"
    return "ok", f"{seen.kind}: steady from request {(seen.first or 0) + 1} on of {seen.n}"


def client_saturation(e: Evidence) -> Said | None:
    """The load generator itself was the bottleneck."""
    if e.window is None:
        return None
    used = e.rate("tree", "harness_cpu_s")
    delays = e.steady["client_delay_ms"].drop_null().to_numpy()
    ttft = e.steady["ttft_ms"].drop_null().to_numpy()
    limit = max(1.0, 0.02 * float(np.median(ttft))) if len(ttft) else 1.0
    words, status = [], "ok"
    # In a closed loop a request is meant to be sent when it is sent; an open one shows a client that falls behind.
    if len(delays):
        late = float(np.quantile(delays, 0.99))
        words.append(f"dispatched {late:.2f} ms late at p99, limit {limit:.1f}")
        held = e.steady["cap_delay_ms"].drop_null().to_numpy()
        if len(held) and (most := float(held.max())) > limit:
            words.append(f"max_in_flight held requests back by up to {most:.0f} ms, which is not the client's delay")
        status = "violated" if late > limit else status
    if used is not None:
        words.append(f"harness used {used:.2f} of a core")
        status = "violated" if used > CLIENT_CORE else status
    if not words:
        return "unknown", "neither dispatch delays nor the harness's processor time were recorded"
    return ("violated" if status == "violated" else "ok"), "; ".join(words)


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


def _span(series: Series) -> float:
    return float(series.value.max() - series.value.min())


def tokens(e: Evidence) -> Said | None:
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


def pace(e: Evidence) -> Said | None:
    """The answers came token by token, so that their pace could be seen."""
    done = e.steady.filter(e.steady["ok"])
    if not len(done):
        return None
    words = [f"{n} of {len(done)}: {why}" for why, n in unobserved(done["pace_reason"].to_pylist()).items()]
    # The end of a stream comes in up to three events more, often with the last token's read.
    chunks = done["chunks"].to_numpy()
    bunched = int(np.sum((chunks > 1) & (done["coalesced"].to_numpy() - 3 > BUNCHED * chunks)))
    if bunched:
        words.append(f"{bunched} of {len(done)} came in bunches: gaps between their tokens are those of the way here")
    return ("warning", "; ".join(words)) if words else ("ok", f"{len(done)} answers, token by token")


def counts(e: Evidence) -> Said | None:
    """What the server counted can be true beside what was seen."""
    done = e.steady.filter(e.steady["ok"])
    wrong = Counter(reason for reason in done["count_reason"].to_pylist() if reason)
    if not len(done):
        return None
    if not wrong:
        return "ok", "no count contradicts what was seen"
    return "warning", "; ".join(f"{n} of {len(done)}: {why}" for why, n in wrong.most_common(3))


def failed_requests(e: Evidence) -> Said | None:
    """A request that fails is a result, and not one of latency."""
    if not len(e.steady):
        return None
    bad = list(failed(e))
    return ("violated", ", ".join(bad)) if bad else ("ok", f"all {len(e.steady)} succeeded")


def cache_contamination(e: Evidence) -> Said | None:
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
    words = f"{source} {cached:.0f} of {prompt:.0f} prompt tokens cached ({cached / prompt:.1%})"
    if shared := _shared_prefix(e) * len(done):
        words += f", of {shared} that the scenario's shared prefix makes alike"
    # What prompts were declared to have in common may come from a cache; anything beyond it was to be new.
    beyond = max(0.0, cached - shared)
    return ("violated" if beyond / prompt > 0.05 else "warning" if beyond else "ok"), words


def _shared_prefix(e: Evidence) -> int:
    """Tokens that the scenario has prompts begin with alike."""
    prompts = e.workload.get("prompts")
    shared = prompts.get("shared_prefix") if isinstance(prompts, dict) else None
    tokens = shared.get("tokens") if isinstance(shared, dict) else None
    return tokens if isinstance(tokens, int) else 0


def sampling(e: Evidence) -> Said | None:
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


def server_agrees(e: Evidence) -> Said | None:
    """The server's own mean TTFT against ours: its clock starts later and stops earlier, by milliseconds."""
    total, count = e.growth("engine", "ttft_sum_s"), e.growth("engine", "ttft_count")
    ours = e.steady.filter(e.steady["ok"])["ttft_ms"].drop_null().to_numpy()
    if total is None or not count or not len(ours):
        return None
    # The pages around the window may hold a request more: only means of about as many can be compared.
    if abs(count - len(ours)) > max(2, 0.2 * len(ours)):
        return "unknown", f"its page counts {counted(round(count), 'request')} in the window, the client {len(ours)}"
    server, client = 1000 * total / count, float(ours.mean())
    words = f"server {server:.1f} ms, client {client:.1f} ms on the mean"
    apart = client - server
    return ("warning" if apart > max(5.0, 0.2 * client) or apart < -max(1.0, 0.05 * client) else "ok"), words


RULES = (
    *LOAD_RULES,
    Rule(
        "gpu_throttle",
        f"no hardware or thermal slowdown; power limit in ≤ {CAPPED:.0%} of samples",
        "cool the GPU, lower its clock with `sudo nvidia-smi -lgc`, or declare a power limit with `-pl`",
        gpu_throttle,
    ),
    Rule(
        "thermal_throttle",
        "no cooling device that slows a processor or the GPU at work",
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
        f"≤ {FOREIGN:.0%} used by others, or `design.max_contention`",
        "stop other programs; on a Jetson `sudo systemctl isolate multi-user.target`",
        foreign_cpu,
    ),
    Rule(
        "contention",
        f"≤ {CONTENTION:.0%} of the engine's time spent waiting for others, or `design.max_contention`",
        "stop other programs (`top` lists them), or give the engine processors of its own (`taskset`, a cpuset)",
        contention,
    ),
    Rule(
        "device_used",
        "computed on the GPU that was asked for, or that is there",
        "a build for this GPU (`python -c 'import torch; print(torch.cuda.is_available())'`), or ask for `device: cpu`",
        device_used,
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
    Rule("clocks", "wall clock within 1 ms", "no clock setting during a run", clocks),
    Rule(
        "stopped",
        "no process stopped or frozen, no suspend",
        "no Ctrl-Z, SIGSTOP, `docker pause` or closed lid during a run (`systemd-inhibit bench run …` keeps it awake)",
        stopped,
    ),
    Rule(
        "tokens",
        "every answer as long as asked for",
        "an engine that honours ignore_eos and min_tokens, or `workload.ignore_eos: false`",
        tokens,
    ),
    Rule(
        "pace",
        "every answer came token by token",
        "no proxy that buffers; a smaller stream interval; `stream_options: {continuous_usage_stats: true}` where the "
        "server knows it",
        pace,
    ),
    Rule("counts", "no count contradicts what was seen", "a server or proxy that counts its tokens right", counts),
    Rule("failed_requests", "no failed request", "engine.log of the launch has the reason", failed_requests),
    Rule(
        "cache_contamination",
        "≤ 5 % of prompt tokens from a cache beyond a declared shared prefix",
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
