"""What a machine is, as far as it bears on a figure; nothing that says whose it is.

No serial numbers, no user names, no host names, no addresses, no device UUIDs.
"""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

from bench.probes.boards import identify
from bench.probes.nvml import describe, unified
from bench.probes.power_mode import clocks, locked, power_mode
from bench.probes.roots import Roots, number, text


def fingerprint(roots: Roots | None = None, *, storage_of: Path | None = None) -> dict[str, Any]:
    """The machine as nested plain data; what cannot be known is None.

    `storage_of` is a path on the file system that holds the weights (the working directory by default).
    """
    roots = roots or Roots()
    jetson = _jetson(roots)
    gpus = describe(roots)
    cpu = _cpu(roots)
    return {
        "host_class": host_class(cpu, gpus, jetson, roots.emulated),
        "emulated": roots.emulated,
        "architecture": platform.machine(),
        "cpu": cpu,
        "memory": _memory(roots),
        "gpus": gpus,
        "jetson": jetson,
        "storage": _storage(roots, storage_of or Path.cwd()),
        "system": _system(roots),
    }


def host_class(
    cpu: dict[str, Any], gpus: list[dict[str, Any]], jetson: dict[str, Any] | None, emulated: str | None
) -> str:
    """The class that scenarios and baselines name: jetson-orin-nx-16gb, gpu-nvidia-h100-pcie, cpu-amd-epyc-2.

    A wanted class matches every found one that it begins (see power_mode.matches).
    """
    if jetson is not None:
        name = str(jetson["class"])
    elif gpus:
        name = f"gpu-{_slug(gpus[0]['name'])}" + (f"-x{len(gpus)}" if len(gpus) > 1 else "")
    else:
        name = f"cpu-{_slug(cpu['model'] or platform.machine())}-{cpu['threads']}"
    return f"{name}-emulated" if emulated else name


def _slug(name: str) -> str:
    name = re.sub(r"\((?:r|tm)\)|\b(?:cpu|processor|with|\d+-core)\b|@.*", " ", name.lower())
    return re.sub(r"[^a-z0-9]+", "-", name).strip("-") or "unknown"


def _cpu(roots: Roots) -> dict[str, Any]:
    info = text(roots.in_proc("cpuinfo")) or ""
    model = re.search(r"^(?:model name|Model)\s*:\s*(.+)$", info, re.MULTILINE)
    part = re.search(r"^CPU part\s*:\s*(\S+)$", info, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", info, re.MULTILINE)
    known = set((flags[1] if flags else "").split())
    base = roots.in_sys("devices/system/cpu")
    cores = {
        (text(cpu / "topology/physical_package_id"), text(cpu / "topology/core_id")) for cpu in base.glob("cpu[0-9]*")
    }
    first = base / "cpu0/cpufreq"
    return {
        "model": model[1].strip() if model else _arm_core(part[1] if part else None),
        "threads": len(os.sched_getaffinity(0)) if not roots.emulated else len(list(base.glob("cpu[0-9]*"))),
        "cores": len(cores) or None,
        "governor": text(first / "scaling_governor"),
        "driver": text(first / "scaling_driver"),
        "min_mhz": _mhz(number(first / "scaling_min_freq")),
        "max_mhz": _mhz(number(first / "scaling_max_freq")),
        "boost": {"1": True, "0": False}.get(text(base / "cpufreq/boost") or ""),
        "features": sorted(known & {"avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16", "i8mm"}),
        "hypervisor": "hypervisor" in known,
    }


def _arm_core(part: str | None) -> str | None:
    return {"0xd42": "Cortex-A78AE", "0xd83": "Neoverse-V3AE", "0x004": "Carmel"}.get(part or "")


def _mhz(khz: int | None) -> float | None:
    return khz / 1000 if khz is not None else None


def _memory(roots: Roots) -> dict[str, Any]:
    values = dict(re.findall(r"^(\w+):\s*(\d+) kB$", text(roots.in_proc("meminfo")) or "", re.MULTILINE))
    swaps = (text(roots.in_proc("swaps")) or "").splitlines()[1:]
    return {
        "total_mib": int(values["MemTotal"]) // 1024 if "MemTotal" in values else None,
        "swap_mib": int(values["SwapTotal"]) // 1024 if "SwapTotal" in values else None,
        "zram": any("zram" in line for line in swaps),
        "transparent_hugepages": _chosen(text(roots.in_sys("kernel/mm/transparent_hugepage/enabled"))),
        "unified": unified(roots),
    }


def _chosen(options: str | None) -> str | None:
    found = re.search(r"\[(\w+)\]", options or "")
    return found[1] if found else None


def _jetson(roots: Roots) -> dict[str, Any] | None:
    identity = identify(roots)
    if identity is None:
        return None
    mode = power_mode(roots)
    return {
        "class": identity.host_class,
        "model": identity.model,
        "part": identity.part,
        "soc": identity.soc,
        "l4t": identity.l4t,
        "jetpack": identity.jetpack,
        "power_mode": mode.name if mode else None,
        "clocks": clocks(roots),
        "clocks_locked": locked(roots),
        "power_scope": identity.board.scope if identity.board else None,
        "cuda": _cuda(roots),
    }


def _cuda(roots: Roots) -> str | None:
    found = re.search(
        r'"cuda"\s*:\s*{[^}]*"version"\s*:\s*"([^"]+)"', text(roots.in_root("usr/local/cuda/version.json")) or ""
    )
    return found[1] if found else None


def _storage(roots: Roots, path: Path) -> dict[str, Any]:
    """The device below the file system of `path`: type, transport, whether it rotates, and its read-ahead."""
    path = path.resolve()
    mounts = [line.split(" ") for line in (text(Path(roots.tasks, "mounts")) or "").splitlines()]
    below = [entry for entry in mounts if len(entry) > 2 and _within(path, entry[1])]
    device, kind = max(((e[0], e[2], len(e[1])) for e in below), key=lambda e: e[2])[:2] if below else (None, None)
    block = _block(roots, Path(device).name if device and device.startswith("/dev/") else _root_disk(path))
    queue = block / "queue" if block else None
    name = block.name if block else None
    return {
        "filesystem": kind,
        "device": name,
        "transport": _transport(name),
        "rotational": {1: True, 0: False}.get(number(queue / "rotational") or 0) if queue else None,
        "scheduler": _chosen(text(queue / "scheduler")) if queue else None,
        "read_ahead_kib": number(queue / "read_ahead_kb") if queue else None,
    }


def _within(path: Path, mount: str) -> bool:
    return path.is_relative_to(mount.replace("\\040", " "))


def _root_disk(path: Path) -> str | None:
    """The kernel's name for the device number of a path: /dev/root and overlays have no usable one in mounts."""
    number_ = path.stat().st_dev
    link = Path(f"/sys/dev/block/{os.major(number_)}:{os.minor(number_)}")
    return link.resolve().name if link.exists() else None


def _block(roots: Roots, name: str | None) -> Path | None:
    """The whole disk that a partition lies on."""
    if not name:
        return None
    base = roots.in_sys("class/block", name)
    if not base.exists() and not (base := Path("/sys/class/block", name)).exists():
        return None
    real = base.resolve()
    return real if (real / "queue").is_dir() else real.parent if (real.parent / "queue").is_dir() else None


def _transport(name: str | None) -> str | None:
    table = {"nvme": "nvme", "mmcblk": "mmc", "vd": "virtio", "sd": "scsi", "md": "raid", "dm-": "mapper"}
    return next((kind for prefix, kind in table.items() if name and name.startswith(prefix)), None)


def _system(roots: Roots) -> dict[str, Any]:
    release = text(roots.in_root("etc/os-release")) or ""
    name = re.search(r'^PRETTY_NAME="?([^"\n]+)', release, re.MULTILINE)
    quota = (text(roots.in_sys("fs/cgroup/cpu.max")) or "").split()
    return {
        "kernel": text(roots.in_proc("sys/kernel/osrelease")) or platform.release(),
        "os": name[1] if name else None,
        "libc": " ".join(platform.libc_ver()) or None,
        "python": platform.python_version(),
        "clocksource": text(Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")),
        "swappiness": number(roots.in_proc("sys/vm/swappiness")),
        "container": Path("/.dockerenv").exists() or Path("/run/.containerenv").exists(),
        "cpu_quota": int(quota[0]) / int(quota[1]) if len(quota) == 2 and quota[0].isdigit() else None,
        "page_size": os.sysconf("SC_PAGE_SIZE"),
    }
