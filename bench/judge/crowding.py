"""Rules about who else was on the machine, and about the device that the engine computed on."""

from __future__ import annotations

from bench.analyse.crowd import TOO_SHORT
from bench.analyse.neighbours import Neighbours, Share, neighbours
from bench.judge.evidence import Evidence, Said, rule
from bench.record.schema import CheckStatus

STEAL = 0.01
# Shares of the whole window, and of its worst second: a burst that slows a tenth of the requests is small on average.
FOREIGN, FOREIGN_BURST = 0.05, 0.25
CONTENTION, CONTENTION_BURST = 0.05, 0.20
# A thread that works for a millisecond and waits for a tenth of one loses nothing that a request could show.
LEAST_LOSS = 0.01
# Bounds this many times as wide as the limit leave nothing to say.
OPEN = 2.0


@rule(limit="no other process on the GPU", remedy="stop it: `nvidia-smi` lists them")
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


@rule(limit=f"≤ {STEAL:.0%} stolen, or `design.max_steal`", remedy="a machine of its own, or a dedicated instance")
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


@rule(
    limit=f"≤ {FOREIGN:.0%} used by others, or `design.max_contention`",
    remedy="stop other programs; on a Jetson `sudo systemctl isolate multi-user.target`",
)
def foreign_cpu(e: Evidence) -> Said | None:
    """Processor time that neither the engine nor the harness used."""
    found = _found(e)
    if isinstance(found, str):
        return "unknown", found
    limit, burst = _limits(e, FOREIGN, FOREIGN_BURST)
    words = f"{found.share} of the machine's processor time"
    if found.worst.low > burst:
        words += f", {found.worst.value:.0%} in the worst second, {found.worst_at_s:.0f} s into the window"
    if found.share.value > limit or found.worst.low > burst:
        return "warning", words
    return _settled(found.share, limit, words)


@rule(
    limit=f"≤ {CONTENTION:.0%} of the engine's time spent waiting for others, or `design.max_contention`",
    remedy="stop other programs (`top` lists them), or give the engine processors of its own (`taskset`, a cpuset)",
)
def contention(e: Evidence) -> Said | None:
    """The engine's threads waited for a processor that others had."""
    found = _found(e)
    if isinstance(found, str):
        return "unknown", found
    limit, burst = _limits(e, CONTENTION, CONTENTION_BURST)
    grave: CheckStatus = "violated" if on_processor(e) else "warning"
    if found.contention is None or found.lost_s is None:
        # Nobody can have waited for longer than others ran.
        if found.share.high <= limit:
            return "ok", f"others had {found.share} of the processors; this kernel does not say who waited for them"
        if found.share.low <= limit:
            return "unknown", f"this kernel does not say who waited, and others had {found.share} of the processors"
        return grave, f"others had {found.share} of the processors; this kernel does not say who waited for them"
    share, crowded = found.contention, found.crowded(burst)
    words = f"the engine's threads waited for others {share} of their time"
    if crowded:
        words += f", above {burst:.0%} in {crowded:.0%} of the window"
    if found.lost_s < LEAST_LOSS:
        return "ok", words
    if share.low > limit or crowded > limit:
        return grave, words
    if crowded:
        return "warning", words
    return _settled(share, limit, words)


@rule(
    limit="computed on the GPU that was asked for, or that is there",
    remedy="a build for this GPU (`python -c 'import torch; print(torch.cuda.is_available())'`), or ask for "
    "`device: cpu`",
)
def device_used(e: Evidence) -> Said | None:
    """An engine that was to compute on a GPU did so."""
    facts = e.record.facts
    asked, used = facts.get("device_asked"), facts.get("device_used")
    if facts.get("attached") or used == "none" or e.fingerprint.get("emulated"):
        return None
    if asked == "cpu" or (asked is None and not _has_gpu(e)):
        return None
    wanted = f"`{asked}` was asked for" if asked else "this machine has a GPU"
    if used is None:
        return "unknown", f"{wanted}, and the engine did not say what it computed on"
    words = f"{wanted}, and the engine computed on {used} ({facts.get('device_evidence') or 'it says so'})"
    return ("violated" if _is_processor(used) else "ok"), words


def on_processor(e: Evidence) -> bool:
    """Whether the engine computed on the processor, by its own word or because there is nothing else here."""
    used = e.record.facts.get("device_used")
    return _is_processor(used) if used else not _has_gpu(e)


def _is_processor(used: object) -> bool:
    return str(used).lower() == "cpu"


def _has_gpu(e: Evidence) -> bool:
    return bool(e.fingerprint.get("gpus") or e.fingerprint.get("jetson"))


def _found(e: Evidence) -> Neighbours | str:
    if e.record.facts.get("image"):
        return "the engine ran in a container, whose processes are not below the harness"
    if e.window is None:
        return "no steady request"
    return neighbours(e.samples, *e.window)


def _limits(e: Evidence, limit: float, burst: float) -> tuple[float, float]:
    """The rule's own limits, or what the scenario allows where that is more."""
    allowed = float(e.design.get("max_contention", limit))
    return max(limit, allowed), max(burst, allowed)


def _settled(share: Share, limit: float, words: str) -> Said:
    """Nothing was found: is that sure?"""
    return ("unknown", f"{words}; {TOO_SHORT}") if share.high > OPEN * limit else ("ok", words)
