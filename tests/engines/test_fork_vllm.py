"""What vLLM would do in new interpreters is done in forks, here shown with Python alone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.engines import vllm_parent
from bench.environments.pythons import version
from bench.programs import FOLDER

PROGRAM = """
import io, json, multiprocessing, os, sys, types
registry = types.ModuleType("vllm.model_executor.models.registry")
registry._run_in_subprocess = lambda work: "a new interpreter"
sys.modules[registry.__name__] = registry
import fork_vllm
fork_vllm.resume()
only_here = []

def answer(pipe):
    pipe.send((os.getpid(), len(only_here), "write" in vars(sys.stdout)))

def main():
    only_here.append("seen by forks alone")
    sys.stdout.write = sys.stdout.write
    told = {}
    for method in ("spawn", "forkserver", "fork"):
        context = multiprocessing.get_context(method)
        ours, theirs = context.Pipe()
        process = context.Process(target=answer, args=(theirs,))
        process.start()
        told[method] = [ours.recv(), process.pid]
        process.join()
    del sys.stdout.write
    told["looked"] = [registry._run_in_subprocess(lambda: (os.getpid(), len(only_here))), os.getpid()]
    try:
        registry._run_in_subprocess(lambda: {}["no such model"])
    except RuntimeError as error:
        told["failed"] = str(error)
    try:
        registry._run_in_subprocess(lambda: os._exit(3))
    except RuntimeError as error:
        told["died"] = str(error)
    print(json.dumps(told))

if __name__ == "__main__":
    main()
"""


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Any:
    file = tmp_path_factory.mktemp("program") / "program.py"
    file.write_text(PROGRAM)
    ran = subprocess.run(
        [sys.executable, file], env={**os.environ, "PYTHONPATH": str(FOLDER)}, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_every_way_of_starting_a_process_is_a_fork_without_the_old_names_before_its_lines(
    told: Any, method: str
) -> None:
    (pid, seen, decorated), process = told[method]
    assert (pid, seen, decorated) == (process, 1, False)


def test_a_model_is_looked_at_in_a_fork_and_not_in_the_api_server(told: Any) -> None:
    (pid, seen), own = told["looked"]
    assert (pid != own, seen) == (True, 1)
    assert told["failed"].endswith("KeyError: 'no such model'")
    assert told["died"].endswith("the process that looked died")


@pytest.mark.parametrize(
    ("running", "has", "lacks"),
    [
        ("0.8.5", "vllm.v1.engine.core", "vllm.entrypoints.launchers.api_server.entry"),
        ("0.32.0", "vllm.entrypoints.launchers.api_server.entry", None),
        (None, "vllm.entrypoints.launchers.api_server.entry", None),
    ],
)
def test_a_parent_imports_what_its_version_has(
    tmp_path: Path, running: str | None, has: str, lacks: str | None
) -> None:
    found = vllm_parent.spec(running, tmp_path, {})
    assert found.imports == ("vllm", "vllm.entrypoints.openai.api_server")
    assert has in found.optional
    assert lacks not in found.optional


def test_no_module_ends_before_it_begins() -> None:
    for module in vllm_parent.MODULES:
        assert module.until is None or version(module.since) < version(module.until)


def test_what_a_launch_keeps_to_itself_is_not_part_of_its_parent(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    one, other = (
        vllm_parent.spec("0.32", tmp_path, {"VLLM_CACHE_ROOT": f"/caches/{name}", "VLLM_USE_V1": "1"}) for name in "ab"
    )
    assert one == other
    assert one.env == {"VLLM_USE_V1": "1", "PYTHONPATH": str(FOLDER)}
    assert one.arguments == {"architectures": ("LlamaForCausalLM",)}
