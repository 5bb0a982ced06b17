"""firsttoken: how long until the first token, why, and what makes it shorter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bench.analyse.run import Run
    from bench.judge.compare import Comparison
    from bench.scenario.load import Scenario

__all__ = ["Comparison", "Run", "Scenario"]
__version__ = "0.2.0"

_HOMES = {"Comparison": "bench.judge.compare", "Run": "bench.analyse.run", "Scenario": "bench.scenario.load"}


def __getattr__(name: str) -> Any:
    # The three public names pull in pandas and scipy; `bench --help` must not.
    if name in _HOMES:
        from importlib import import_module

        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'bench' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__", "__doc__"])
