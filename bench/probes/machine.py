"""The machine that a run measures: this one, or an emulated board beside it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import InternalError
from bench.probes.fingerprint import fingerprint
from bench.probes.roots import Roots

if TYPE_CHECKING:
    from bench.emulate.board import EmulatedBoard


@dataclass(frozen=True, slots=True)
class Machine:
    """Where to read, what to call it, and what to print above every figure if it is not real."""

    roots: Roots
    fingerprint: dict[str, Any]
    emulated: str | None = None
    banner: str | None = None

    @property
    def host_class(self) -> str:
        """As scenarios name it."""
        return str(self.fingerprint["host_class"])


def emulated(folder: Path, board: EmulatedBoard, *, privileged: bool = False) -> Roots:
    """Write an emulated board's files into `folder`; where to read them."""
    from bench.emulate.board import build

    return Roots(**build(folder, board, privileged=privileged))


def require_board(emulate: str | None) -> None:
    """UnknownName, with the nearest, for a board that there is no emulation of."""
    if emulate is not None:
        from bench.emulate.board import find

        find(emulate)


@contextmanager
def machine(
    emulate: str | None = None, *, folder: Path | None = None, faults: Sequence[str] = (), privileged: bool = False
) -> Iterator[Machine]:
    """This machine, or an emulated board that lives until the context ends.

    `emulate` names a board (`orin-nx`, `agx-orin`, `orin-nx@5`, …; UnknownName lists them); its files go to `folder`,
    or to a temporary one that is removed. `faults` go wrong on the way: see emulate.board.animate.
    """
    if emulate is None:
        yield Machine(Roots(), fingerprint())
        return
    from bench.emulate.board import find

    board = find(emulate)
    where = folder or Path(tempfile.mkdtemp(prefix=f"bench-{board.key}-"))
    where.mkdir(parents=True, exist_ok=True)
    roots = emulated(where, board, privileged=privileged)
    process = subprocess.Popen(
        [sys.executable, "-m", "bench.emulate.board", str(where), emulate, *faults],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        if process.stdout is None or process.stdout.readline() != b"alive\n":
            raise InternalError(f"the emulated board {emulate} did not start")
        banner = f"EMULATED {board.title} (JetPack {board.jetpack}): modelled sensors, this machine's processor"
        yield Machine(roots, fingerprint(roots), emulate, banner)
    finally:
        process.terminate()
        process.communicate()
        if folder is None:
            shutil.rmtree(where, ignore_errors=True)
