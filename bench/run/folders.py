"""The folder of a run: a new one with its manifest, or an earlier one that is gone on with."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from bench.errors import RecordError
from bench.plan.blocks import Plan, draw
from bench.probes.machine import Machine
from bench.record.documents import parsed
from bench.record.manifest import Manifest, PlannedVariant
from bench.record.store import RunFolder
from bench.scenario.load import Scenario
from bench.scenario.redaction import redacted, withheld
from bench.scenario.variant import Variant

# Which earlier run is gone on with: none; an unfinished one that must be there; an unfinished one if there is one; or
# any of the same plan and machine, of which a complete one is the result as it is.
Resume = Literal["never", "always", "if any", "finished too"]


def new(results: Path, scenario: Scenario, plan: Plan, host: Machine, notes: list[str]) -> RunFolder:
    """A folder for a new run, its manifest in it; `notes` are what readers of the run should know of its purpose."""
    now = datetime.now(UTC)
    manifest = Manifest(
        run_id=f"{now:%Y%m%d-%H%M%S}-{scenario.digest[:6]}",
        scenario=scenario.model.scenario,
        scenario_digest=scenario.digest,
        scenario_text=redacted(scenario.text),
        seed=plan.seed,
        variants=[_planned(variant) for variant in plan.variants],
        plan=list(plan.launches),
        fingerprint=dict(host.fingerprint),
        versions={"firsttoken": version("firsttoken"), "python": platform.python_version()},
        created=now.isoformat(timespec="seconds"),
        emulated=host.emulated,
        notes=notes,
    )
    return RunFolder.create(results, manifest)


def earlier(results: Path, scenario: Scenario, plan: Plan, resume: Resume, emulated: str | None) -> RunFolder | None:
    """The run that is gone on with; None for a new one. RecordError where one must be there and none fits."""
    match resume:
        case "never":
            return None
        case "always":
            folder = RunFolder.open(unfinished(results, scenario, plan))
            _require_same(folder, scenario)
            return folder
        case "if any":
            return pending(results, scenario, plan)
        case "finished too":
            return recorded(results, scenario, plan, emulated)


def unfinished(results: Path, scenario: Scenario, plan: Plan | None = None) -> Path:
    """The newest run of this scenario and plan (its own by default) that is not complete; RecordError if none is.

    One of another version of the scenario is not passed over, so that whoever goes on with it is told.
    """
    wanted = list((plan or draw(scenario)).launches)
    for folder in _runs(results, scenario):
        manifest = folder.manifest
        another = manifest.scenario_digest == scenario.digest and manifest.plan != wanted
        if manifest.state != "complete" and not another:
            return folder.path
    raise RecordError(
        f"there is no unfinished run of {scenario.model.scenario!r} in {results / scenario.model.scenario}",
        hint=f"`bench run {scenario.path}` starts one",
    )


def pending(results: Path, scenario: Scenario, plan: Plan) -> RunFolder | None:
    """The newest unfinished run of this very scenario and plan; None if there is none.

    One of another version of the scenario is passed over: where this is asked, nobody is there to be told.
    """
    wanted = (scenario.digest, list(plan.launches))
    for folder in _runs(results, scenario):
        manifest = folder.manifest
        if manifest.state != "complete" and (manifest.scenario_digest, manifest.plan) == wanted:
            return folder
    return None


def recorded(results: Path, scenario: Scenario, plan: Plan, emulated: str | None = None) -> RunFolder | None:
    """The newest run of this very scenario and plan on the same (emulated) machine, complete or not."""
    wanted = (scenario.digest, list(plan.launches), emulated)
    for folder in _runs(results, scenario):
        manifest = folder.manifest
        if (manifest.scenario_digest, manifest.plan, manifest.emulated) == wanted:
            return folder
    return None


@contextmanager
def under_way(folder: RunFolder) -> Iterator[None]:
    """The manifest says that the run is running, and how it ended afterwards."""
    folder.manifest.state = "running"
    folder.save(folder.manifest)
    try:
        yield
    except BaseException:
        _close(folder, "interrupted")
        raise
    _close(folder, "complete")


def _close(folder: RunFolder, state: Literal["complete", "interrupted"]) -> None:
    folder.manifest.state = state
    folder.manifest.finished = datetime.now(UTC).isoformat(timespec="seconds")
    folder.save(folder.manifest)


def _runs(results: Path, scenario: Scenario) -> Iterator[RunFolder]:
    """The scenario's runs, the newest first."""
    manifests = (results / scenario.model.scenario).glob("[!.]*/manifest.json")
    yield from (RunFolder.open(path.parent) for path in sorted(manifests, reverse=True))


def _require_same(folder: RunFolder, scenario: Scenario) -> None:
    """RecordError if the scenario has changed since the run was begun."""
    if folder.manifest.scenario_digest != scenario.digest:
        raise RecordError(
            f"{folder.path} was begun with another version of {scenario.model.scenario!r}",
            hint="undo the change to the scenario, or start a new run without --resume",
        )


def _planned(variant: Variant) -> PlannedVariant:
    full: dict[str, Any] = {
        "engine": variant.engine.model_dump(by_alias=True, exclude_defaults=True),
        "model": variant.model.model_dump(exclude_defaults=True),
        "quantization": variant.quantization,
        "warmup": [dataclasses.asdict(step) for step in variant.warmup],
        "page_cache": variant.page_cache,
    }
    # As for the slowdown: a digest of what older runs had no word for stays what it was.
    if variant.start != "exec":
        full["start"] = variant.start
    if variant.slowdown is not None:
        full["slowdown"] = dataclasses.asdict(variant.slowdown)
    digest = hashlib.sha256(json.dumps(full, sort_keys=True).encode()).hexdigest()
    if variant.engine.env:
        full["engine"] |= {"env": withheld(variant.engine.env)}
    return parsed(PlannedVariant, {"id": variant.id, "factors": variant.factors, "digest": digest, **full})
