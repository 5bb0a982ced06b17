"""From a run and a variant to what serves it: settings made of what was recorded and nothing else."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.analyse.run import Launch, Run
from bench.engines import containers
from bench.engines.containers import Container
from bench.errors import RecordError, ScenarioError, UnknownName, UsageError
from bench.models.cache import digest, sha256
from bench.programs import serve_process
from bench.record.launches import Invocation
from bench.scenario.load import Scenario
from bench.scenario.variant import Variant
from bench.service import installation
from bench.service.nginx import Nginx
from bench.service.ready import WarmLimit, of_run
from bench.warmup.strategies import build

HOST = "127.0.0.1"
LAST_PORT = 65535
RESTARTS = {"most": 5, "within_s": 600, "pause_s": 2}
LOG = {"bytes": 10_000_000, "files": 5}
# A start may take so many times as long as the slowest that was measured, and never less than this.
START_MARGIN, START_LEAST_S = 3.0, 60
# What is left to the rest of the machine, of what was free before the engine was started to be measured.
RESERVE_MIB = 512
# What `bench serve` may take to end, beyond the time of the two engines that it may have.
SERVE_STOP_S = 30.0


@dataclass(frozen=True, slots=True)
class Deployment:
    """A measured variant on its way into a folder. `settings` becomes service.json."""

    run: Run
    variant: str
    settings: Mapping[str, Any]
    limit: WarmLimit
    cold_s: float
    caches: Path | None
    secrets: Sequence[str]
    # The container as it was measured, with places marked, and the image's own name for good.
    container: Container | None = None
    image: str | None = None
    front: Nginx | None = None
    # The scenario's text, where what the folder keeps is `bench serve`.
    scenario: str | None = None


def of(run: Run, name: str, port: int, front: Nginx | None = None) -> Deployment:
    """What a variant of a run is, as a service; BenchError for one whose record does not say all that it takes."""
    if front is not None and port + front.instances > LAST_PORT:
        raise UsageError(f"{front.instances} instances behind port {port} need ports above {LAST_PORT}")
    if name not in run.variants:
        raise UnknownName("variant", name, run.variants)
    launches = [launch for launch in run.all if launch.record.variant == name and launch.record.status == "ok"]
    if not launches:
        raise RecordError(f"{run.path} has no valid launch of {name}: what was not measured is not deployed")
    scenario, variant = asked(run, name)
    served = installation.needed(variant)
    if served:
        installation.check(scenario, variant)
        _alone(variant, launches, front)
        argv, env = installation.words(variant)
        environments = [_environment(installation.environment() / "bin" / "python")]
    command = _command(run, name, launches)
    model = _model(command, launches[-1])
    limit = of_run(run, name)
    cold_s = max(_cold_s(launch) for launch in launches)
    places = command.places
    container, image = _image(launches, command)
    if not served:
        argv, env, environments = _pinned(command.template.argv, container, image), dict(command.template.env), []
    if container is None:
        environments.append(_environment(Path(command.argv[0])))
    settings = {
        "made_from": {
            "run": run.manifest.run_id,
            "path": str(run.path.absolute()),
            "scenario": run.manifest.scenario,
            "variant": name,
            "firsttoken": run.manifest.versions.get("firsttoken"),
            "measured": run.manifest.created,
        },
        "host": HOST,
        "port": port,
        "argv": argv,
        "env": env,
        "model": model,
        # The engine's, and firsttoken's own where it starts the engine; once where they are the same.
        "environments": [one for at, one in enumerate(environments) if one and one not in environments[:at]],
        "container": None
        if container is None
        else {
            "program": container.program,
            "image": image,
            "id": launches[-1].record.facts["image_id"],
            "removal": list(containers.removal(command.template.argv)),
        },
        "front": None,
        "ready": {
            "within_ms": round(limit.within_ms, 3),
            "timeout_s": max(START_LEAST_S, math.ceil(START_MARGIN * cold_s)),
            "path": limit.path,
            "words": limit.words,
            "model": command.served_model or None,
            "warmup": [] if served else _warmup(scenario, variant),
            "key_env": variant.engine.api_key_env,
        },
        "restarts": RESTARTS,
        "log": LOG,
        "memory_mib": _memory(launches),
        "stop_signal": "SIGTERM" if served else command.stop_signal,
        "stop_timeout_s": 2 * command.stop_timeout_s + SERVE_STOP_S if served else command.stop_timeout_s,
    }
    caches = Path(places["caches"]) if places["caches"] else None
    text = scenario.text if served else None
    return Deployment(run, name, settings, limit, cold_s, caches, command.secrets, container, image, front, text)


def _alone(variant: Variant, launches: Sequence[Launch], front: Nginx | None) -> None:
    """UsageError where `bench serve` would have to share what there is one of, or start what cannot be pinned."""
    if variant.start == "restored" and front is not None and front.instances > 1:
        raise UsageError(
            f"{variant.id} was restored from an image, and one image is one engine at a time",
            hint="deploy it with one instance, or its twin with `start: exec` with several",
        )
    if launches[-1].record.facts.get("image"):
        raise UsageError(
            f"{variant.id} was measured in an image, which `bench serve` would start by its tag and not by its digest",
            hint="deploy the variant that differs in nothing but `start: exec` and no hand-over",
        )


def _command(run: Run, name: str, launches: Sequence[Launch]) -> Invocation:
    """How the variant's own engine was started, the same in all its launches."""
    found = [
        launch.record.hand_over.command if launch.record.hand_over else launch.record.command for launch in launches
    ]
    last = found[-1]
    if last is None:
        attached = launches[-1].record.facts.get("attached")
        raise RecordError(
            f"{name} is a server that ran already: there is no command to deploy"
            if attached
            else f"{run.path} was recorded before commands were: it does not say how {name} was started",
            hint=None if attached else "run the scenario once more",
        )
    templates = {json.dumps(asdict(one.template), sort_keys=True) for one in found if one is not None}
    if len(templates) > 1:
        raise RecordError(f"the launches of {name} in {run.path} were not started with the same words")
    for place in ("{programs}", "{folder}"):
        if re.fullmatch(re.escape(place), last.template.argv[0]):
            raise RecordError(f"the command of {name} is damaged: {last.template.argv[0]}")
    return last


def asked(run: Run, name: str) -> tuple[Scenario, Variant]:
    """The variant as the scenario asked for it."""
    try:
        scenario = Scenario.parse(run.manifest.scenario_text, f"{run.manifest.scenario}.yaml")
    except ScenarioError as error:
        raise RecordError(f"the scenario of {run.path} cannot be read any more:\n{error}") from error
    for variant in scenario.variants:
        if variant.id == name:
            if variant.slowdown is not None:
                raise UsageError(f"{name} was slowed down on purpose: nobody wants to be served like that")
            return scenario, variant
    raise UsageError(
        f"{name} is no variant of the scenario itself, so its warm-up is not known",
        hint=f"deploy one of {', '.join(variant.id for variant in scenario.variants)}",
    )


def _warmup(scenario: Scenario, variant: Variant) -> list[str]:
    """The strategy's requests as the gate takes them: words, output tokens, how many; and paths to POST to."""
    shapes: list[str] = []
    for stage in build(variant.warmup).stages(scenario.model.workload):
        shapes += stage.calls
        share = -(-stage.requests // max(len(stage.buckets), 1))
        shapes += [f"{bucket}:{stage.output_tokens}:{share}" for bucket in stage.buckets if stage.requests]
    return shapes


def _model(command: Invocation, launch: Launch) -> dict[str, Any]:
    """The weights' files with their checksums; RecordError if they are no longer those that were measured."""
    place, measured = command.places["model"], launch.record.facts.get("checkpoint_digest")
    if place is None or measured is None:
        raise RecordError(f"the record of {launch.id} names no weights: they could not be checked before a start")
    path = Path(place)
    if not path.exists():
        raise RecordError(f"the weights that were measured are gone: {path}")
    root = path.parent if path.is_file() else path
    sums = {name: sha256(root / name) for name in _weights(path)}
    if digest(sums) != measured:
        raise RecordError(
            f"{path} is not what was measured: its digest is {digest(sums)[:12]}…, the run's {str(measured)[:12]}…",
            hint="run the scenario once more with these weights, and deploy that",
        )
    return {"path": str(path), "folder": path.is_dir(), "digest": measured, "files": sums}


def _weights(path: Path) -> list[str]:
    """The names that the checkpoint's digest was made over: a file's own, an entry's list, or all files of a folder."""
    if path.is_file():
        return [path.name]
    try:
        listed = json.loads((path / "entry.json").read_text(encoding="utf-8"))["files"]
    except FileNotFoundError:
        return sorted(file.name for file in path.iterdir() if file.is_file())
    return sorted(listed)


def _image(launches: Sequence[Launch], command: Invocation) -> tuple[Container | None, str | None]:
    """The container as it was measured, and a name of its image that can mean no other one; (None, None) without."""
    facts = [launch.record.facts for launch in launches]
    if not facts[-1].get("image"):
        return None, None
    container = containers.parse(command.template.argv)
    name = facts[-1]["image"]
    if container is None:
        raise RecordError(f"the record does not say how the image {name} was run")
    ids = {one.get("image_id") for one in facts}
    if None in ids:
        raise RecordError(f"{name} was recorded before digests of images were", hint="run the scenario once more")
    if len(ids) > 1:
        raise RecordError(f"the launches ran in {len(ids)} different images, all called {name}")
    return container, str(facts[-1].get("image_digest") or facts[-1]["image_id"])


def _pinned(words: Sequence[str], container: Container | None, image: str | None) -> list[str]:
    """The words with the image by digest: a tag may have moved on."""
    if container is None or image is None:
        return list(words)
    at = len(words) - len(container.command)
    return [*words[:at], image, *words[at + 1 :]]


def _memory(launches: Sequence[Launch]) -> int | None:
    """What the service may take, MiB: what there was for it when it was measured, less a reserve; None if unknown.

    On unified memory the engine's weights and everybody else's pages are the same bytes: an engine that grows beyond
    this is to die of it, and not the board. What a driver allocates outside the kernel's accounts is not bounded.
    """
    before = [launch.record.memory.before for launch in launches]
    free = [state.available_mib for state in before if state is not None and state.available_mib is not None]
    return max(int(min(free)) - RESERVE_MIB, RESERVE_MIB) if free else None


def _environment(interpreter: Path) -> dict[str, str] | None:
    """The virtual environment that a program runs in, and a digest of what is installed there; None outside one."""
    folder = interpreter.parent.parent
    if not (folder / "pyvenv.cfg").is_file():
        return None
    return {"path": str(folder), "digest": serve_process.packages(folder)}


def _cold_s(launch: Launch) -> float:
    """From the spawn to the first token of the engine that stays: until it took over, where another answered first."""
    stamps, handed = launch.record.stamps, launch.record.hand_over
    begin, end = stamps.get("spawn"), handed.over_ns if handed else stamps.get("first_token")
    if begin is None or end is None:
        raise RecordError(f"{launch.id} has no cold start, and so no measure for a start's patience")
    return (end - begin) / 1e9
