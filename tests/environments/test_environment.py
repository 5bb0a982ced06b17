from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.environments import environment, pip
from bench.environments.environment import interpreter, make, provisioned
from bench.environments.pythons import choose, probe
from bench.environments.recipe import parse
from bench.errors import EnvironmentFault, ProvisionError
from bench.scenario.model import EngineSetting
from tests import wheels
from tests.children import ended

BASICS = "#: python >=3.11\n#: disk 1\n"
WHOLE = parse(
    "whole",
    BASICS
    + "first-part==1.0\n#: step\nsecond-part==1.0\nunwanted==1.0\n#: uninstall unwanted\n#: check import first_part",
)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    for name in ("first_part", "second_part", "unwanted"):
        wheels.build(folder, name, "1.0", {f"{name}.py": b"name = __name__\n"})
    return folder


@pytest.fixture(scope="module")
def home(shop: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home of our own, where pip sees the wheels of the shop and nothing else."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("FIRSTTOKEN_HOME", str(folder))
        patch.setenv("PIP_NO_INDEX", "1")
        patch.setenv("PIP_FIND_LINKS", str(shop))
        patch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
        patch.delenv("FIRSTTOKEN_TORCH_INDEX", raising=False)
        yield folder


@pytest.fixture(scope="module")
def said(home: Path) -> list[str]:
    """What is told while the whole environment is made."""
    lines: list[str] = []
    make(WHOLE, progress=lines.append)
    return lines


def packages(python: Path) -> set[str]:
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format", "json"], capture_output=True, text=True, check=True
    ).stdout
    return {package["name"].replace("-", "_") for package in json.loads(listed)}


def test_an_environment_holds_what_its_recipe_says(home: Path, said: list[str]) -> None:
    place = make(WHOLE)
    assert place.ready
    assert place.folder == home / "engines" / f"whole-{WHOLE.digest}"
    found = packages(place.python)
    assert {"first_part", "second_part"} <= found
    assert "unwanted" not in found
    assert any(line.startswith("whole: step 2 of 3: second-part==1.0") for line in said)
    assert "Successfully installed" in place.log.read_text()


def test_an_environment_that_is_there_is_left_alone(said: list[str]) -> None:
    before = (make(WHOLE).folder / "firsttoken.json").stat().st_mtime_ns
    lines: list[str] = []
    place = make(WHOLE, progress=lines.append)
    assert lines == []
    assert (place.folder / "firsttoken.json").stat().st_mtime_ns == before


def test_an_interrupted_installation_goes_on_with_the_step_it_had_reached(said: list[str]) -> None:
    place = make(WHOLE)
    place.note(base=place.about["base"], steps=2, complete=False)
    assert not place.ready
    lines: list[str] = []
    assert make(WHOLE, progress=lines.append).ready
    assert [line for line in lines if "step" in line] == ["whole: step 3 of 3: removing unwanted"]


def test_another_process_that_installs_is_waited_for(said: list[str]) -> None:
    place = make(WHOLE)
    program = (
        "import sys, time; from pathlib import Path; from bench.home import locked\n"
        "with locked(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(0.5)"
    )
    lock = place.folder.with_suffix(".lock")
    with ended(subprocess.Popen([sys.executable, "-c", program, lock], stdout=subprocess.PIPE, text=True)) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        lines: list[str] = []
        assert make(WHOLE, progress=lines.append).ready
        assert lines == [f"waiting for process {other.pid}, which holds {lock.name}"]


@pytest.fixture
def no_ensurepip(monkeypatch: pytest.MonkeyPatch) -> None:
    """Debian's python3 without python3-venv: the environment is made without pip, and ours serves it."""
    monkeypatch.setattr(environment, "_has_ensurepip", lambda base: False)


@pytest.mark.usefixtures("no_ensurepip")
def test_without_ensurepip_our_own_pip_installs(home: Path) -> None:
    place = make(parse("plain", BASICS + "first-part==1.0\n#: check import first_part"))
    assert place.ready
    assert not (place.folder / "bin" / "pip").exists()


@pytest.mark.usefixtures("no_ensurepip")
def test_a_package_that_does_not_exist_is_named_and_pips_words_are_kept(home: Path) -> None:
    broken = parse("broken", BASICS + "nowhere==1.0")
    with pytest.raises(EnvironmentFault, match=r"there is no nowhere==1.0 for this Python") as caught:
        make(broken)
    log = home / "engines" / f"broken-{broken.digest}.log"
    assert str(log) in str(caught.value)
    assert "ERROR" in log.read_text()


@pytest.mark.usefixtures("no_ensurepip")
def test_an_environment_that_does_not_work_is_not_ready(home: Path) -> None:
    useless = parse("useless", BASICS + "first-part==1.0\n#: check import nowhere")
    with pytest.raises(EnvironmentFault, match="installed but does not work: ModuleNotFoundError"):
        make(useless)
    assert not (home / "engines" / f"useless-{useless.digest}" / "bin" / "pip").exists()
    with pytest.raises(EnvironmentFault):
        make(useless)


def test_too_little_room_is_said_before_anything_is_made(home: Path) -> None:
    huge = parse("huge", "#: disk 999999999999\nfirst-part==1.0")
    with pytest.raises(ProvisionError, match="the environment huge needs"):
        make(huge)
    assert not (home / "engines" / f"huge-{huge.digest}").exists()


def test_a_missing_environment_is_answered_with_the_command_that_makes_it(home: Path) -> None:
    with pytest.raises(EnvironmentFault, match=r"bench engines install transformers"):
        provisioned("transformers")
    with pytest.raises(EnvironmentFault, match=r"bench engines install vllm-cpu"):
        interpreter(EngineSetting(engine="vllm", environment="vllm-cpu"))


def test_a_given_interpreter_is_taken_as_it_is(home: Path) -> None:
    assert interpreter(EngineSetting(engine="transformers", python=sys.executable)) == Path(sys.executable)
    with pytest.raises(EnvironmentFault, match="not an interpreter"):
        interpreter(EngineSetting(engine="transformers", python="/nowhere/python"))


def test_removing_says_whether_there_was_anything(home: Path) -> None:
    assert environment.remove("transformers") is False
    folder = environment.environment("transformers").folder
    folder.mkdir(parents=True)
    assert environment.remove("transformers") is True
    assert not folder.exists()


def test_an_interpreter_that_is_asked_for_must_run_and_fit(tmp_path: Path) -> None:
    assert choose(WHOLE, Path(sys.executable)).version == sys.version_info[:2]
    with pytest.raises(EnvironmentFault, match="not a Python interpreter that runs"):
        choose(WHOLE, tmp_path / "python3")
    with pytest.raises(EnvironmentFault, match=r"needs Python >=3.99"):
        choose(parse("future", "#: python >=3.99"), Path(sys.executable))


def fake_python(folder: Path, name: str, version: str | None) -> None:
    folder.mkdir(exist_ok=True)
    file = folder / name
    answer = f"echo {version.replace('.', ' ')} {file}" if version else "echo no such version >&2; exit 127"
    file.write_text(f"#!/bin/sh\n{answer}\n")
    file.chmod(0o755)


def test_the_newest_interpreter_that_fits_and_runs_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, version in (("python3.4", "3.4"), ("python3.5", "3.5"), ("python3.6", None), ("python3", "3.3")):
        fake_python(tmp_path / "bin", name, version)
    monkeypatch.setenv("PATH", f"{tmp_path}/nowhere:{tmp_path}/bin:{os.defpath}")
    found = choose(parse("old", "#: python >=3.2,<3.7"))
    assert (found.version, found.path.name) == ((3, 5), "python3.5")
    monkeypatch.setenv("PATH", f"{tmp_path}/bin")
    with pytest.raises(EnvironmentFault, match=r"needs Python <3.2; found: 3.3, 3.4, 3.5"):
        choose(parse("older", "#: python <3.2"))
    assert probe(tmp_path / "bin" / "python3.6") is None


def test_a_python_that_cannot_make_environments_is_answered_with_the_package_to_install(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Debian's python3 without python3-venv: no ensurepip, and here no pip of our own to stand in for it.
    fake = tmp_path / "python3.11"
    fake.write_text('#!/bin/sh\ncase "$*" in *version_info*) echo 3 11 "$0";; *ensurepip*) exit 1;; *) exit 0;; esac\n')
    fake.chmod(0o755)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EnvironmentFault, match=r"apt install python3.11-venv"):
        make(parse("bare", BASICS + "first-part==1.0"), python=fake)


def test_where_we_have_no_pip_that_of_an_environment_is_borrowed(
    said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    python = make(WHOLE).python
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert pip.command([tmp_path / "python", python]) == [str(python), "-m", "pip"]
    with pytest.raises(EnvironmentFault, match="ensurepip"):
        pip.command([tmp_path / "python"])


@pytest.mark.parametrize(
    ("output", "meaning"),
    [
        ("OSError: [Errno 28] No space left on device", "the disk is full"),
        ("Failed to establish a new connection: [Errno -2] Name or service not known", "cannot be reached"),
        ("ERROR: No matching distribution found for vllm==9", "there is no vllm==9"),
        ("[SSL: CERTIFICATE_VERIFY_FAILED]", "certificate is not trusted"),
        ("ERROR: something new", "something new"),
        ("", "pip failed"),
    ],
)
def test_pips_words_are_put_into_ours(output: str, meaning: str) -> None:
    assert meaning in pip.explain(output)[0]
