"""From a run and a variant to a folder that serves it: plain files, made of what was recorded and nothing else."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from bench import programs
from bench.analyse.run import Launch, Run
from bench.errors import RecordError, ScenarioError, UnknownName, UsageError
from bench.home import writing
from bench.models.cache import digest, sha256
from bench.programs import ready_process, serve_process
from bench.record.launches import Invocation
from bench.report import html
from bench.scenario.load import Scenario
from bench.scenario.variant import Variant
from bench.service.ready import WarmLimit, of_run
from bench.warmup.strategies import build

HOST = "127.0.0.1"
RESTARTS = {"most": 5, "within_s": 600, "pause_s": 2}
LOG = {"bytes": 10_000_000, "files": 5}
# A start may take so many times as long as the slowest that was measured, and never less than this.
START_MARGIN, START_LEAST_S = 3.0, 60
# Whoever kills a start that takes longer leaves the gate the time to say so first.
START_GRACE_S = 30
TARGETS = ("script", "systemd")


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


def of(run: Run, name: str, port: int) -> Deployment:
    """What a variant of a run is, as a service; BenchError for one whose record does not say all that it takes."""
    if name not in run.variants:
        raise UnknownName("variant", name, run.variants)
    launches = [launch for launch in run.all if launch.record.variant == name and launch.record.status == "ok"]
    if not launches:
        raise RecordError(f"{run.path} has no valid launch of {name}: what was not measured is not deployed")
    command = _command(run, name, launches)
    scenario, variant = asked(run, name)
    model = _model(command, launches[-1])
    limit = of_run(run, name)
    cold_s = max(_cold_s(launch) for launch in launches)
    places = command.places
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
        "argv": command.template.argv,
        "env": command.template.env,
        "model": model,
        "environment": _environment(Path(command.argv[0])),
        "ready": {
            "within_ms": round(limit.within_ms, 3),
            "timeout_s": max(START_LEAST_S, math.ceil(START_MARGIN * cold_s)),
            "path": limit.path,
            "words": limit.words,
            "model": command.served_model or None,
            "warmup": _warmup(scenario, variant),
            "key_env": variant.engine.api_key_env,
        },
        "restarts": RESTARTS,
        "log": LOG,
        "stop_signal": command.stop_signal,
        "stop_timeout_s": command.stop_timeout_s,
    }
    caches = Path(places["caches"]) if places["caches"] else None
    return Deployment(run, name, settings, limit, cold_s, caches, command.secrets)


def write(deployment: Deployment, folder: Path, target: str) -> list[Path]:
    """Write the folder; the files in order of interest. UsageError if there is something in it already."""
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not empty", hint="name a new folder, or remove this one")
    settings = deployment.settings
    about = {
        "variant": deployment.variant,
        "run": deployment.run.manifest.run_id,
        "folder": str(folder),
        "name": _unit_name(deployment),
        "description": _escaped(deployment.variant),
        "host": settings["host"],
        "port": settings["port"],
        "within_ms": settings["ready"]["within_ms"],
        "evidence": deployment.limit.evidence,
        "ready_timeout_s": settings["ready"]["timeout_s"],
        "start_timeout_s": settings["ready"]["timeout_s"] + START_GRACE_S,
        "stop_timeout_s": math.ceil(settings["stop_timeout_s"]) + 10,
        "cold_s": deployment.cold_s,
        "restarts": settings["restarts"],
        "secrets": deployment.secrets,
    }
    made: dict[str, str] = {"service.json": json.dumps(settings, indent=1, ensure_ascii=False) + "\n"}
    if target == "systemd":
        if unsafe := re.search(r"[\s\"'\\%$]", str(folder)):
            raise UsageError(
                f"{folder} has {unsafe[0]!r} in its path, which systemd reads in its own way",
                hint="choose a plain path",
            )
        made[f"{about['name']}.service"] = _filled("unit.service.j2", about)
        how = {
            "start": f"`systemctl link {folder}/{about['name']}.service && systemctl enable --now {about['name']}` "
            "starts it, now and with the machine.",
            "logs": "Its log is the journal's.",
        }
    else:
        made["start.sh"] = _filled("start.sh.j2", about)
        how = {
            "start": "`./start.sh` starts it and stays in the foreground; TERM or Ctrl-C ends it and all its children.",
            "logs": f"Its log lies in `logs/`, {LOG['files']} files of {LOG['bytes'] // 1_000_000} MB at most.",
        }
    made["README.md"] = _filled("README.md.j2", about | how)
    made["secrets.env"] = _filled("secrets.env.j2", about)
    made["ready.py"] = Path(ready_process.__file__).read_text(encoding="utf-8")
    made["serve.py"] = Path(serve_process.__file__).read_text(encoding="utf-8")
    made["evidence.html"] = html.render([deployment.run])
    return _written(deployment, folder, made)


def _written(deployment: Deployment, folder: Path, made: Mapping[str, str]) -> list[Path]:
    """All files beside the folder's final name, renamed once: nobody finds half a service."""
    draft = folder.with_name(f".{folder.name}.partial")
    with writing(folder):
        shutil.rmtree(draft, ignore_errors=True)
        for part in ("state", "logs", "caches"):
            (draft / part).mkdir(parents=True)
        for name, text in made.items():
            mode = {"secrets.env": 0o600, "start.sh": 0o755}.get(name, 0o644)
            descriptor = os.open(draft / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
            (draft / name).chmod(mode)
        words = [*deployment.settings["argv"], *deployment.settings["env"].values()]
        if any("{programs}" in word for word in words):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(programs.FOLDER, draft / "programs", ignore=ignored)
        if deployment.caches and deployment.caches.is_dir() and any("{caches}" in word for word in words):
            shutil.copytree(deployment.caches, draft / "caches", dirs_exist_ok=True)
        if folder.exists():
            folder.rmdir()
        draft.rename(folder)
    return [folder / name for name in made]


def _command(run: Run, name: str, launches: Sequence[Launch]) -> Invocation:
    """How the variant was started, the same in all its launches."""
    found = [launch.record.command for launch in launches]
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
    if launches[-1].record.facts.get("image"):
        raise UsageError(
            f"{name} was measured in an image, which cannot be deployed yet", hint="serve it with bench serve"
        )
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
            if variant.start != "exec":
                raise UsageError(
                    f"{name} was forked from a warm parent, and what is deployed has none: it starts by exec",
                    hint="deploy the variant that differs in nothing but `start: exec`",
                )
            return scenario, variant
    raise UsageError(
        f"{name} is no variant of the scenario itself, so its warm-up is not known",
        hint=f"deploy one of {', '.join(variant.id for variant in scenario.variants)}",
    )


def _warmup(scenario: Scenario, variant: Variant) -> list[str]:
    """The strategy's requests as the gate takes them: words, output tokens, how many."""
    shapes = []
    for stage in build(variant.warmup).stages(scenario.model.workload):
        if stage.calls:
            raise UsageError(
                f"the warm-up of {variant.id} calls {stage.calls[0]}, which a deployed service does not do"
            )
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


def _environment(interpreter: Path) -> dict[str, str] | None:
    """The virtual environment that a program runs in, and a digest of what is installed there; None outside one."""
    folder = interpreter.parent.parent
    if not (folder / "pyvenv.cfg").is_file():
        return None
    return {"path": str(folder), "digest": serve_process.packages(folder)}


def _cold_s(launch: Launch) -> float:
    stamps = launch.record.stamps
    begin, end = stamps.get("spawn"), stamps.get("first_token")
    if begin is None or end is None:
        raise RecordError(f"{launch.id} has no cold start, and so no measure for a start's patience")
    return (end - begin) / 1e9


def _unit_name(deployment: Deployment) -> str:
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{deployment.run.manifest.scenario}-{deployment.variant}").strip("-.")
    # A unit's name may have 255 characters.
    return name if len(name) < 200 else f"{name[:180]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _escaped(text: str) -> str:
    """Text in a unit file: no specifiers, one line."""
    return " ".join(text.replace("%", "%%").split())


@cache
def _environment_of_templates() -> Environment:
    return Environment(
        loader=PackageLoader("bench.service", "templates"),
        autoescape=False,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _filled(template: str, about: Mapping[str, Any]) -> str:
    return _environment_of_templates().get_template(template).render(about)
