"""Jetson boards as data: who they are, and which rails make up the module's power."""

from __future__ import annotations

import re
from dataclasses import dataclass

from bench.probes.roots import Roots, text


@dataclass(frozen=True, slots=True)
class Board:
    """One family of modules.

    `total` are the rails whose sum is the module's power. A rail that another one already contains is not among them:
    on AGX Orin VDDQ_VDD2_1V8AO is fed from VIN_SYS_5V0. The carrier board is never included.
    """

    key: str
    name: str
    soc: str
    modules: dict[str, str]
    total: tuple[str, ...]
    unified_memory: bool = True

    @property
    def scope(self) -> str:
        """What the power figure covers; figures of different scope are not comparable."""
        return f"module: {' + '.join(self.total)}"


# Part numbers as they stand in the device tree's `compatible`.
BOARDS = (
    Board(
        "orin-nx",
        "Jetson Orin NX",
        "tegra234",
        {"p3767-0000": "16gb", "p3767-0001": "8gb"},
        ("VDD_IN",),
    ),
    Board(
        "orin-nano",
        "Jetson Orin Nano",
        "tegra234",
        {"p3767-0003": "8gb", "p3767-0004": "4gb", "p3767-0005": "8gb"},
        ("VDD_IN",),
    ),
    Board(
        "agx-orin",
        "Jetson AGX Orin",
        "tegra234",
        {"p3701-0000": "32gb", "p3701-0004": "32gb", "p3701-0005": "64gb", "p3701-0008": "64gb"},
        ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
    ),
    Board("thor", "Jetson AGX Thor", "tegra264", {"p3834-0008": "128gb"}, ("VIN",)),
)

# On a board that is not in the table: a rail that by its name is the input of everything.
INPUT_RAILS = ("VIN", "VDD_IN", "POM_5V_IN")

# L4T releases by NVIDIA's release notes; the longest matching prefix counts.
JETPACK = {
    "32": "4",
    "32.7.1": "4.6.1",
    "32.7.2": "4.6.2",
    "32.7.3": "4.6.3",
    "32.7.4": "4.6.4",
    "32.7.5": "4.6.5",
    "35": "5",
    "35.1": "5.0.2",
    "35.2.1": "5.1",
    "35.3.1": "5.1.1",
    "35.4.1": "5.1.2",
    "35.5.0": "5.1.3",
    "35.6.0": "5.1.4",
    "35.6.1": "5.1.5",
    "36": "6",
    "36.2": "6.0 DP",
    "36.3": "6.0",
    "36.4": "6.1",
    "36.4.3": "6.2",
    "36.4.4": "6.2.1",
    "36.4.7": "6.2.1",
    "36.5.0": "6.2.2",
    "36.5.2": "6.2.3",
    "38": "7",
    "38.2": "7.0",
    "38.4": "7.1",
    "39": "7",
    "39.2.0": "7.2",
    "39.2.1": "7.2.1",
    "39.2.2": "7.2.2",
}


@dataclass(frozen=True, slots=True)
class Identity:
    """A Jetson as it describes itself; `board` is None for one that is not in the table."""

    model: str
    part: str | None
    board: Board | None
    memory: str | None
    soc: str | None
    l4t: str | None
    jetpack: str | None

    @property
    def host_class(self) -> str:
        """For example jetson-orin-nx-16gb."""
        name = self.board.name if self.board else self.model.removeprefix("NVIDIA ")
        # "Jetson AGX Orin" and "Jetson AGX Thor" are each one word after `jetson-` in people's mouths.
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        return f"{slug}-{self.memory}" if self.memory else slug


def identify(roots: Roots) -> Identity | None:
    """Who this Jetson is, from files that anybody may read; None if it is none."""
    tree = roots.in_proc("device-tree")
    compatible = (text(tree / "compatible") or "").split("\0")
    soc = next((name.removeprefix("nvidia,") for name in compatible if re.fullmatch(r"nvidia,tegra\d+", name)), None)
    release = l4t(roots)
    if soc is None and release is None:
        return None
    parts = re.findall(r"p\d{4}-\d{4}", " ".join(compatible))
    for part in parts:
        for board in BOARDS:
            if part in board.modules:
                return Identity(
                    text(tree / "model") or board.name, part, board, board.modules[part], soc, release, jetpack(release)
                )
    return Identity(
        text(tree / "model") or "Jetson", parts[-1] if parts else None, None, None, soc, release, jetpack(release)
    )


def l4t(roots: Roots) -> str | None:
    """The Linux-for-Tegra release, for example 36.4.3."""
    found = re.search(
        r"R(\d+)\s*\(release\),\s*REVISION:\s*([\d.]+)", text(roots.in_root("etc/nv_tegra_release")) or ""
    )
    return f"{found[1]}.{found[2]}" if found else None


def jetpack(release: str | None) -> str | None:
    """The JetPack version of an L4T release; only the major one where the release is not in the table."""
    parts = (release or "").split(".")
    for length in range(len(parts), 0, -1):
        if (version := JETPACK.get(".".join(parts[:length]))) is not None:
            return version
    return None


def is_orin(roots: Roots) -> bool:
    """Whether NVML starts here and then supports nothing."""
    identity = identify(roots)
    return identity is not None and identity.soc == "tegra234"
