"""The same engine from an image: `docker run` or `podman run` around the same command line."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.errors import LaunchError

MODEL, CACHES = "/firsttoken/model", "/firsttoken/caches"


@dataclass(frozen=True, slots=True)
class Device:
    """How a container gets at the accelerator: words for `run`."""

    name: str
    docker: tuple[str, ...]
    podman: tuple[str, ...]


JETSON = Device("jetson", ("--runtime", "nvidia"), ("--device", "nvidia.com/gpu=all"))
NVIDIA = Device("nvidia", ("--gpus", "all"), ("--device", "nvidia.com/gpu=all"))
NONE = Device("cpu", (), ())


def device(root: Path = Path("/")) -> Device:
    """Which of them this machine needs."""
    if (root / "etc/nv_tegra_release").exists() or (root / "sys/class/tegra-firmware").exists():
        return JETSON
    return NVIDIA if (root / "proc/driver/nvidia/version").exists() else NONE


def run(
    image: str,
    command: Sequence[str],
    *,
    name: str,
    env: Mapping[str, str],
    folders: Mapping[Path, str],
) -> tuple[str, ...]:
    """The words that start `command` in a container; host folders are mounted, those below MODEL read-only.

    Host network, so that port and span sink are where they are without a container; host IPC, which PyTorch's workers
    share tensors through; an init process, so that a polite stop reaches every child.
    """
    program = next((found for found in ("docker", "podman") if shutil.which(found)), None)
    if program is None:
        raise LaunchError("missing_file", f"the image {image} needs docker or podman, and neither is installed")
    on = device()
    words = [program, "run", "--rm", "--init", "--name", name, "--network", "host", "--ipc", "host"]
    words += on.podman if Path(program).name == "podman" else on.docker
    for host, inside in folders.items():
        words += ["--volume", f"{host}:{inside}" + (":ro" if inside.startswith(MODEL) else "")]
    for variable, value in env.items():
        words += ["--env", f"{variable}={value}"]
    return (*words, "--entrypoint", command[0], image, *command[1:])
