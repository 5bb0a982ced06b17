"""The same engine from an image: `docker run` or `podman run` around the same command line, read back, and ended.

A client that is killed leaves its container behind: docker's belongs to a daemon, podman's to a process of its own. So
whoever guards a launch also has the words that remove its container by name.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from bench.engines.compile_caches import COMPILE_CACHES
from bench.errors import LaunchError
from bench.phrases import why
from bench.scenario.redaction import secret

MODEL, CACHES = "/firsttoken/model", "/firsttoken/caches"
# Which of the two, where both are installed or it has another name: docker comes first.
CHOICE = "FIRSTTOKEN_CONTAINERS"
PROGRAMS = ("docker", "podman")
# Where podman looks for the init that `--init` puts into a container; Debian only recommends that package.
_INITS = ("/usr/libexec/podman", "/usr/local/libexec/podman", "/usr/lib/podman", "/usr/local/lib/podman")
ANSWER_S = 60.0


@dataclass(frozen=True, slots=True)
class Device:
    """How a container gets at the accelerator: words for `run`."""

    name: str
    docker: tuple[str, ...]
    podman: tuple[str, ...]


JETSON = Device("jetson", ("--runtime", "nvidia"), ("--device", "nvidia.com/gpu=all"))
NVIDIA = Device("nvidia", ("--gpus", "all"), ("--device", "nvidia.com/gpu=all"))
NONE = Device("cpu", (), ())


@dataclass(frozen=True, slots=True)
class Container:
    """The words of `run`, taken apart. A variable without a value comes from the environment of whoever runs it."""

    program: str
    name: str
    image: str
    command: tuple[str, ...]
    env: Mapping[str, str | None]
    folders: tuple[tuple[str, str], ...]
    device: tuple[str, ...] = ()
    init: bool = True


def device(root: Path = Path("/")) -> Device:
    """Which of them this machine needs."""
    if (root / "etc/nv_tegra_release").exists() or (root / "sys/class/tegra-firmware").exists():
        return JETSON
    return NVIDIA if (root / "proc/driver/nvidia/version").exists() else NONE


def runner(image: str) -> str:
    """docker or podman: the one that FIRSTTOKEN_CONTAINERS names, else the first that is installed; LaunchError."""
    if chosen := os.environ.get(CHOICE):
        if shutil.which(chosen) is None or kind(chosen) is None:
            raise LaunchError("missing_file", f"{CHOICE} names {chosen}, which is no docker or podman here")
        return chosen
    program = next((found for found in PROGRAMS if shutil.which(found)), None)
    if program is None:
        raise LaunchError("missing_file", f"the image {image} needs docker or podman, and neither is installed")
    return program


def kind(program: str) -> str | None:
    """`docker` or `podman`, by the name of the program; None for another."""
    name = Path(program).name
    return next((known for known in PROGRAMS if name.startswith(known)), None)


def run(
    image: str,
    command: Sequence[str],
    *,
    name: str,
    env: Mapping[str, str],
    folders: Mapping[Path, str],
) -> tuple[str, ...]:
    """The words that start `command` in a container; host folders are mounted, those below MODEL read-only.

    Host network, so that port and span sink are where they are without a container; host IPC, which PyTorch's workers
    share tensors through; an init process, so that a polite stop reaches every child. Variables with a secret's name
    are passed on from the environment of whoever runs the words: on a command line anybody could read them.
    """
    program = runner(image)
    podman = kind(program) == "podman"
    on = device()
    words = [program, "run", "--rm", *([] if podman and not _has_init() else ["--init"])]
    words += ["--name", name, "--network", "host", "--ipc", "host"]
    words += on.podman if podman else on.docker
    for host, inside in folders.items():
        words += ["--volume", f"{host}:{inside}" + (":ro" if inside.startswith(MODEL) else "")]
    for variable, value in env.items():
        words += ["--env", variable if secret(variable) else f"{variable}={value}"]
    return (*words, "--entrypoint", command[0], image, *command[1:])


def around(
    image: str, command: Sequence[str], *, port: int, env: Mapping[str, str], folders: Mapping[Path, str]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """What an engine on `port` is launched with instead of `command` and `env`: the words of `run`, and what of the
    variables whoever runs them must have.

    Compiled code is kept in folders of this machine, also for what runs inside: every variable that names one of them
    is made to name its mount instead. LaunchError where there can be no such folder.
    """
    inside, mounted = dict(env), dict(folders)
    for variable, name in COMPILE_CACHES.items():
        if variable in inside:
            host = Path(inside[variable]).absolute()
            try:
                host.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise LaunchError("bad_argument", f"{variable}: {host} cannot be made: {why(error)}") from error
            mounted[host] = inside[variable] = f"{CACHES}/{name}"
    argv = run(image, command, name=f"firsttoken-{port}", env=inside, folders=mounted)
    return argv, outside(inside)


def outside(env: Mapping[str, str]) -> dict[str, str]:
    """What of a container's variables the program that runs it must have itself: those that `run` only names."""
    return {name: value for name, value in env.items() if secret(name)}


def parse(words: Sequence[str]) -> Container | None:
    """What `run` put together, taken apart; None for words that are not its own."""
    if len(words) < 2 or kind(words[0]) is None or words[1] != "run":
        return None
    rest, env, folders, on, given = list(words[2:]), dict[str, str | None](), [], [], {}
    init = False
    while rest and rest[0].startswith("--"):
        flag = rest.pop(0)
        if flag in ("--rm", "--init"):
            init = init or flag == "--init"
            continue
        if not rest:
            return None
        value = rest.pop(0)
        if flag == "--volume":
            host, _, inside = value.removesuffix(":ro").rpartition(":")
            folders.append((host, inside))
        elif flag == "--env":
            variable, equals, text = value.partition("=")
            env[variable] = text if equals else None
        elif flag in ("--runtime", "--gpus", "--device"):
            on += [flag, value]
        else:
            given[flag] = value
    if not rest or not {"--name", "--entrypoint"} <= set(given):
        return None
    command = (given["--entrypoint"], *rest[1:])
    return Container(words[0], given["--name"], rest[0], command, env, tuple(folders), tuple(on), init)


def removal(words: Sequence[str]) -> tuple[str, ...]:
    """The words that end and remove the container that a command line starts under a name; none for any other."""
    for at, (program, order) in enumerate(pairwise(words)):
        if order == "run" and (known := kind(program)) and "--name" in words[at:-1]:
            name = words[list(words).index("--name", at) + 1]
            quiet = ("--ignore", "--time", "0") if known == "podman" else ()
            return (program, "rm", "--force", *quiet, name)
    return ()


def present(words: Sequence[str]) -> dict[str, str | None]:
    """The facts `image`, `image_id` and `image_digest` of a command line's image, which is fetched if it is not here.

    The id names the very bytes; the digest is what a registry knows it by, None for an image that was made here. Done
    before anything is measured: a start that downloads tells nothing. LaunchError if it cannot be had.
    """
    container = parse(words)
    if container is None:
        return {}
    program, image = container.program, container.image
    inspect = [program, "image", "inspect", image]
    done = _asked(inspect, ANSWER_S)
    if done.returncode:
        fetched = _asked([program, "pull", "--quiet", image], None)
        if fetched.returncode:
            message = f"the image {image} is not on this machine and cannot be fetched: {_last(fetched.stderr)}"
            raise LaunchError("missing_file", message)
        done = _asked(inspect, ANSWER_S)
    try:
        (told,) = json.loads(done.stdout)
        digests = [str(one) for one in told["RepoDigests"] or ()]
        found = str(told["Id"]).removeprefix("sha256:")
    except (ValueError, LookupError, TypeError):
        raise LaunchError("internal", f"{program} does not say which image {image} is: {_last(done.stderr)}") from None
    fetchable = [one for one in digests if not one.startswith("localhost/")]
    return {"image": image, "image_id": f"sha256:{found}", "image_digest": fetchable[0] if fetchable else None}


def holds(program: str, image: str, words: Sequence[str]) -> bool:
    """Whether a program of an image can be run: started once in a container without a network."""
    asked = [program, "run", "--rm", "--network", "none", "--entrypoint", words[0], image, *words[1:]]
    return _asked(asked, ANSWER_S).returncode == 0


def _asked(words: Sequence[str], timeout_s: float | None) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            words, capture_output=True, text=True, errors="replace", stdin=subprocess.DEVNULL, timeout=timeout_s
        )
    except subprocess.TimeoutExpired:
        raise LaunchError("internal", f"{words[0]} did not answer `{words[1]} …` within {timeout_s:g} s") from None
    except OSError as error:
        raise LaunchError("missing_file", f"{words[0]} cannot be started: {error.strerror}") from None


def _last(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("Error: ") if lines else "it said nothing"


def _has_init() -> bool:
    """Whether podman finds an init to put into containers."""
    return any(Path(folder, "catatonit").exists() for folder in _INITS) or shutil.which("catatonit") is not None
