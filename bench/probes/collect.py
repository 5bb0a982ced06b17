"""Pack what a machine shows of itself, so that its owner can send it: raw sensor files, tool output, diagnosis.

The files lie in the archive as they lie on the machine, below sys/, proc/ and root/: unpacked, they are roots that
every probe can read. Serial numbers, names, addresses and ids are not packed, and texts are scrubbed of them.
"""

from __future__ import annotations

import getpass
import io
import json
import re
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path

from bench.probes.doctor import Diagnosis
from bench.probes.listener import Listener
from bench.probes.roots import Roots, reason

SYS = (
    "class/hwmon/hwmon*/name",
    "class/hwmon/hwmon*/label",
    "class/hwmon/hwmon*/in*_label",
    "class/hwmon/hwmon*/in*_input",
    "class/hwmon/hwmon*/curr*_*",
    "class/hwmon/hwmon*/power*_*",
    "class/hwmon/hwmon*/oc*_*",
    "class/hwmon/hwmon*/temp1_input",
    "class/hwmon/hwmon*/pwm1",
    "class/hwmon/hwmon*/rpm",
    "class/hwmon/hwmon*/fan1_input",
    "class/hwmon/hwmon*/update_interval",
    "class/hwmon/hwmon*/samples",
    "class/devfreq/*/*_freq",
    "class/devfreq/*/governor",
    "class/devfreq/*/available_frequencies",
    "class/devfreq/*/device/load",
    "class/thermal/thermal_zone*/type",
    "class/thermal/thermal_zone*/temp",
    "class/thermal/thermal_zone*/trip_point_*_temp",
    "class/thermal/cooling_device*/*_state",
    "class/thermal/cooling_device*/type",
    "bus/i2c/drivers/ina3221x/*/iio:device*/rail_name_*",
    "bus/i2c/drivers/ina3221x/*/iio:device*/in_*_input",
    "devices/system/cpu/cpu[0-9]*/topology/core_id",
    "devices/system/cpu/cpu[0-9]*/topology/physical_package_id",
    "devices/system/cpu/cpu[0-9]*/cpufreq/scaling_*",
    "devices/system/cpu/cpufreq/policy*/scaling_*",
    "devices/platform/gpu.0/load",
    "devices/platform/17000000.gpu/load",
    "devices/platform/bus@0/17000000.gpu/load",
    "devices/gpu.0/load",
    "devices/17000000.ga10b/load",
    "block/zram*/mm_stat",
    "kernel/nvpmodel_clk_cap/*",
    "kernel/debug/bpmp/debug/clk/emc/rate",
)
PROC = (
    "meminfo",
    "swaps",
    "cpuinfo",
    "device-tree/model",
    "device-tree/compatible",
    "driver/nvidia/version",
    "sys/kernel/osrelease",
    "sys/vm/swappiness",
)
ROOT = ("etc/nv_tegra_release", "etc/nvpmodel.conf", "etc/os-release", "usr/local/cuda/version.json")
TOOLS = (
    ("nvpmodel", "-q"),
    ("nvpmodel", "-p", "--verbose"),
    ("jetson_clocks", "--show"),
    ("nvidia-smi", "-q"),
    ("dmesg",),
)
LOG_WORDS = re.compile(r"(?i)nvgpu|nvrm|thermal|throttl|over.?current|soctherm|ina3221|ina238|out of memory|oom")

_SCRUBBED = (
    (re.compile(r"(?im)^(.*(?:serial|uuid|asset|product id|device identity|gpu part number).*?[:=]).*$"), r"\1 -"),
    (re.compile(r"(?i)\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b"), "-"),
    (re.compile(r"(?i)\b(?:[0-9a-f]{2}:){5}[0-9a-f]{2}\b"), "-"),
    (re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}\b"), "-"),
    (re.compile(r"/(?:home|Users)/[^/\s]+"), "/home/-"),
)


def scrub(words: str) -> str:
    """Without serial numbers, ids, addresses, user and host names."""
    for pattern, instead in _SCRUBBED:
        words = pattern.sub(instead, words)
    for name in (socket.gethostname(), getpass.getuser()):
        # A name like `root` or `pi` is no secret, and part of other words.
        if len(name) > 4:
            words = re.sub(rf"\b{re.escape(name)}\b", "-", words)
    return words


def collect(roots: Roots, diagnosis: Diagnosis, archive: Path) -> list[str]:
    """Write the archive (tar.gz); the names of what is in it."""
    names: list[str] = []
    unreadable: dict[str, str] = {}
    with tarfile.open(archive, "w:gz") as tar:

        def add(name: str, content: bytes) -> None:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o644
            tar.addfile(info, io.BytesIO(content))
            names.append(name)

        for name, path in _files(roots):
            try:
                add(
                    name, scrub(path.read_bytes().decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
                )
            except OSError as error:
                # A zone that is powered off answers so: that is a fact about the board too.
                unreadable[name] = reason(error)
        for command in TOOLS:
            if (said := roots.output(*command)) is not None:
                kept = "\n".join(filter(LOG_WORDS.search, said.splitlines())) if command == ("dmesg",) else said
                add(f"tools/{'_'.join(command)}.txt", scrub(kept).encode())
        if lines := _tegrastats(roots):
            add("tools/tegrastats.txt", scrub("\n".join(lines) + "\n").encode())
        add("unreadable.json", json.dumps(unreadable, indent=1).encode())
        add("doctor.json", json.dumps(diagnosis.to_json(), indent=1).encode())
    return names


def _files(roots: Roots) -> Iterator[tuple[str, Path]]:
    for kind, base, patterns in (
        ("sys", roots.in_sys(), SYS),
        ("proc", roots.in_proc(), PROC),
        ("root", roots.in_root(), ROOT),
    ):
        seen = set()
        for pattern in patterns:
            for path in sorted(base.glob(pattern)):
                if path.is_file() and path not in seen:
                    seen.add(path)
                    yield f"{kind}/{path.relative_to(base)}", path


def _tegrastats(roots: Roots, count: int = 5) -> list[str]:
    program = roots.which("tegrastats")
    if program is None:
        return []
    lines = Listener([program, "--interval", "500"])
    found: list[str] = []
    try:
        for _ in range(20 * count):
            lines.first(2.0)
            latest = lines.latest()
            if latest is not None and latest.number > len(found):
                found.append(latest.text)
            if latest is None or len(found) >= count:
                break
            lines.wait(0.1)
    finally:
        lines.close()
    return found
