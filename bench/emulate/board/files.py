"""The files of an emulated board, and writing them so that a reader never sees half a number."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from bench.emulate.board.catalogue import CATALOGUE, Channel, EmulatedBoard

_TEGRASTATS = """#!/bin/sh
# Prints the emulated board's line every --interval milliseconds.
interval=1000
while [ $# -gt 0 ]; do
  case "$1" in --interval) interval=$2; shift ;; esac
  shift
done
seconds=$(awk "BEGIN { print $interval / 1000 }")
while :; do
  if [ -s "@state@/tegrastats.line" ]; then cat "@state@/tegrastats.line"; fi
  sleep "$seconds"
done
"""

_NVPMODEL = """#!/bin/sh
# -q: the mode in force; -m N: another one; -p --verbose: which there are.
set -- $*
case "$1" in
  -q) mode=$(cat "@state@/mode" | tr -d ' '); printf 'NV Power Mode: '; @names@; echo "$mode" ;;
  -m) echo "$2" > "@state@/mode.$$" && mv "@state@/mode.$$" "@state@/mode" ;;
  -p) @list@ ;;
esac
"""

_JETSON_CLOCKS = """#!/bin/sh
# --store FILE, --restore FILE, --show, or none of them: lock every clock at its maximum.
pairs="@pairs@"
case "$1" in
  --store) for low in $pairs; do echo "$low $(cat "$low")"; done > "$2" ;;
  --restore) while read -r low value; do printf '%-15s\\n' "$value" > "$low"; done < "$2" ;;
  --show) for low in $pairs; do echo "$low $(cat "$low")"; done ;;
  *) for low in $pairs; do
       high=$(echo "$low" | sed 's/min_freq/max_freq/'); printf '%-15s\\n' "$(tr -d ' ' < "$high")" > "$low"
     done ;;
esac
"""


def tools(model: EmulatedBoard, folder: Path) -> dict[str, str]:
    """Each program's text by its name."""
    state, sys = folder / "state", folder / "sys"
    branches = " ".join(f"{number}) echo {name} ;;" for number, name in enumerate(model.modes))
    lows = [sys / f"devices/system/cpu/cpufreq/policy{first}/scaling_min_freq" for first in range(0, model.cores, 4)]
    lows.append(sys / "devices" / model.gpu_device / "devfreq" / model.gpu_node / "min_freq")
    fill = {
        "state": str(state),
        "names": f'case "$mode" in {branches} esac',
        "list": "; ".join(f'echo "POWER_MODEL: ID={number} NAME={name}"' for number, name in enumerate(model.modes)),
        "pairs": " ".join(str(low) for low in lows),
    }
    scripts = {"tegrastats": _TEGRASTATS, "nvpmodel": _NVPMODEL, "jetson_clocks": _JETSON_CLOCKS}
    for key, value in fill.items():
        scripts = {name: script.replace(f"@{key}@", value) for name, script in scripts.items()}
    return scripts


WIDTH = 15


def put(path: Path, value: object) -> None:
    """A value in place: always as many bytes, so that what is read is the old number or the new one."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    try:
        os.pwrite(fd, f"{value}".ljust(WIDTH).encode() + b"\n", 0)
    finally:
        os.close(fd)


def get(path: Path) -> int:
    """The number that a file holds; 0 while it holds none."""
    try:
        return int(path.read_bytes())
    except (OSError, ValueError):
        return 0


def write(path: Path, content: str) -> None:
    """A whole text file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def chip_folders(model: EmulatedBoard, sys: Path) -> dict[str, Path]:
    """Where each monitor chip of the board lives."""
    chips = list(dict.fromkeys(rail.chip for rail in model.rails))
    if model.iio:
        return {chip: sys / f"bus/i2c/drivers/ina3221x/7-00{chip[-2:]}/iio:device{i}" for i, chip in enumerate(chips)}
    # hwmon numbers change between boots: the monitors do not come first here.
    return {chip: sys / f"class/hwmon/hwmon{index + 3}" for index, chip in enumerate(chips)}


def rail_files(model: EmulatedBoard, sys: Path) -> list[tuple[Channel, Path, Path | None]]:
    """Per rail, its voltage (or power) file and its current file."""
    files: list[tuple[Channel, Path, Path | None]] = []
    folders, counts = chip_folders(model, sys), dict.fromkeys((rail.chip for rail in model.rails), 0)
    for rail in model.rails:
        counts[rail.chip] += 1
        folder, number = folders[rail.chip], counts[rail.chip]
        if model.iio:
            files.append((rail, folder / f"in_power{number - 1}_input", None))
        elif rail.chip.startswith("ina238"):
            files.append((rail, folder / "power1_input", None))
        else:
            files.append((rail, folder / f"in{number}_input", folder / f"curr{number}_input"))
    return files


def build(folder: Path, model: EmulatedBoard, *, privileged: bool = False) -> dict[str, str]:
    """Write the board into `folder` at idle, and say where everything is: the fields of probes.roots.Roots.

    `privileged` adds what only root sees.
    """
    sys, proc, root, tools_folder = (folder / name for name in ("sys", "proc", "root", "bin"))
    _identity(model, proc, root)
    _monitors(model, sys)
    _gpu(model, sys)
    _heat(model, sys)
    _processors(model, sys)
    cap = sys / "kernel/nvpmodel_clk_cap/emc"
    write(cap, f"{model.emc_hz}\n")
    if privileged:
        write(sys / "kernel/debug/bpmp/debug/clk/emc/rate", f"{model.emc_hz}\n")
    if model.swap_mib:
        write(sys / "block/zram0/mm_stat", "0 0 0 0 0 0 0 0\n")
    write(folder / "state/mode", "0\n")
    write(folder / "state/tegrastats.line", "")
    for name, script in tools(model, folder).items():
        write(tools_folder / name, script)
        (tools_folder / name).chmod(stat.S_IRWXU)
    return {
        "sys": str(sys),
        "proc": str(proc),
        "root": str(root),
        "path": str(tools_folder),
        "nvml": model.nvml,
        "emulated": next(name for name, known in CATALOGUE.items() if known == model),
    }


def _identity(model: EmulatedBoard, proc: Path, root: Path) -> None:
    write(proc / "device-tree/model", f"{model.title}\0")
    write(proc / "device-tree/compatible", f"{model.compatible}\0")
    major, _, minor = model.l4t.partition(".")
    release = f"# R{major} (release), REVISION: {minor}, GCID: 0, BOARD: generic, EABI: aarch64, DATE: emulated\n"
    write(root / "etc/nv_tegra_release", release)
    write(root / "etc/os-release", f'PRETTY_NAME="Ubuntu (emulated, JetPack {model.jetpack})"\n')
    write(root / "usr/local/cuda/version.json", f'{{"cuda": {{"name": "CUDA SDK", "version": "{model.cuda}"}}}}\n')
    write(proc / "sys/kernel/osrelease", f"{model.kernel}\n")
    write(proc / "sys/vm/swappiness", "60\n")
    cpuinfo = "".join(
        f"processor\t: {core}\nFeatures\t: fp asimd aes crc32 atomics fphp asimdhp\nCPU implementer\t: 0x41\n"
        f"CPU part\t: 0xd42\n\n"
        for core in range(model.cores)
    )
    write(proc / "cpuinfo", cpuinfo)
    swaps = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
    if model.swap_mib:
        swaps += f"/dev/zram0                              partition\t{model.swap_mib * 1024}\t\t0\t\t5\n"
    write(proc / "swaps", swaps)
    write(proc / "meminfo", meminfo(model, 0.85 * model.memory_mib, 0.0, float(model.swap_mib)))


def meminfo(model: EmulatedBoard, available_mib: float, nvmap_mib: float, swap_free_mib: float) -> str:
    """The text of /proc/meminfo; every line always as long."""
    rows = {
        "MemTotal": float(model.memory_mib),
        "MemFree": max(0.0, available_mib - 0.1 * model.memory_mib),
        "MemAvailable": available_mib,
        "Cached": 0.1 * model.memory_mib,
        "SwapTotal": float(model.swap_mib),
        "SwapFree": swap_free_mib,
        "NvMapMemUsed": nvmap_mib,
    }
    return "".join(f"{name + ':':<16}{round(mib * 1024):>12} kB\n" for name, mib in rows.items())


def _monitors(model: EmulatedBoard, sys: Path) -> None:
    folders = chip_folders(model, sys)
    for rail, volts, current in rail_files(model, sys):
        folder = folders[rail.chip]
        if model.iio:
            write(folder / f"rail_name_{volts.name.removeprefix('in_power').removesuffix('_input')}", f"{rail.label}\n")
        elif current is None:
            write(folder / "label", f"{rail.label}\n")
        else:
            write(folder / volts.name.replace("_input", "_label"), f"{rail.label}\n")
            write(current, "0\n")
            write(folder / current.name.replace("_input", "_max"), "32760\n")
        write(volts, "0\n")
    for chip, folder in folders.items():
        if not model.iio:
            write(folder / "name", f"{chip.partition('@')[0]}\n")
        if chip.startswith("ina3221") and not model.iio:
            write(folder / "in7_label", "sum of shunt voltages\n")
            write(folder / "in7_input", "3\n")


def _gpu(model: EmulatedBoard, sys: Path) -> None:
    device = sys / "devices" / model.gpu_device
    node = device / "devfreq" / model.gpu_node
    write(device / "load", "0\n")
    low, high = model.gpu_hz
    for name, value in {"cur_freq": low, "min_freq": low, "max_freq": high}.items():
        write(node / name, f"{value}\n")
    write(node / "governor", "nvhost_podgov\n")
    node.joinpath("device").symlink_to(os.path.relpath(device, node))
    link = sys / "class/devfreq" / model.gpu_node
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(os.path.relpath(node, link.parent))


def _heat(model: EmulatedBoard, sys: Path) -> None:
    for index, zone in enumerate((*model.zones, *model.zones_off)):
        write(sys / f"class/thermal/thermal_zone{index}/type", f"{zone}\n")
        write(sys / f"class/thermal/thermal_zone{index}/temp", f"{-256000 if zone in model.zones_off else 45000}\n")
    for index, device in enumerate(model.cooling):
        for name, value in {"type": device.kind, "cur_state": device.state, "max_state": device.highest}.items():
            write(sys / f"class/thermal/cooling_device{index}/{name}", f"{value}\n")
    write(sys / "class/hwmon/hwmon0/name", "pwmfan\n")
    write(sys / "class/hwmon/hwmon0/pwm1", "66\n")
    write(sys / "class/hwmon/hwmon1/name", "pwm_tach\n")
    write(sys / "class/hwmon/hwmon1/rpm", "1500\n")
    if not model.iio:
        write(sys / "class/hwmon/hwmon2/name", "soctherm_oc\n")
        for number in (1, 2, 3):
            write(sys / f"class/hwmon/hwmon2/oc{number}_event_cnt", "0\n")


def _processors(model: EmulatedBoard, sys: Path) -> None:
    low, high = model.cpu_khz
    base = sys / "devices/system/cpu"
    for core in range(model.cores):
        write(base / f"cpu{core}/topology/core_id", f"{core}\n")
        write(base / f"cpu{core}/topology/physical_package_id", "0\n")
    for first in range(0, model.cores, 4):
        policy = base / f"cpufreq/policy{first}"
        values = {"scaling_cur_freq": low, "scaling_min_freq": low, "scaling_max_freq": high}
        for name, value in values.items():
            write(policy / name, f"{value}\n")
        write(policy / "scaling_governor", "schedutil\n")
    (base / "cpu0/cpufreq").symlink_to("../cpufreq/policy0")
