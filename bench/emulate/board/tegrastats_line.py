"""A tegrastats line in the dialect of each JetPack."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bench.emulate.board.animate import Animation


def tegrastats_line(board: Animation) -> str:
    """One line of the board as it is now."""
    model, style = board.model, board.model.style
    available, _ = board.memory_mib()
    words = [f"RAM {round(model.memory_mib - available)}/{model.memory_mib}MB (lfb 4x4MB)"]
    if style in ("jp4", "jp5", "jp6") and model.swap_mib:
        words.append(f"SWAP 0/{model.swap_mib}MB (cached 0MB)")
    clock = round((model.cpu_khz[0] + (model.cpu_khz[1] - model.cpu_khz[0]) * board.load) / 1000)
    words.append(f"CPU [{','.join(f'{round(board.load * 100)}%@{clock}' for _ in range(model.cores))}]")
    mhz, percent = round(board.gpu_hz / 1e6), round(board.load * 100)
    if style == "jp4":
        words.append(f"EMC_FREQ {percent}%@{model.emc_hz // 1_000_000} GR3D_FREQ {percent}%@{mhz} APE 150")
    elif style == "jp5":
        words.append(f"GR3D_FREQ {percent}%@{mhz} VIC_FREQ 115 APE 174")
    elif style == "thor":
        words.append(f"GR3D_FREQ @[{','.join([str(mhz)] * 3)}] NVENC0_FREQ off PVA0_FREQ off APE 300")
    else:
        words.append(f"GR3D_FREQ {percent}%@[{','.join([str(mhz)] * max(1, model.gpcs))}] NVDEC off OFA off APE 174")
    for zone in model.zones:
        name = zone.removesuffix("-thermal").removesuffix("-therm")
        if style == "jp5":
            name = name if name == "tj" else name.upper()
        words.append(f"{name}@{_degrees(board.zone_c(zone), twice=style in ('jp7', 'thor'))}")
    if style in ("jp4", "jp5"):
        words += [f"{zone.removesuffix('-thermal').upper()}@-256C" for zone in model.zones_off if style == "jp5"]
    for rail in model.rails:
        now = round(board.rail_watts(rail.label) * 1000)
        if style == "jp4":
            words.append(f"{rail.label} {now}/{now}")
        else:
            words.append(f"{rail.label} " + "/".join([f"{now}mW"] * (3 if style in ("jp7", "thor") else 2)))
    stamp = "09-01-2025 10:55:25 " if style in ("jp6", "jp7", "thor") else ""
    return stamp + " ".join(words)


def _degrees(value: float, *, twice: bool) -> str:
    words = f"{value:.3f}".rstrip("0").rstrip(".") + "C"
    return f"{words}/{words}" if twice else words
