"""Limits from evidence: what a run measured of a variant, as limits for whoever watches it being served.

A program too (`python -m bench.service.limits RUN VARIANT`): reading a run takes pandas, which a monitor that lives for
months does not carry.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import BenchError, RecordError, UsageError
from bench.service.watchlist import Bound, Limits

if TYPE_CHECKING:
    from bench.analyse.run import Run

# The alarm stands so far beyond the warning: a choice, not evidence.
ALARM = 1.5
# Memory that a service holds may exceed the most that was measured by this share before it is a warning.
MEMORY = 1.1


def from_run(folder: Path, variant: str | None) -> tuple[Limits, list[str]]:
    """Limits of a variant and where each is from, worked out in a process of its own; BenchError as there."""
    command = [sys.executable, "-m", "bench.service.limits", str(folder), *([variant] if variant else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 4:
        message, _, hint = done.stderr.strip().partition("\n  → ")
        raise UsageError(message, hint=hint or None)
    if done.returncode:
        raise RecordError(f"{folder}: its limits could not be worked out: {done.stderr.strip()[-400:]}")
    said = json.loads(done.stdout)
    return Limits.model_validate(said["limits"]), list(said["evidence"])


def of_run(run: Run, variant: str | None) -> tuple[Limits, list[str]]:
    """Limits from a run's measured requests: bounds for one more like them, and 1.5 times that as alarm.

    The latency's is the gate's (`bench ready`), the throughput's the same from below over time per token. A run does
    not measure the first token after a pause, nor how busy a service may be: those get none.
    """
    from bench.service import ready

    if variant is None and len(run.variants) != 1:
        raise UsageError(
            f"the run has {len(run.variants)} variants: {', '.join(run.variants)}", hint="name one: --variant"
        )
    name = variant or run.variants[0]
    warm = ready.of_run(run, name)
    limits = {"latency_ms": Bound(warning=warm.within_ms, alarm=ALARM * warm.within_ms)}
    evidence = [f"latency: {warm.evidence}; the alarm is {ALARM:g} times that"]
    launches = [one for one in run.all if one.record.variant == name and one.record.status == "ok"]
    rows = run.requests
    rows = rows[rows["launch"].isin([one.id for one in launches])]
    rows = rows[rows["measured"].astype(bool) & rows["ok"].astype(bool) & rows["tpot_ms"].notna()]
    if len(rows):
        slowest, level = ready.prediction_bound(rows["tpot_ms"].to_numpy(dtype=float))
        rate = 1000.0 / slowest
        limits["throughput_tokens_per_s"] = Bound(warning=rate, alarm=rate / ALARM)
        evidence.append(f"throughput: {slowest:.2f} ms a token bounds one more request with {level:.0%}")
    held = [one.record.memory.served.pss_mib for one in launches if one.record.memory.served]
    if known := [one for one in held if one is not None]:
        limits["memory_mib"] = Bound(warning=MEMORY * max(known), alarm=MEMORY * ALARM * max(known))
        evidence.append(f"memory: the most of {len(known)} launches was {max(known):.0f} MiB, and a tenth is added")
    return Limits(**limits), evidence


def main() -> int:
    """Print limits and evidence as JSON."""
    from bench.analyse.run import Run

    try:
        limits, evidence = of_run(Run.open(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None)
    except BenchError as error:
        print(error, file=sys.stderr)
        return 4
    print(json.dumps({"limits": limits.model_dump(exclude_none=True), "evidence": evidence}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
