"""A service measured in an image, as a compose file that docker compose and podman-compose read."""

from __future__ import annotations

import io
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML

from bench.engines.containers import Container
from bench.errors import UsageError
from bench.service.nginx import Nginx

# Where the folder itself is mounted.
HERE = "/firsttoken/service"
CHECK_S, CHECKS = 30, 3
# A check waits its turn behind the requests that people send.
CHECK_TIMEOUT_S = 60


@dataclass(frozen=True, slots=True)
class Composed:
    """What a compose file is made of: the container as it was measured, its image, and the settings of its keeper."""

    name: str
    container: Container
    image: str
    # Where {model} lies on the host.
    weights: str
    settings: Mapping[str, Any]
    front: Nginx | None
    comment: str


def inside(container: Container, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings as the keeper needs them inside the container: its own words, and the weights where they are there.

    UsageError for a container that was given something of its launch's own.
    """
    model = dict(settings["model"])
    for host, there in container.folders:
        if host.startswith(("{folder}", "{programs}")):
            raise UsageError(
                f"the container was given {host}, which was its launch's own",
                hint="deploy it with --to script or --to systemd, where the engine is started as it was measured",
            )
        # {model} stands for the weights' own path.
        if host == "{model}":
            model["path"] = there
        elif model["path"].startswith(f"{host}/") or model["path"] == host:
            model["path"] = there + model["path"][len(host) :]
    env = {name: value for name, value in container.env.items() if value is not None}
    own: dict[str, Any] = {"argv": list(container.command), "env": env, "model": model}
    return {**settings, **own, "environments": [], "container": None}


def document(made: Composed) -> str:
    """compose.yaml."""
    instances = made.front.instances if made.front else 0
    services: dict[str, Any] = {}
    if made.front is None:
        services["engine"] = _engine(made, None)
    for number in range(1, instances + 1):
        services[f"engine-{number}"] = _engine(made, number)
    if made.front is not None:
        services["nginx"] = _nginx(made, made.front)
    text = io.StringIO()
    yaml: Any = YAML(typ="safe", pure=True)
    yaml.default_flow_style, yaml.width, yaml.sort_base_mapping_type_on_output = False, 10_000, False
    yaml.dump({"name": made.name.lower(), "services": services}, text)
    return f"# {made.comment}\n{text.getvalue()}"


def _engine(made: Composed, number: int | None) -> dict[str, Any]:
    settings, container = made.settings, made.container
    port = settings["port"] + (number or 0)
    mark = f"{HERE}/state/{number}/ready" if number else f"{HERE}/state/ready"
    keeper = ["python3", f"{HERE}/serve.py", "--stay", *(["--only", str(number)] if number else [])]
    check = ["python3", f"{HERE}/ready.py", f"http://{settings['host']}:{port}", "--after", mark]
    check += ["--timeout", str(CHECK_TIMEOUT_S)]
    for option in ("path", "model", "key_env"):
        if settings["ready"].get(option) is not None:
            check += [f"--{option.replace('_', '-')}", str(settings["ready"][option])]
    weights = [(host, there) for host, there in container.folders if not host.startswith("{caches}")]
    caches = [(host.replace("{caches}", "./caches"), there) for host, there in container.folders if "{caches}" in host]
    volumes = [f"{host.replace('{model}', made.weights)}:{there}:ro" for host, there in weights]
    volumes += [f"{host}:{there}" for host, there in caches]
    service: dict[str, Any] = {
        "image": made.image,
        "pull_policy": "missing" if "@" in made.image else "never",
        "entrypoint": _escaped(keeper),
        "command": [],
        "network_mode": "host",
        "ipc": "host",
        "env_file": ["./secrets.env"],
        "volumes": _escaped([f"./:{HERE}", *volumes]),
        "healthcheck": {
            "test": _escaped(["CMD", *check]),
            "interval": f"{CHECK_S}s",
            "timeout": f"{CHECK_TIMEOUT_S + 5}s",
            "retries": CHECKS,
            "start_period": f"{settings['ready']['timeout_s']}s",
        },
        # It starts its engine again itself, within limits, and then stays without one: this is for a reboot.
        "restart": "unless-stopped",
        "stop_grace_period": f"{int(settings['stop_timeout_s']) + 10}s",
        "logging": _logging(settings),
    }
    if container.init:
        service["init"] = True
    if settings["memory_mib"]:
        service["mem_limit"] = service["memswap_limit"] = f"{settings['memory_mib']}m"
    return service | _device(container.device)


def _device(words: tuple[str, ...]) -> dict[str, Any]:
    """What `run` was told of the accelerator, in compose's words."""
    told = dict(zip(words[::2], words[1::2], strict=True))
    found: dict[str, Any] = {}
    if "--runtime" in told:
        found["runtime"] = told["--runtime"]
    if "--device" in told:
        found["devices"] = [told["--device"]]
    if "--gpus" in told:
        found["deploy"] = {
            "resources": {"reservations": {"devices": [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]}}
        }
    return found


def _nginx(made: Composed, front: Nginx) -> dict[str, Any]:
    settings = made.settings
    prefix = "/tmp/nginx"  # inside its own container
    words = ["sh", "-c", f"mkdir -p {prefix} && exec nginx -p {prefix} -e stderr -c {HERE}/nginx.conf -g 'daemon off;'"]
    return {
        "image": front.image,
        "network_mode": "host",
        "entrypoint": _escaped(words),
        "command": [],
        "volumes": [f"./nginx.conf:{posixpath.join(HERE, 'nginx.conf')}:ro"],
        "depends_on": {
            f"engine-{number}": {"condition": "service_healthy"} for number in range(1, front.instances + 1)
        },
        "restart": "unless-stopped",
        "logging": _logging(settings),
    }


def _logging(settings: Mapping[str, Any]) -> dict[str, Any]:
    log = settings["log"]
    return {
        "driver": "json-file",
        "options": {"max-size": f"{log['bytes'] // 1_000_000}m", "max-file": str(log["files"])},
    }


def _escaped(words: list[str]) -> list[str]:
    """Words as compose reads them: a dollar would be a variable."""
    return [word.replace("$", "$$") for word in words]
