"""Warm parents: one per environment and what it has imported, made when a launch first asks for it, ended with the run.

A parent is let go of where it is no longer what its name says: dead, unfit to be forked, or older than a change to the
environment that it imported from.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.engines.engine import LaunchSpec, ParentSpec
from bench.engines.parent import CannotFork, Parent, make
from bench.environments.pythons import folders, installed

# What changes in a folder of packages when any of them does.
INSTALLED = ("*.dist-info", "*.egg-info", "*.egg-link", "*.pth", "*.py")


class Parents:
    """The parents of a run: made when first needed, ended on leaving."""

    def __init__(self) -> None:
        self._living: dict[str, Parent] = {}
        # Of those that never can be forked: the name they had then, and why not.
        self._unfit: dict[str, tuple[str, CannotFork]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def warm(self, spec: LaunchSpec) -> Parent:
        """A parent that this launch can be forked from, made now unless there is one; CannotFork says why not."""
        if spec.parent is None:
            raise CannotFork(spec.not_forked or "this engine has no forked start")
        python = spec.argv[0]
        key = f"{python} {json.dumps([spec.parent.imports, spec.parent.optional, spec.parent.prepare])}" + json.dumps(
            [dict(spec.parent.arguments), spec.parent.child, dict(spec.parent.env)], sort_keys=True, default=str
        )
        name = named(Path(python), spec.parent)
        known = self._living.get(key)
        if known is not None and (known.name != name or not known.alive):
            self.drop(known)
            known = None
        if known is not None:
            return known
        unfit = self._unfit.get(key)
        if unfit is not None and unfit[0] == name:
            raise unfit[1]
        try:
            made = self._living[key] = make(name, python, spec.parent, spec.ready_timeout_s)
        except CannotFork as fault:
            if fault.final:
                self._unfit[key] = (name, fault)
            raise
        return made

    def drop(self, parent: object) -> None:
        """End one parent; the next launch that needs it makes a new one."""
        self._living = {key: one for key, one in self._living.items() if one is not parent}
        if isinstance(parent, Parent):
            parent.close()

    def release(self, path: Path | None) -> None:
        """End every parent that keeps the data of this path in memory."""
        for parent in [one for one in self._living.values() if path is not None and one.spec.holds == path]:
            self.drop(parent)

    def close(self) -> None:
        """End them all."""
        for parent in list(self._living.values()):
            self.drop(parent)


def named(python: Path, spec: ParentSpec) -> str:
    """What a parent is called: its distributions' versions, and a digest of all that its imports come from."""
    versions = [f"{name}-{found}" for name in spec.versions if (found := installed(python, name))]
    return "_".join([*versions, installation(python, spec.env.get("PYTHONPATH", ""))])


def installation(python: Path, path: str) -> str:
    """A digest of what an interpreter imports from: another version of anything installed, or another file of our own
    workers' on its PYTHONPATH, is another digest.
    """
    digest = hashlib.sha256()
    ours = [Path(folder) for folder in path.split(os.pathsep) if folder]
    found = [entry for folder in folders(python) for pattern in INSTALLED for entry in folder.glob(pattern)]
    found += [entry for folder in ours for pattern in ("*.py", "*/*.py") for entry in folder.glob(pattern)]
    for entry in sorted(found):
        with contextlib.suppress(OSError):
            state = entry.stat()
            digest.update(f"{entry}\0{state.st_mtime_ns}\0{state.st_size}\n".encode())
    return digest.hexdigest()[:12]
