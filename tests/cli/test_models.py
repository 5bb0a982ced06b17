from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.cli import main
from bench.models.cache import Cache

CONFIG = json.dumps({"vocab_size": 7})


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FIRSTTOKEN_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def stored(name: str) -> str:
    def write(folder: Path, partial: Path) -> None:
        (folder / "model.safetensors").write_bytes(name.encode())
        (folder / "config.json").write_text(CONFIG)

    entry = Cache().put({"name": name}, write, about={"source": f"path:{name}", "quantization": "bf16"})
    return entry.folder.name


def test_an_empty_cache_names_the_sources_that_need_no_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list"]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "smollm2-135m" in captured.err
    assert "dummy:ernie-4.5-0.3b" in captured.err


def test_the_list_shows_each_entry_and_its_damage(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    good, bad = stored("good"), stored("bad")
    (home / "models" / bad / "model.safetensors").write_bytes(b"x")
    assert main(["models", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows[good]["source"] == "path:good"
    assert rows[good]["damage"] == []
    assert rows[bad]["damage"] == ["model.safetensors has 1 bytes instead of 3"]


def test_verify_ends_with_3_if_anything_is_damaged(capsys: pytest.CaptureFixture[str], home: Path) -> None:
    name = stored("good")
    assert main(["models", "verify"]) == 0
    (home / "models" / name / "model.safetensors").write_bytes(b"evil")
    assert main(["models", "verify"]) == 3
    assert f"{name}  model.safetensors has other contents than were stored" in capsys.readouterr().out


def test_an_entry_is_removed_by_the_beginning_of_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    name = stored("good")
    assert main(["models", "remove", name[:5]]) == 0
    assert name in capsys.readouterr().out
    assert Cache().entries() == []
    assert main(["models", "remove", name]) == 4


def test_fetch_prints_where_the_model_is(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    place = tmp_path / "checkpoint"
    place.mkdir()
    (place / "model.safetensors").write_bytes(b"weights")
    (place / "config.json").write_text(CONFIG)
    assert main(["models", "fetch", f"path:{place}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["path"], found["bytes"]) == (str(place), 7)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["fetch", "smollm"], "did you mean smollm2-135m"),
        (["fetch", "default", "--quantization", "awk"], "did you mean awq"),
        (["fetch", "default", "--offline"], "bench models fetch"),
        (["fetch", "dummy:tiny-llama"], "bench engines install transformers"),
    ],
)
def test_what_cannot_be_fetched_ends_with_4_and_says_what_to_do(
    capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert main(["models", *arguments]) == 4
    assert says in capsys.readouterr().err
