"""The images of engines on this machine: how large each is, of what, and how to be rid of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bench.engines import image
from bench.engines.image import DOCUMENT
from bench.engines.images import FOLDER
from bench.errors import UsageError
from bench.home import clear, home, locked


@dataclass(frozen=True, slots=True)
class KeptImage:
    """An image's folder: bytes on disk, the model whose weights are in it (null where it has none, or is older than
    that note), seconds its making took and when it was whole, seconds of the epoch; both null for half of one.
    """

    folder: Path
    size: int
    model: str | None = None
    seconds: float | None = None
    made: float | None = None
    # The engine that runs from it now.
    pid: int | None = None

    @property
    def name(self) -> str:
        """Its folder's name."""
        return self.folder.name


def kept() -> list[KeptImage]:
    """Every image, the newest last, behind what is left of those that never became whole."""
    places = [folder for folder in (home() / FOLDER).glob("*") if folder.is_dir()]
    return sorted(map(_looked_at, places), key=lambda one: (one.made or 0.0, one.name))


def remove(one: KeptImage) -> None:
    """Delete it; UsageError while an engine runs from it."""
    with locked(one.folder.with_suffix(".lock")):
        if (pid := _looked_at(one.folder).pid) is not None:
            raise UsageError(f"process {pid} was restored from {one.name} and runs: end it first")
        clear(one.folder)


def _looked_at(folder: Path) -> KeptImage:
    size = sum(file.lstat().st_size for file in folder.rglob("*") if not file.is_dir())
    told = image.read(folder)
    if told is None:
        return KeptImage(folder, size)
    return KeptImage(
        folder,
        size,
        model=told.get("model"),
        seconds=told["seconds"],
        made=(folder / DOCUMENT).stat().st_mtime,
        pid=_running(folder, told["mark"]),
    )


def _running(folder: Path, mark: str) -> int | None:
    """The process that CRIU last woke from it, as long as that runs."""
    try:
        pid = int((folder / "pid").read_text(encoding="ascii"))
        known = f"={mark}\0".encode() in Path(f"/proc/{pid}/environ").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if known else None
