"""What the tuner may turn: levers, their levels, and the part of a variant that each level stands for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bench.phrases import among, shown
from bench.scenario.document import Document, Path
from bench.scenario.model import PAGE_CACHE, STARTS, Overlay, Scalar
from bench.scenario.variant import level_text

# Levers of these names turn that factor; `env.<NAME>` a variable; every other name is an engine flag.
FACTOR_LEVERS = ("warmup", "page_cache", "start")
ENV = "env."

Levels = Sequence[Scalar] | Mapping[str, Overlay]


def levels(lever: str, given: Levels) -> list[tuple[Scalar, Overlay]]:
    """Each level of a lever with what it changes of a variant, in the order given."""
    if isinstance(given, Mapping):
        return list(given.items())
    return [(level, overlay(lever, level)) for level in given]


def overlay(lever: str, level: Scalar) -> Overlay:
    """What a lever without named fragments changes."""
    if lever == "warmup":
        return Overlay(warmup=[level_text(level)])
    if lever in FACTOR_LEVERS:
        return Overlay.model_validate({lever: level})
    if lever.startswith(ENV):
        return Overlay(env={lever.removeprefix(ENV): level_text(level)})
    return Overlay(args={lever: level})


def check_turns(document: Document, warmups: Sequence[str]) -> None:
    """Note levers without a level, and levels that name what there is none of."""
    known = {"warmup": warmups, "page_cache": PAGE_CACHE, "start": STARTS}
    for path, given in document.entries("tune", "levers"):
        lever = str(path[-1])
        if isinstance(given, (list, dict)) and not given:
            document.problem(path, "has no value to try; write [first, second]")
        if lever.startswith("args."):
            document.problem(path, f"write the flag alone: {lever.removeprefix('args.')}", at_key=True)
        for at, level in document.entries(*path):
            if not isinstance(given, dict):
                if lever in known and level not in known[lever]:
                    document.problem(at, f"{shown(level)} is not {among(known[lever], level)}")
                continue
            for name_at, name in _named(document, at):
                if name not in warmups:
                    document.problem(name_at, f"{shown(name)} is not {among(warmups, name)}")
            if isinstance(level, dict) and not level:
                document.problem(at, "changes nothing; give it args, env, warmup, page_cache or start")


def _named(document: Document, path: Path) -> Iterator[tuple[Path, Any]]:
    """The warm-ups that a fragment names."""
    at = (*path, "warmup")
    if isinstance(document.get(at), list):
        yield from document.entries(*at)
