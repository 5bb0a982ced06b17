"""Words that run an engine in a container, taken apart again; and images and containers of the real podman."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench import plugins
from bench.engines import containers, ports
from bench.engines.compile_caches import COMPILE_CACHES, compile_cache_env
from bench.engines.containers import CACHES, MODEL, Container
from bench.engines.engine import Checkpoint, Endpoint, LaunchContext, LaunchSpec
from bench.engines.server import start
from bench.errors import LaunchError
from tests.children import ended
from tests.models.gguf_files import bpe, write
from tests.podman import Podman
from tests.warmup import states


def clients(folder: Path, monkeypatch: pytest.MonkeyPatch, *programs: str) -> None:
    """A machine on which these are installed, and nothing else."""
    folder.mkdir(exist_ok=True)
    for program in programs:
        (folder / program).write_text("#!/bin/sh\n")
        (folder / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv(containers.CHOICE, raising=False)


def words(**env: str) -> tuple[str, ...]:
    folders = {Path("/weights"): MODEL, Path("/kept/a:b"): f"{CACHES}/vllm"}
    command = ["python3", "-m", "server", "--model", MODEL, "--name", "x", "--port", "8123"]
    return containers.run("vllm:r36", command, name="firsttoken-8123", env=env, folders=folders)


@pytest.mark.parametrize("program", ["docker", "podman"])
@pytest.mark.parametrize("on", [containers.JETSON, containers.NVIDIA, containers.NONE])
def test_what_run_puts_together_parse_takes_apart(
    program: str, on: containers.Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients(tmp_path / "bin", monkeypatch, program)
    monkeypatch.setattr(containers, "device", lambda: on)
    monkeypatch.setattr(containers, "_has_init", lambda: True)
    assert containers.parse(words(A="1=2", HF_TOKEN="hush")) == Container(
        program=program,
        name="firsttoken-8123",
        image="vllm:r36",
        command=("python3", "-m", "server", "--model", MODEL, "--name", "x", "--port", "8123"),
        env={"A": "1=2", "HF_TOKEN": None},
        folders=(("/weights", MODEL), ("/kept/a:b", f"{CACHES}/vllm")),
        device=getattr(on, program),
        init=True,
    )


@pytest.mark.parametrize("other", [["llama-server", "run"], ["docker"], ["docker", "ps"], ["docker", "run", "x"], []])
def test_words_that_are_not_its_own_are_left_alone(other: list[str]) -> None:
    assert containers.parse(other) is None
    assert containers.removal(other) == ()


def test_a_secret_s_value_is_in_the_environment_and_never_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients(tmp_path / "bin", monkeypatch, "docker")
    env = {"SHOWN": "1", "HF_TOKEN": "hush"}
    assert "hush" not in " ".join(words(**env))
    assert "--env HF_TOKEN --entrypoint" in " ".join(words(**env))
    assert containers.outside(env) == {"HF_TOKEN": "hush"}


# What each engine is asked with besides an image, and the weights that it loads.
IN_IMAGES: dict[str, tuple[str, dict[str, Any]]] = {
    "vllm": ("safetensors", {"args": {"version": "0.11.2"}}),
    "sglang": ("safetensors", {}),
    "edge-llm": ("safetensors", {}),
    "fastdeploy": ("safetensors", {}),
    "llama-cpp": ("gguf", {}),
    "ollama": ("gguf", {}),
}


@pytest.mark.parametrize("name", IN_IMAGES)
def test_no_engine_in_an_image_is_told_of_a_folder_that_it_cannot_see(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a warm-up that keeps compiled code says it: by variables that name folders of this machine."""
    clients(tmp_path / "bin", monkeypatch, "podman")
    form, how = IN_IMAGES[name]
    weights = tmp_path / "weights"
    checkpoint = states.checkpoint(weights)
    if form == "gguf":
        checkpoint = Checkpoint(write(weights / "model.gguf", bpe()), "path:m", "ab" * 32, "gguf-q4", "gguf")
    kept = tmp_path / "kept"
    asked = states.variant(name, image="mine:1", **how)
    context = LaunchContext(8123, tmp_path / "launch", checkpoint, env=compile_cache_env(kept))
    asked = replace(asked, quantization="fp16") if form == "safetensors" else asked
    spec = plugins.load("engines", name)().command(asked, context)
    container = containers.parse(spec.argv)
    assert container is not None
    assert container.name == "firsttoken-8123"
    mounts = dict(container.folders)
    for variable, folder in COMPILE_CACHES.items():
        assert container.env[variable] == mounts[str(kept / folder)] == f"{CACHES}/{folder}"
        assert (kept / folder).is_dir()
    assert str(tmp_path) not in " ".join([*container.command, *(value or "" for value in container.env.values())])


def test_cache_folders_of_one_name_stay_apart_and_one_that_cannot_be_made_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients(tmp_path / "bin", monkeypatch, "podman")
    env = {"VLLM_CACHE_ROOT": str(tmp_path / "a" / "cache"), "TRITON_CACHE_DIR": str(tmp_path / "b" / "cache")}
    argv, left = containers.around("mine:1", ["serve"], port=8123, env=env | {"HF_TOKEN": "hush"}, folders={})
    container = containers.parse(argv)
    assert container is not None
    assert dict(container.folders) == {
        env["VLLM_CACHE_ROOT"]: f"{CACHES}/vllm",
        env["TRITON_CACHE_DIR"]: f"{CACHES}/triton",
    }
    assert left == {"HF_TOKEN": "hush"}
    (tmp_path / "file").write_text("")
    with pytest.raises(LaunchError, match=r"TRITON_CACHE_DIR: .*/file/x cannot be made"):
        containers.around("mine:1", [], port=1, env={"TRITON_CACHE_DIR": str(tmp_path / "file" / "x")}, folders={})


def test_the_one_that_is_chosen_is_taken_and_docker_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clients(tmp_path / "bin", monkeypatch, "docker", "podman")
    assert words()[0] == "docker"
    monkeypatch.setenv(containers.CHOICE, "podman")
    assert words()[0] == "podman"
    monkeypatch.setenv(containers.CHOICE, "nerdctl")
    with pytest.raises(LaunchError, match="FIRSTTOKEN_CONTAINERS names nerdctl, which is no docker or podman here"):
        words()


def test_a_container_is_removed_by_the_name_that_any_command_line_gave_it() -> None:
    assert containers.removal(["docker", "run", "--name", "a", "image"]) == ("docker", "rm", "--force", "a")
    behind = ["python3", "proxy.py", "--", "/usr/bin/podman", "run", "--rm", "--name", "b", "image"]
    assert containers.removal(behind) == ("/usr/bin/podman", "rm", "--force", "--ignore", "--time", "0", "b")


def spec(words: tuple[str, ...], port: int, timeout_s: float = 30.0) -> LaunchSpec:
    endpoint = Endpoint("127.0.0.1", port, "m")
    return LaunchSpec(argv=words, env={}, endpoint=endpoint, health=None, ready_timeout_s=timeout_s, stop_timeout_s=3)


def listening(shell: Podman, port: int, before: str = "") -> tuple[str, ...]:
    """A container with something on a port; busybox's own server stays in front."""
    command = ["sh", "-c", f"{before} exec /bin/busybox httpd -f -p 127.0.0.1:{port}"]
    return containers.run(shell.image, command, name=f"firsttoken-{port}", env={}, folders={})


def test_an_image_is_known_by_the_digest_of_what_it_holds(podman: Podman) -> None:
    told = containers.present(listening(podman, 1))
    assert told == {"image": podman.image, "image_id": podman.image_id, "image_digest": None}
    assert str(told["image_id"]).startswith("sha256:")


def test_an_image_that_cannot_be_had_is_refused_before_anything_starts(podman: Podman) -> None:
    missing = containers.run("localhost:1/none:1", ["sh"], name="firsttoken-1", env={}, folders={})
    with pytest.raises(LaunchError, match="localhost:1/none:1 is not on this machine and cannot be fetched") as failure:
        containers.present(missing)
    assert failure.value.kind == "missing_file"


def test_the_process_inside_is_found_and_nothing_is_left_of_it(podman: Podman, tmp_path: Path) -> None:
    port = ports.free_port()
    with start(spec(listening(podman, port, "echo loading;"), port), tmp_path) as server:
        server.wait_healthy()
        assert server.said()[-1] == "loading"
        assert server.inside is not None
        assert "httpd" in Path(f"/proc/{server.inside}/cmdline").read_text()
        assert server.inside in server.tree()
        assert podman.running() == [f"firsttoken-{port}"]
        inside = server.inside
    assert not Path(f"/proc/{inside}").exists()
    assert podman.running() == []


def test_an_engine_killed_inside_is_told_as_such(podman: Podman, tmp_path: Path) -> None:
    port = ports.free_port()
    with start(spec(listening(podman, port), port), tmp_path) as server:
        server.wait_healthy()
        assert server.inside is not None
        os.kill(server.inside, signal.SIGKILL)
        end = time.monotonic() + 30
        while server.alive() and time.monotonic() < end:
            time.sleep(0.05)
        failure = server.failure("serving")
    assert failure.kind == "crash_while_serving", failure.message
    assert "killed from outside" in failure.message
    assert podman.running() == []


def test_a_program_that_the_image_has_not_is_a_missing_file(podman: Podman, tmp_path: Path) -> None:
    port = ports.free_port()
    absent = containers.run(podman.image, ["llama-server"], name=f"firsttoken-{port}", env={}, folders={})
    with start(spec(absent, port), tmp_path) as server, pytest.raises(LaunchError) as failure:
        server.wait_healthy()
    assert failure.value.kind == "missing_file"
    assert failure.value.message.startswith("the image has no program llama-server")


def test_one_that_does_not_listen_to_a_polite_stop_is_removed(podman: Podman, tmp_path: Path) -> None:
    port = ports.free_port()
    deaf = f"trap '' TERM; /bin/busybox httpd -f -p 127.0.0.1:{port} & while :; do /bin/busybox sleep 1; done;"
    with start(spec(listening(podman, port, deaf), port), tmp_path) as server:
        server.wait_healthy()
    assert server.exit["killed"]
    assert server.exit["leftover"] == []
    assert podman.running() == []


def test_a_client_that_is_killed_does_not_leave_its_container(podman: Podman, tmp_path: Path) -> None:
    port = ports.free_port()
    with start(spec(listening(podman, port), port), tmp_path) as server:
        server.wait_healthy()
        assert server.pid is not None
        os.kill(server.pid, signal.SIGKILL)
    assert podman.running() == []
    assert not ports.is_open("127.0.0.1", port)


def test_a_guardian_that_is_killed_does_not_leave_it_either(podman: Podman, tmp_path: Path) -> None:
    port = ports.free_port()
    with start(spec(listening(podman, port), port), tmp_path) as server:
        server.wait_healthy()
        assert server.supervisor_pid is not None
        os.kill(server.supervisor_pid, signal.SIGKILL)
        while server.alive():
            time.sleep(0.05)
    assert podman.running() == []
    assert not ports.is_open("127.0.0.1", port)


def test_a_harness_killed_by_kill_9_leaves_no_container(podman: Podman, tmp_path: Path) -> None:
    port = ports.free_port()
    program = (
        "import sys, time; from pathlib import Path; from tests.engines.test_containers import spec; "
        "from bench.engines.server import start; port = int(sys.argv[1]); "
        "server = start(spec(tuple(sys.argv[3:]), port), Path(sys.argv[2])); server.wait_healthy(); "
        "print('healthy', flush=True); time.sleep(600)"
    )
    harness = [sys.executable, "-c", program, str(port), str(tmp_path), *listening(podman, port)]
    with ended(subprocess.Popen(harness, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "healthy\n"
        assert podman.running() == [f"firsttoken-{port}"]
        process.kill()
    end = time.monotonic() + 30
    while podman.running() and time.monotonic() < end:
        time.sleep(0.1)
    assert podman.running() == []
    assert not ports.is_open("127.0.0.1", port)
