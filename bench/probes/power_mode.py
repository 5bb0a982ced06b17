"""A Jetson's power mode and clocks: read always, set only when asked, put back always."""

from __future__ import annotations

import re
import shlex
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.errors import UsageError
from bench.probes.roots import Roots, number
from bench.record.launches import Check
from bench.scenario.model import Host


@dataclass(frozen=True, slots=True)
class PowerMode:
    """What `nvpmodel -q` says."""

    name: str
    number: int | None


def power_mode(roots: Roots) -> PowerMode | None:
    """The mode in force; None without nvpmodel or without an answer."""
    printed = roots.output("nvpmodel", "-q")
    found = re.search(r"NV Power Mode:[ \t]*(\S+)[ \t]*(?:\n\s*(\d+))?", printed or "")
    return PowerMode(found[1], int(found[2]) if found[2] else None) if found else None


def clocks(roots: Roots) -> dict[str, bool]:
    """Per clock domain, whether it is pinned: its lowest allowed frequency is its highest."""
    pinned: dict[str, bool] = {}
    policies = sorted(roots.in_sys("devices/system/cpu/cpufreq").glob("policy*"))
    if not policies:
        policies = sorted(roots.in_sys("devices/system/cpu").glob("cpu[0-9]*/cpufreq"))
    pairs = [(number(folder / "scaling_min_freq"), number(folder / "scaling_max_freq")) for folder in policies]
    if known := [low == high for low, high in pairs if low is not None and high is not None]:
        pinned["cpu"] = all(known)
    gpus = [
        (number(folder / "min_freq"), number(folder / "max_freq"))
        for folder in sorted(roots.in_sys("class/devfreq").glob("*"))
        if is_gpu(folder.name)
    ]
    if known := [low == high for low, high in gpus if low is not None and high is not None]:
        pinned["gpu"] = all(known)
    return pinned


def locked(roots: Roots) -> bool | None:
    """Whether every clock domain that can be read is pinned; None if none can."""
    domains = clocks(roots)
    return all(domains.values()) if domains else None


def is_gpu(name: str) -> bool:
    """Whether a devfreq node is the GPU: 17000000.gpu, 17000000.ga10b, gpu-gpc-0, 57000000.gpu."""
    return bool(re.search(r"(^|[.])(gpu|ga10b|gv11b|gp10b|gm20b)|^gpu-gpc-\d+$", name))


def modes(roots: Roots) -> dict[str, int]:
    """The power modes this board has, by name."""
    printed = roots.output("nvpmodel", "-p", "--verbose") or ""
    return {name: int(number_) for number_, name in re.findall(r"POWER_MODEL: ID=(\d+) NAME=(\S+)", printed)}


def verify(host: Host, found: dict[str, Any]) -> list[Check]:
    """Whether a fingerprint is what the scenario declares: host class, power mode, clocks."""
    checks = []
    wanted, name = host.class_, str(found["host_class"])
    if wanted != "any":
        checks.append(
            _check("host_class", matches(name, wanted), name, wanted, "run it there, or with --emulate on this machine")
        )
    jetson = found["jetson"] or {}
    if host.power_mode != "any":
        mode = jetson.get("power_mode")
        remedy = f"run with --apply, or: sudo nvpmodel -m <number of {host.power_mode}> (`nvpmodel -p --verbose`)"
        holds = None if mode is None else mode == host.power_mode
        checks.append(_check("power_mode", holds, mode or "no nvpmodel answers", host.power_mode, remedy))
    if host.clocks != "any":
        pinned = jetson.get("clocks_locked")
        remedy = (
            "run with --apply, or: sudo jetson_clocks" if host.clocks == "locked" else "sudo jetson_clocks --restore"
        )
        holds = None if pinned is None else pinned == (host.clocks == "locked")
        words = {True: "locked", False: "unlocked", None: "no clock can be read"}[pinned]
        checks.append(_check("clocks", holds, words, host.clocks, remedy))
    return checks


def matches(found: str, wanted: str) -> bool:
    """Whether a host of class `found` is of the class a scenario wants; whole words count from the left."""
    return wanted == "any" or found == wanted or found.startswith(f"{wanted}-")


def _check(name: str, holds: bool | None, found: str, wanted: str, remedy: str) -> Check:
    status = {True: "ok", False: "violated", None: "unknown"}[holds]
    return Check(name, status, found, wanted, None if holds else remedy)  # type: ignore[arg-type]  # one of the three


@contextmanager
def applied(host: Host, roots: Roots) -> Iterator[list[str]]:
    """Set the declared power mode and clocks, and put both back at the end, whatever the end is.

    The old state is put back by a shell of its own that waits for this process to let go of a pipe: it does so when
    the context ends, and also when this process is killed. Yields what was changed, in words. UsageError if a mode
    does not exist here or may not be set.
    """
    before, changed, undo = power_mode(roots), [], []
    commands: list[list[str]] = []
    if host.power_mode != "any" and (before is None or before.name != host.power_mode):
        known = modes(roots)
        if before is None or before.number is None or host.power_mode not in known:
            raise UsageError(
                f"this machine has no power mode {host.power_mode!r}",
                hint=f"it has {', '.join(known) or 'no nvpmodel at all'}; `bench doctor` tells what it is",
            )
        commands.append([_program(roots, "nvpmodel"), "-m", str(known[host.power_mode])])
        undo.append([commands[-1][0], "-m", str(before.number)])
        changed.append(f"power mode {before.name} → {host.power_mode}")
    if host.clocks == "locked" and not locked(roots):
        program = _program(roots, "jetson_clocks")
        store = Path(tempfile.mkdtemp(prefix="bench-clocks-")) / "stored"
        commands += [[program, "--store", str(store)], [program]]
        # The stored clocks belong to the mode in which they were stored.
        undo = [[program, "--restore", str(store)], *undo, ["rm", "-r", str(store.parent)]]
        changed.append("clocks locked at their maximum")
    if not commands:
        yield changed
        return
    guard = subprocess.Popen(
        ["/bin/sh", "-c", f"cat >/dev/null; {'; '.join(shlex.join(command) for command in undo)}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        for command in commands:
            _run(command)
        yield changed
    finally:
        guard.communicate()


def _program(roots: Roots, name: str) -> str:
    program = roots.which(name)
    if program is None:
        raise UsageError(
            f"{name} is not on this machine", hint="only a Jetson has power modes; set `host: {class: any}`"
        )
    return program


def _run(command: list[str]) -> None:
    # nvpmodel asks whether it may reboot for some modes; no answer means no.
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=60, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise UsageError(
            f"`{shlex.join(command)}` failed: {said[-1] if said else f'exit status {done.returncode}'}",
            hint="it needs root: sudo -E env PATH=$PATH bench run … --apply",
        )
