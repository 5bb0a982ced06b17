"""The real podman, on machines that let containers run in a mount namespace of their own only; images made here."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from bench.engines import containers

SETTINGS = """
[containers]
default_ulimits = ["nofile=1000:1000", "nproc=500:500"]
cgroups = "disabled"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
# A store of the test's own, and control groups of a namespace of its own: the product knows nothing of either.
CLIENT = """#!/bin/sh
export CONTAINERS_CONF={folder}/containers.conf
exec unshare -m sh -c 'umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; \
exec {real} --root {folder}/store --runroot {folder}/run "$@"' podman "$@"
"""


@dataclass(frozen=True)
class Podman:
    """A client on PATH, and an image of busybox by name and id."""

    client: Path
    image: str
    image_id: str

    def asked(self, *words: str) -> str:
        """What it answers."""
        return subprocess.run([self.client, *words], capture_output=True, text=True, check=True, timeout=120).stdout

    def running(self) -> list[str]:
        """Names of all containers, ended ones too."""
        return self.asked("ps", "--all", "--format", "{{.Names}}").split()

    def imported(self, root: Path, name: str) -> str:
        """An image of a folder; its id."""
        archive = root.with_suffix(".tar")
        with tarfile.open(archive, "w") as tar:
            tar.add(root, ".")
        told = self.asked("import", str(archive), name)
        archive.unlink()
        return f"sha256:{told.strip().rpartition(':')[2]}"


def wanting() -> str | None:
    """Why containers cannot be run here; None if they can."""
    if os.geteuid() != 0:
        return "needs root: containers run in a mount namespace of the test's own"
    for program in ("podman", "crun", "unshare"):
        if shutil.which(program) is None:
            return f"needs {program} (apt-get install podman crun)"
    if not Path("/bin/busybox").exists():
        return "needs a static busybox (apt-get install busybox-static)"
    return None


@pytest.fixture(scope="session")
def podman_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    if why := wanting():
        pytest.skip(why)
    real = shutil.which("podman")
    # Paths of sockets in it may have 107 characters.
    folder = tmp_path_factory.mktemp("pod")
    (folder / "containers.conf").write_text(SETTINGS)
    (folder / "bin").mkdir()
    client = folder / "bin" / "podman"
    client.write_text(CLIENT.format(folder=folder, real=real))
    client.chmod(0o755)
    made = Podman(client, "localhost/busybox:1", "")
    root = folder / "root"
    (root / "bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin" / "busybox")
    (root / "bin" / "sh").symlink_to("busybox")
    try:
        image_id = made.imported(root, made.image)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"podman cannot make images here: {error.stderr[-200:]}")
    probe: Sequence[str] = ["run", "--rm", "--network", "host", "--entrypoint", "sh", made.image, "-c", "exit 0"]
    done = subprocess.run([client, *probe], capture_output=True, text=True, timeout=120)
    if done.returncode:
        pytest.skip(f"podman cannot run containers here: {done.stderr[-200:]}")
    yield Podman(client, made.image, image_id)
    made.asked("rm", "--all", "--force", "--time", "0")


@pytest.fixture
def podman(podman_store: Podman, monkeypatch: pytest.MonkeyPatch) -> Iterator[Podman]:
    """Chosen for the harness, whatever else is installed; no container outlives a test."""
    monkeypatch.setenv("PATH", f"{podman_store.client.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv(containers.CHOICE, "podman")
    yield podman_store
    podman_store.asked("rm", "--all", "--force", "--time", "0")


def programs(root: Path, files: Mapping[Path, str]) -> None:
    """Put programs of this machine into an image's root, each under a name, with the libraries that they load."""
    for program, place in files.items():
        # One that is linked statically has none.
        told = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
        for library in re.findall(r"(/\S+) \(0x", told):
            _copied(Path(library), root / library.lstrip("/"))
        _copied(program, root / place.lstrip("/"))


def interpreter(root: Path) -> None:
    """Put this Python into an image's root as python3, with its standard library and what that loads."""
    paths = sysconfig.get_paths(vars={"base": sys.base_prefix, "installed_base": sys.base_prefix})
    library = Path(paths["stdlib"])
    left_out = shutil.ignore_patterns(
        "test", "*-packages", "__pycache__", "idlelib", "tkinter", "ensurepip", "config-*"
    )
    to = root / "usr" / "lib" / library.name
    shutil.copytree(library, to, ignore=left_out, dirs_exist_ok=True)
    program = Path(sys.base_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}")
    programs(root, {program: "/usr/bin/python3"})
    told = subprocess.run(["ldd", *to.rglob("*.so")], capture_output=True, text=True, check=False).stdout
    for needed in set(re.findall(r"(/\S+) \(0x", told)):
        _copied(Path(needed), root / needed.lstrip("/"))


def _copied(file: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    if not to.exists():
        shutil.copy(file.resolve(), to)
