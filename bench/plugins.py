"""Extension points: entry points looked up by name, imported when used.

Groups: bench.engines, bench.warmups, bench.workloads, bench.probes, bench.formats. The built-ins are registered through
the same groups as anybody else's, in pyproject.toml.
"""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from bench.errors import InternalError, UnknownName

GROUPS = ("engines", "warmups", "workloads", "probes", "formats")


@cache
def available(group: str) -> dict[str, EntryPoint]:
    """Every registered name of a group, nothing imported yet."""
    return {point.name: point for point in entry_points(group=f"bench.{group}")}


def names(group: str) -> tuple[str, ...]:
    """The registered names of a group, sorted."""
    return tuple(sorted(available(group)))


def load(group: str, name: str) -> Any:
    """The object registered under a name; UnknownName says which names there are."""
    points = available(group)
    if name not in points:
        raise UnknownName(group.removesuffix("s"), name, points)
    try:
        return points[name].load()
    except ImportError as error:
        raise InternalError(
            f"the {group.removesuffix('s')} {name!r} ({points[name].value}) cannot be imported: {error}",
            hint="`bench plugins` shows where it comes from; reinstall that package",
        ) from error
