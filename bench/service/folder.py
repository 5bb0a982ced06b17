"""A deployed folder: its files for each keeper, written beside its name and renamed once."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench import programs
from bench.engines import containers
from bench.errors import UsageError
from bench.home import writing
from bench.programs import ready_process, serve_process
from bench.programs.ready_process import CHAT
from bench.report import html
from bench.service import compose, installation, nginx, prometheus
from bench.service.deploy import LOG, Deployment
from bench.service.filling import filled

TARGETS = ("script", "systemd", "compose")
# Whoever kills a start that takes longer leaves the gate the time to say so first.
START_GRACE_S = 30
# How long nginx waits for an engine's next token: as the load generator does.
READ_TIMEOUT_S = 600
# What watches the service lies in a folder of its own.
MONITOR = "monitor"
MODES = {"secrets.env": 0o600, "start.sh": 0o755}


def write(deployment: Deployment, folder: Path, target: str, watched: bool = False) -> list[Path]:
    """Write the folder for a keeper of TARGETS, `watched` with what a monitor needs; the files in order of interest.

    UsageError if there is something in it already, or where the keeper cannot keep what was measured.
    """
    folder = folder.absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder} is not empty", hint="name a new folder, or remove this one")
    made, how = {"script": _script, "systemd": _systemd, "compose": _compose}[target](deployment, folder)
    settings = deployment.settings
    if deployment.front is not None:
        made["nginx.conf"] = nginx.configuration(deployment.front, settings["host"], settings["port"], READ_TIMEOUT_S)
    about = _about(deployment, folder)
    made["README.md"] = filled("README.md.j2", about | how)
    made["secrets.env"] = filled("secrets.env.j2", about)
    made["ready.py"] = Path(ready_process.__file__).read_text(encoding="utf-8")
    made["serve.py"] = Path(serve_process.__file__).read_text(encoding="utf-8")
    if deployment.scenario is not None:
        made[installation.SCENARIO] = deployment.scenario
    made["evidence.html"] = html.render([deployment.run])
    if watched:
        made[f"{MONITOR}/watch.yaml"] = filled("watch.yaml.j2", about | _watched(deployment))
        made |= {f"{MONITOR}/{name}": text for name, text in prometheus.files().items()}
    return _written(deployment, folder, made)


def _about(deployment: Deployment, folder: Path) -> dict[str, Any]:
    settings, instances = deployment.settings, deployment.front.instances if deployment.front else 1
    return {
        "variant": deployment.variant,
        "run": deployment.run.manifest.run_id,
        "folder": str(folder),
        "name": _unit_name(deployment),
        "description": _escaped(deployment.variant),
        "host": settings["host"],
        "port": settings["port"],
        "behind": f", {instances} of them behind nginx" if deployment.front else "",
        "within_ms": settings["ready"]["within_ms"],
        "evidence": deployment.limit.evidence,
        "ready_timeout_s": settings["ready"]["timeout_s"],
        "start_timeout_s": settings["ready"]["timeout_s"] + START_GRACE_S,
        "stop_timeout_s": math.ceil(settings["stop_timeout_s"]) + 10,
        "cold_s": deployment.cold_s,
        "restarts": settings["restarts"],
        "secrets": deployment.secrets,
        # The limit is one engine's; several need as much each, and nginx and the keeper a little.
        "memory_mib": None if deployment.container else settings["memory_mib"],
        "container": settings["container"],
        "removals": [
            " ".join(settings["container"]["removal"]).replace("{port}", str(settings["port"] + number))
            for number in ([0] if deployment.front is None else range(1, instances + 1))
        ]
        if settings["container"]
        else [],
        # Who finds the folder without these two cannot start it.
        "needs": {"python": settings["argv"][0], "home": settings["env"]["FIRSTTOKEN_HOME"]}
        if deployment.scenario is not None
        else None,
        "keeper_words": "--stdout" if deployment.front else "--once",
    }


def _watched(deployment: Deployment) -> dict[str, Any]:
    """How a monitor asks the front door: as the gate does, and with the run's own figures as limits."""
    ready = deployment.settings["ready"]
    return {
        "model": ready["model"],
        "asked": "chat" if ready["path"] == CHAT else "completions",
        "key_env": ready["key_env"],
        "words": ready["words"],
        "evidence_at": shlex.quote(str(deployment.run.path.absolute())),
    }


def _kept(deployment: Deployment) -> dict[str, Any]:
    """service.json for a keeper on this machine."""
    settings = dict(deployment.settings)
    if deployment.front is not None:
        settings["front"] = {"instances": deployment.front.instances, "nginx": nginx.program()}
    return settings


def _script(deployment: Deployment, folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    how = {
        "start": "`./start.sh` starts it and stays in the foreground; TERM or Ctrl-C ends it and all its children.",
        "logs": f"Its log lies in `logs/`, {LOG['files']} files of {LOG['bytes'] // 1_000_000} MB at most.",
    }
    made = {"service.json": _json(_kept(deployment)), "start.sh": filled("start.sh.j2", _about(deployment, folder))}
    return made, how


def _systemd(deployment: Deployment, folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    if unsafe := re.search(r"[\s\"'\\%$]", str(folder)):
        raise UsageError(
            f"{folder} has {unsafe[0]!r} in its path, which systemd reads in its own way", hint="choose a plain path"
        )
    about = _about(deployment, folder)
    name = about["name"]
    how = {
        "start": f"`systemctl link {folder}/{name}.service && systemctl enable --now {name}` "
        "starts it, now and with the machine.",
        "logs": "Its log is the journal's.",
    }
    made = {"service.json": _json(_kept(deployment)), f"{name}.service": filled("unit.service.j2", about)}
    return made, how


def _compose(deployment: Deployment, folder: Path) -> tuple[dict[str, str], dict[str, str]]:
    container, image = deployment.container, deployment.image
    if deployment.scenario is not None:
        raise UsageError(
            f"{deployment.variant} is started by an installed firsttoken, which is not in the engine's image",
            hint="--to systemd or --to script keeps it as it was measured",
        )
    if container is None or image is None:
        raise UsageError(
            f"{deployment.variant} was measured in an environment of this machine and not in an image: "
            "in a container it would be something else",
            hint="--to systemd keeps it as it was measured; or measure it with `image:` and deploy that",
        )
    if not containers.holds(container.program, image, ["python3", "--version"]):
        raise UsageError(
            f"the image {container.image} has no python3, which keeper and health check run by inside it",
            hint="--to script or --to systemd runs the same image, with both outside it",
        )
    inner = compose.inside(container, deployment.settings)
    name = re.sub(r"[^a-z0-9_-]+", "-", _unit_name(deployment).lower()).strip("-_")[:60]
    comment = f"{_escaped(deployment.variant)} as it was measured in run {deployment.run.manifest.run_id}."
    weights = str(deployment.settings["model"]["path"])
    made = compose.Composed(name, container, image, weights, inner, deployment.front, comment)
    how = {
        "start": "`docker compose up -d` or `podman-compose up -d` in this folder starts it; `down` ends it.",
        "logs": f"Its log is the container's, {LOG['files']} files of {LOG['bytes'] // 1_000_000} MB at most.",
    }
    return {"service.json": _json(inner), "compose.yaml": compose.document(made)}, how


def _written(deployment: Deployment, folder: Path, made: Mapping[str, str]) -> list[Path]:
    """All files beside the folder's final name, renamed once: nobody finds half a service."""
    draft = folder.with_name(f".{folder.name}.partial")
    try:
        with writing(folder):
            _draft(deployment, draft, made)
            if folder.exists():
                folder.rmdir()
            draft.rename(folder)
    except BaseException:
        # Whoever runs out of room here is not helped by what is left of it.
        shutil.rmtree(draft, ignore_errors=True)
        raise
    return [folder / name for name in made]


def _draft(deployment: Deployment, draft: Path, made: Mapping[str, str]) -> None:
    shutil.rmtree(draft, ignore_errors=True)
    for part in ("state", "logs", "caches"):
        (draft / part).mkdir(parents=True)
    for name, text in made.items():
        mode = MODES.get(name, 0o644)
        (draft / name).parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(draft / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        (draft / name).chmod(mode)
    words = [*deployment.settings["argv"], *deployment.settings["env"].values()]
    if any("{programs}" in word for word in words):
        shutil.copytree(programs.FOLDER, draft / "programs", ignore=shutil.ignore_patterns("__pycache__"))
    if deployment.caches and deployment.caches.is_dir() and any("{caches}" in word for word in words):
        shutil.copytree(deployment.caches, draft / "caches", dirs_exist_ok=True)
    # A folder that is mounted must be there.
    for host, _ in deployment.container.folders if deployment.container else ():
        if host.startswith("{caches}"):
            Path(host.replace("{caches}", str(draft / "caches"))).mkdir(parents=True, exist_ok=True)


def _json(settings: Mapping[str, Any]) -> str:
    return json.dumps(settings, indent=1, ensure_ascii=False) + "\n"


def _unit_name(deployment: Deployment) -> str:
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{deployment.run.manifest.scenario}-{deployment.variant}").strip("-.")
    # A unit's name may have 255 characters.
    return name if len(name) < 200 else f"{name[:180]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _escaped(text: str) -> str:
    """Text in a unit file: no specifiers, one line."""
    return " ".join(text.replace("%", "%%").split())
