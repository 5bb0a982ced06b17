"""Somebody else's engine: a package of its own, installed by pip beside firsttoken, and one line of test."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from tests import wheels

PACKAGE = Path(__file__).parents[1] / "fixtures" / "stranger"
TEST = """from bench.conformance import contract

TestParrot = contract("parrot", model="remote:", args={"pace_ms": 4})
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of a virtual environment in which the stranger's package is beside all that is in ours."""
    folder = tmp_path_factory.mktemp("stranger")
    files = {str(path.relative_to(PACKAGE)): path.read_bytes() for path in PACKAGE.rglob("*.py")}
    files["parrot-0.1.dist-info/entry_points.txt"] = b"[bench.engines]\nparrot = parrot.adapter:Parrot\n"
    wheel = wheels.build(folder, "parrot", "0.1", files)
    venv.create(folder / "venv", with_pip=False, symlinks=True)
    (place,) = (folder / "venv").glob("lib/python3*/site-packages")
    ours = [path for path in sys.path if path.endswith("site-packages")]
    (place / "ours.pth").write_text("".join(f"import site; site.addsitedir({path!r})\n" for path in ours))
    pip = [sys.executable, "-m", "pip", "-q", "--disable-pip-version-check", "install", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", str(place), str(wheel)], check=True)
    return folder / "venv" / "bin" / "python"


def ran(python: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """A module of theirs, without what the outer pytest has put into the environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run([python, "-m", *words], cwd=folder, env=kept, capture_output=True, text=True, check=False)


def test_one_line_of_test_runs_the_whole_contract_on_a_strangers_engine(python: Path, tmp_path: Path) -> None:
    (tmp_path / "test_parrot.py").write_text(TEST)
    done = ran(python, tmp_path, "pytest", "-q", "-rs", "-p", "no:cacheprovider", "--rootdir", ".", "test_parrot.py")
    assert done.returncode == 0, done.stdout + done.stderr
    counted = {what: int(number) for number, what in re.findall(r"(\d+) (passed|skipped|failed)", done.stdout)}
    # What it has not: a tokenizer, a figure of its own, weights.
    assert counted == {"passed": 12, "skipped": 3}, done.stdout


def test_it_is_listed_and_named_in_a_scenario_like_any_other(python: Path, tmp_path: Path) -> None:
    (tmp_path / "parrot.yaml").write_text(
        "scenario: parrot\nengines: {parrot: {engine: parrot, args: {pace_ms: 2}}}\n"
        "model: {source: 'dummy:tiny-llama'}\n"
        "workload: {prompts: {kind: random, tokens: 16}, output_tokens: 4, requests: 3}\n"
    )
    for words, said in ((["plugins"], "parrot"), (["check", "parrot.yaml"], "parrot")):
        done = ran(python, tmp_path, "bench", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        assert said in done.stdout
