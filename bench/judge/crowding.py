"""The rules about neighbours on the processor, and about the device that the engine computed on."""

from __future__ import annotations

from bench.analyse.crowd import TOO_SHORT
from bench.analyse.neighbours import Neighbours, Share, neighbours
from bench.judge.evidence import Evidence, Said
from bench.record.schema import CheckStatus

# Shares of the whole window, and of its worst second: a burst that slows a tenth of the requests is small on average.
FOREIGN, FOREIGN_BURST = 0.05, 0.25
CONTENTION, CONTENTION_BURST = 0.05, 0.20
# A thread that works for a millisecond and waits for a tenth of one loses nothing that a request could show.
LEAST_LOSS = 0.01
# Bounds this many times as wide as the limit leave nothing to say.
OPEN = 2.0


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
