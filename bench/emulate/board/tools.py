"""Stand-ins for NVIDIA's programs, as far as probes use them: tegrastats, nvpmodel, jetson_clocks."""

from __future__ import annotations

from pathlib import Path

from bench.emulate.board.catalogue import EmulatedBoard

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
