"""pytest-benchmark's JSON: every launch a round. Times in seconds; rates and memory do not fit and are left out."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

from bench.analyse.run import Run
from bench.errors import UsageError
from bench.formats.per_launch import PerLaunch, per_launch

SECONDS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6}


def export(run: Run) -> Mapping[str, Any]:
    """One file for the whole run, as `--benchmark-json` writes it."""
    version = _version()
    manifest = run.manifest
    cpu = manifest.fingerprint.get("cpu")
    document = {
        "machine_info": {
            "node": manifest.fingerprint.get("host_class"),
            "machine": manifest.fingerprint.get("architecture"),
            "system": platform.system(),
            "python_version": manifest.versions.get("python"),
            "cpu": cpu if isinstance(cpu, dict) else {},
        },
        "commit_info": {},
        "benchmarks": [_benchmark(run, one) for one in per_launch(run) if one.metric.unit in SECONDS],
        "datetime": manifest.created,
        "version": version,
    }
    return {f"{manifest.scenario}.json": document}


def _benchmark(run: Run, one: PerLaunch) -> dict[str, Any]:
    from pytest_benchmark.stats import Stats

    # The library is not typed.
    stats: Any = Stats()  # type: ignore[no-untyped-call]
    for value in one.values:
        stats.update(value * SECONDS[one.metric.unit])
    return {
        "group": f"{run.manifest.scenario} {one.metric.id}",
        "name": f"{one.variant}[{one.metric.id}]",
        "fullname": f"{run.manifest.scenario}::{one.variant}[{one.metric.id}]",
        "params": None,
        "param": None,
        "extra_info": {"variant": one.variant, "metric": one.metric.id, "run": run.manifest.run_id},
        "options": {"disable_gc": False, "timer": "recorded", "min_rounds": len(one.values), "warmup": False},
        "stats": {**{name: getattr(stats, name) for name in stats.fields}, "data": stats.data, "iterations": 1},
    }


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pytest-benchmark")
    except PackageNotFoundError:
        hint = "pip install 'firsttoken[pytest]'"
        raise UsageError("pytest-benchmark, which this format is written with, is not installed", hint=hint) from None
