"""Which machine a run was taken on, as far as its figures may be set beside another's."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# The parts of a fingerprint that change what a machine can do; the rest (the client's own check) varies by the run.
STATE = {
    "host_class": None,
    "emulated": None,
    "architecture": None,
    "cpu": ("model", "threads", "governor", "boost"),
    "memory": ("total_mib", "swap_mib", "zram"),
    "gpus": None,
    "jetson": ("part", "l4t", "power_mode", "clocks_locked"),
    "system": ("kernel", "cpu_quota"),
}


def host_class(fingerprint: Mapping[str, Any]) -> str:
    """The host's class, as `bench doctor` prints it; `unknown` where none was recorded."""
    return str(fingerprint.get("host_class") or "unknown")


def state(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a fingerprint that must be equal for two sessions to be alike, flat: `jetson.power_mode`: `MAXN`."""
    flat: dict[str, Any] = {}
    for key, parts in STATE.items():
        value = fingerprint.get(key)
        if parts is None:
            flat[key] = value
        elif isinstance(value, Mapping):
            flat |= {f"{key}.{part}": value.get(part) for part in parts}
    # A load from elsewhere has a network in it. Where it comes from this machine, nothing is said, as ever.
    if clients := fingerprint.get("clients"):
        flat["clients"] = f"{len(clients)} on other hosts"
    return flat


def differences(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """What differs between two fingerprints, each as `jetson.power_mode: MAXN and 15W`."""
    return differences_of(state(mine), state(theirs))


def differences_of(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """The same of two states."""
    keys = sorted(a.keys() | b.keys())
    return [f"{key}: {_short(a.get(key))} and {_short(b.get(key))}" for key in keys if a.get(key) != b.get(key)]


def digest(fingerprint: Mapping[str, Any]) -> str:
    """Twelve hex digits that name the machine's state."""
    text = json.dumps(state(fingerprint), sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _short(value: Any) -> str:
    text = "unknown" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
