"""What can be measured on this machine, what can't, why, and the command that changes it."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from bench.plugins import available, load
from bench.probes.context import Context, Watched
from bench.probes.machine import Machine
from bench.probes.probe import Reading
from bench.probes.roots import Roots
from bench.probes.sampler import suitable
from bench.probes.snapshots import abilities

# Probes worth naming even where they cannot run; jtop only when asked for, since its service takes over the fan.
ALWAYS = ("host", "pressure", "tree", "tree_memory", "thermal", "jetson", "nvml", "tegrastats")


# What a null means, where no command would help.
REASONS = {
    "unsupported": "this machine, its driver or its JetPack does not give it",
    "not_found": "not there",
    "no_permission": "needs other rights",
    "stale": "was there, and does not answer any more",
    "partial": "one of its parts is missing",
    "parse_failed": "answers with something that is no number",
}


@dataclass(frozen=True, slots=True)
class Quantity:
    """One quantity: `status` is ok or the reason why it is null; `fix` the command that would help."""

    probe: str
    field: str
    status: str
    value: float | None
    unit: str
    doc: str
    scope: str | None = None
    fix: str | None = None


@dataclass(frozen=True, slots=True)
class Advice:
    """A state of the machine that costs repeatability, and the command that changes it."""

    what: str
    found: str
    fix: str


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """All of it."""

    host_class: str
    banner: str | None
    fingerprint: dict[str, Any]
    findings: tuple[Quantity, ...]
    advice: tuple[Advice, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def examine(machine: Machine, *, jtop: bool = False) -> Diagnosis:
    """Read every probe once, this process standing in for an engine."""
    names = [name for name in (*ALWAYS, *(("jtop",) if jtop else ())) if name in available("probes")]
    findings = [finding for name in names for finding in _probe(name, machine.roots)] + list(_starts(machine.roots))
    return Diagnosis(machine.host_class, machine.banner, machine.fingerprint, tuple(findings), tuple(advise(machine)))


def _probe(name: str, roots: Roots) -> Iterator[Quantity]:
    fitting = suitable(roots)
    if name in ("jetson", "nvml") and name not in fitting:
        yield Quantity(name, "*", "not_found", None, "", _absent(name, roots), fix=None)
        return
    try:
        probe = load("probes", name)(Context(roots, Watched(engine=os.getpid(), harness=(os.getppid(),))))
    except Exception as error:
        yield Quantity(
            name, "*", "not_found", None, "", f"{type(error).__name__}: {error}", fix=_driver_fix(name, error)
        )
        return
    hint = getattr(probe, "hint", lambda field, reason: None)
    readings = probe.read() or _again(probe)
    for info in probe.fields:
        reading = readings.get(info.field, Reading.null("not_found"))
        status = reading.reason or "ok"
        fix = hint(info.field, status) if reading.value is None else None
        yield Quantity(name, info.field, status, reading.value, info.unit, info.doc, info.scope, fix)
    close = getattr(probe, "close", None)
    if close is not None:
        close()


def _starts(roots: Roots) -> Iterator[Quantity]:
    """How an engine could be restored here; a release's number is the value where it works."""
    for one in abilities(roots):
        fix = " — ".join(part for part in (one.words, one.fix) if part) or None
        version = float(".".join(one.version.split(".")[:2])) if one.there and one.version else None
        yield Quantity("restore", one.name, one.reason or "ok", version, "1", one.words, None, fix)


def _again(probe: Any) -> Any:
    time.sleep(min(1.0, probe.period_s))
    return probe.read()


def _absent(name: str, roots: Roots) -> str:
    if name == "jetson":
        return "not a Jetson: no /sys/class/devfreq"
    from bench.probes.boards import is_orin

    if is_orin(roots):
        return "NVML starts on Orin and then supports nothing: the board's own sensors are used"
    return "no NVIDIA driver is loaded: no /proc/driver/nvidia/version"


def _driver_fix(name: str, error: Exception) -> str | None:
    words = str(error).lower()
    if name != "nvml":
        return None
    if "mismatch" in words:
        return "the driver was updated under the running kernel: sudo reboot"
    if "not found" in words:
        return (
            "install the driver's libnvidia-ml.so.1; in a container: --gpus all, or NVIDIA_DRIVER_CAPABILITIES=utility"
        )
    return "sudo modprobe nvidia"


def advise(machine: Machine) -> Iterator[Advice]:
    """What to change before figures are taken."""
    found, roots = machine.fingerprint, machine.roots
    jetson = found["jetson"]
    if jetson is not None:
        mode = jetson["power_mode"]
        if mode is None:
            yield Advice(
                "power mode", "nvpmodel does not answer", "sudo nvpmodel -q; in a container: run doctor outside"
            )
        elif not mode.startswith("MAXN"):
            yield Advice("power mode", mode, "sudo nvpmodel -m 0 for full power, or declare it: host.power_mode")
        if jetson["clocks_locked"] is False:
            yield Advice("clocks", "follow the load", "sudo jetson_clocks, or run with --apply and host.clocks: locked")
        if found["memory"]["zram"]:
            yield Advice("zram", "models may live in compressed swap", "sudo systemctl disable --now nvzramconfig")
    governor = found["cpu"]["governor"]
    if jetson is None and governor not in (None, "performance"):
        yield Advice("governor", governor, "sudo cpupower frequency-set -g performance")
    if found["cpu"]["hypervisor"]:
        yield Advice(
            "virtual machine", "other guests may take processor time", "watch the check `steal` of each launch"
        )
    if (roots.in_root("run/systemd/system")).is_dir() and roots.output("systemctl", "is-active", "display-manager"):
        yield Advice("desktop session", "active", "sudo systemctl isolate multi-user.target")
    if not os.access(roots.in_proc("sys/vm/drop_caches"), os.W_OK):
        yield Advice(
            "page cache",
            "can be dropped file by file only, which is advice to the kernel; the share left is recorded",
            "run as root for page_cache: drop",
        )
