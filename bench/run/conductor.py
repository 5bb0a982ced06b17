"""From a plan to a recorded run: every launch in its order, each kept once it is over, resumed where it broke off."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from bench import plugins
from bench.engines.engine import Checkpoint, form
from bench.environments.environment import needed, provisioned
from bench.errors import RecordError, UsageError
from bench.home import home
from bench.loadgen.selfcheck import selfcheck
from bench.models import checkpoints
from bench.plan.blocks import draw
from bench.plan.budget import another_fits
from bench.plan.launches import Plan, PlannedLaunch
from bench.probes.cooldown import idle_reference
from bench.probes.fingerprint import fingerprint
from bench.probes.machine import Machine, machine
from bench.probes.power_mode import applied, verify
from bench.record.schema import Check, LaunchRecord, Manifest
from bench.record.store import RunFolder
from bench.run.launch import Stand, launch
from bench.run.progress import Progress, Silent
from bench.run.turns import turn
from bench.scenario.load import Scenario
from bench.scenario.variant import Variant

# Rules handed down from the head, which the hands may not import: what makes a finished launch invalid, whether the
# blocks so far are enough, and which variants need no more of them, and why. All see folders, so that they judge what
# is on disk and nothing else.
Judge = Callable[[Path], Sequence[Check]]
StopRule = Callable[[Path], str | None]
Retire = Callable[[Path], Mapping[str, str]]


def execute(
    scenario: Scenario,
    *,
    results: Path,
    plan: Plan | None = None,
    progress: Progress | None = None,
    judge: Judge | None = None,
    stop_rule: StopRule | None = None,
    retire: Retire | None = None,
    resume: Path | None = None,
    emulate: str | None = None,
    apply: bool = False,
    check_client: bool = True,
    note: str | None = None,
) -> Path:
    """Run a scenario, or go on with one; the run's folder. BenchError if nothing could be started.

    `apply` sets the power mode and clocks that the scenario declares, and puts them back at the end.
    `check_client` measures the load generator's own error once, before the first launch. `note` is what readers of the
    run should know of its purpose.
    """
    progress = progress or Silent()
    plan = plan or draw(scenario)
    with ExitStack() as around:
        host = around.enter_context(machine(emulate))
        if apply:
            for change in around.enter_context(applied(scenario.model.host, host.roots)):
                progress.note(change)
            host = dataclasses.replace(host, fingerprint=fingerprint(host.roots))
        _require(scenario, host)
        checkpoints = _checkpoints(plan, progress)
        if resume:
            folder = RunFolder.open(resume)
            _require_same(folder, scenario, plan)
        else:
            folder = RunFolder.create(results, _manifest(scenario, plan, host))
            folder.manifest.notes += [note] if note else []
        with folder:
            if check_client and "client" not in folder.manifest.fingerprint:
                progress.preparing("checking the client against a scripted server")
                folder.manifest.fingerprint["client"] = dataclasses.asdict(selfcheck(quick=True))
            folder.manifest.state = "running"
            folder.save(folder.manifest)
            cool = scenario.model.design.cool_down is not None
            if cool:
                progress.preparing("taking the idle temperature")
            stand = Stand(
                scenario,
                host,
                home() / "caches" / scenario.model.scenario,
                progress,
                idle_reference(host.roots) if cool else {},
            )
            try:
                _launches(stand, plan, checkpoints, folder, judge, stop_rule, retire)
            except BaseException:
                _close(folder, "interrupted")
                raise
            _close(folder, "complete")
    return folder.path


def unfinished(results: Path, scenario: Scenario, plan: Plan | None = None) -> Path:
    """The newest run of this scenario and plan (its own by default) that is not complete; RecordError if none is.

    One of another version of the scenario is not passed over, so that whoever goes on with it is told.
    """
    wanted = _launches_of(plan or draw(scenario))
    for folder in _runs(results, scenario):
        manifest = folder.manifest
        another = manifest.scenario_digest == scenario.digest and manifest.plan != wanted
        if manifest.state != "complete" and not another:
            return folder.path
    raise RecordError(
        f"there is no unfinished run of {scenario.model.scenario!r} in {results / scenario.model.scenario}",
        hint=f"`bench run {scenario.path}` starts one",
    )


def recorded(results: Path, scenario: Scenario, plan: Plan, emulated: str | None = None) -> RunFolder | None:
    """The newest run of this very scenario and plan on the same (emulated) machine, complete or not."""
    wanted = (scenario.digest, _launches_of(plan), emulated)
    for folder in _runs(results, scenario):
        manifest = folder.manifest
        if (manifest.scenario_digest, manifest.plan, manifest.emulated) == wanted:
            return folder
    return None


def _runs(results: Path, scenario: Scenario) -> Iterator[RunFolder]:
    """The scenario's runs, the newest first."""
    manifests = (results / scenario.model.scenario).glob("[!.]*/manifest.json")
    yield from (RunFolder.open(path.parent) for path in sorted(manifests, reverse=True))


def _launches_of(plan: Plan) -> list[dict[str, Any]]:
    return [dataclasses.asdict(planned) for planned in plan.launches]


def _launches(
    stand: Stand,
    plan: Plan,
    checkpoints: Mapping[str, Checkpoint],
    folder: RunFolder,
    judge: Judge | None,
    stop_rule: StopRule | None,
    retire: Retire | None,
) -> None:
    design = stand.scenario.model.design
    begun = time.monotonic()
    block_seconds: list[float] = []
    done = folder.finished()
    # By variant: what a launch stayed invalid for although it was repeated. Repeating it again would only cost time.
    settled: dict[str, str | None] = {}
    retired: dict[str, str] = {}
    for number, planned in enumerate(plan.launches, 1):
        if planned.position == 0 and planned.block > 0:
            block_seconds.append(time.monotonic() - begun - sum(block_seconds))
            reason = stop_rule(folder.path) if stop_rule else None
            if reason is None and not another_fits(block_seconds, design.budget_minutes):
                reason = f"another block would not end within the budget of {design.budget_minutes:g} minutes"
            if reason:
                left = f"stopped before block {planned.block + 1}: {reason}"
                folder.manifest.notes.append(left)
                stand.progress.note(left)
                return
            leaving = {
                name: why for name, why in (retire(folder.path) if retire else {}).items() if name not in retired
            }
            retired |= leaving
            for why in dict.fromkeys(leaving.values()):
                names = [name for name in leaving if leaving[name] == why]
                left = f"not launched from block {planned.block + 1} on: {', '.join(names)} ({why})"
                folder.manifest.notes.append(left)
                stand.progress.note(left)
        if planned.variant in retired:
            continue
        for attempt in range(1, design.retries + 2):
            launch_id = planned.id if attempt == 1 else f"{planned.id}~{attempt}"
            record = done.get(launch_id)
            if record is None:
                stand.progress.launch(planned, number, len(plan.launches), attempt)
                record = _one(stand, plan, planned, launch_id, attempt, checkpoints, folder, judge)
                stand.progress.finished(record)
            if record.status != "invalid":
                settled.pop(planned.variant, None)
                break
            if settled.get(planned.variant) == record.reason_kind:
                stand.progress.note(f"{launch_id} is invalid as before ({record.reason}) and is not repeated")
                break
            if attempt <= design.retries:
                stand.progress.note(f"{launch_id} is invalid ({record.reason}) and is repeated")
            else:
                settled[planned.variant] = record.reason_kind


def _one(
    stand: Stand,
    plan: Plan,
    planned: PlannedLaunch,
    launch_id: str,
    attempt: int,
    checkpoints: Mapping[str, Checkpoint],
    folder: RunFolder,
    judge: Judge | None,
) -> LaunchRecord:
    """Carry out a launch and put it on disk; judged last, from what is on the disk."""
    # Whole, because engines work in folders of their own.
    partial = folder.begin(launch_id).resolve()
    try:
        with turn(stand.progress):
            seen = launch(stand, planned, plan.variant(planned.variant), checkpoints[planned.variant], partial)
    except BaseException:
        folder.abandon(launch_id)
        raise
    record = seen.record
    record.launch_id, record.attempt = launch_id, attempt
    weights = checkpoints[planned.variant]
    record.facts |= {"checkpoint_digest": weights.digest, "checkpoint_bytes": weights.size_bytes}
    path = folder.finish(
        launch_id,
        record,
        requests=seen.requests,
        chunks=seen.chunks,
        events=seen.events,
        phases=seen.phases,
        logprobs=seen.logprobs,
    )
    if judge is not None:
        record.checks += judge(path)
        violated = [check for check in record.checks if check.status == "violated"]
        if violated and record.status == "ok":
            record.status, record.reason_kind = "invalid", violated[0].name
            record.reason = "; ".join(f"{check.name}: {check.evidence}" for check in violated)
        folder.amend(record)
    return record


def _require(scenario: Scenario, host: Machine) -> None:
    """UsageError unless the machine is what the scenario declares; what cannot be known is refused as well."""
    checks = verify(scenario.model.host, host.fingerprint)
    failed = [check for check in checks if check.status != "ok"]
    if failed:
        raise UsageError(
            "this is not the machine that the scenario asks for:\n"
            + "\n".join(f"  {check.name}: asked for {check.limit}, found {check.evidence}" for check in failed),
            hint="; ".join(check.remedy for check in failed if check.remedy),
        )


def _checkpoints(plan: Plan, progress: Progress) -> dict[str, Checkpoint]:
    """Weights and interpreters of every variant, before the first launch: a missing one is found here."""
    found: dict[str, Checkpoint] = {}
    known: dict[tuple[str, str, str], Checkpoint] = {}
    for variant in plan.variants:
        wanted = form(plugins.load("engines", variant.engine.engine))
        if name := needed(variant.engine):
            provisioned(name)
        key = (variant.model_name, variant.quantization, wanted)
        if key not in known:
            progress.preparing(f"model {variant.model.source} as {variant.quantization}")
            known[key] = checkpoints.resolve(
                variant.model, variant.quantization, form=wanted, progress=progress.preparing
            )
        found[variant.id] = known[key]
    return found


def _manifest(scenario: Scenario, plan: Plan, host: Machine) -> Manifest:
    now = datetime.now(UTC)
    return Manifest(
        run_id=f"{now:%Y%m%d-%H%M%S}-{scenario.digest[:6]}",
        scenario=scenario.model.scenario,
        scenario_digest=scenario.digest,
        scenario_text=scenario.text,
        seed=plan.seed,
        variants=[_described(variant) for variant in plan.variants],
        plan=_launches_of(plan),
        fingerprint=dict(host.fingerprint),
        versions={"firsttoken": version("firsttoken"), "python": platform.python_version()},
        created=now.isoformat(timespec="seconds"),
        emulated=host.emulated,
    )


def _described(variant: Variant) -> dict[str, Any]:
    """A variant as plain data; what tells it apart, and a digest of all the rest."""
    full = {
        "engine": variant.engine.model_dump(by_alias=True, exclude_defaults=True),
        "model": variant.model.model_dump(exclude_defaults=True),
        "quantization": variant.quantization,
        "warmup": [dataclasses.asdict(step) for step in variant.warmup],
        "page_cache": variant.page_cache,
    }
    if variant.slowdown is not None:
        full["slowdown"] = dataclasses.asdict(variant.slowdown)
    digest = hashlib.sha256(json.dumps(full, sort_keys=True).encode()).hexdigest()
    return {"id": variant.id, "factors": variant.factors, "digest": digest, **full}


def _require_same(folder: RunFolder, scenario: Scenario, plan: Plan) -> None:
    """RecordError if the scenario or its plan has changed since the run was begun."""
    if folder.manifest.scenario_digest != scenario.digest:
        raise RecordError(
            f"{folder.path} was begun with another version of {scenario.model.scenario!r}",
            hint="undo the change to the scenario, or start a new run without --resume",
        )
    if folder.manifest.plan != _launches_of(plan):
        raise RecordError(f"{folder.path} was begun with another plan", hint="start a new run without --resume")


def _close(folder: RunFolder, state: Literal["complete", "interrupted"]) -> None:
    folder.manifest.state = state
    folder.manifest.finished = datetime.now(UTC).isoformat(timespec="seconds")
    folder.save(folder.manifest)
