"""Images of engines are listed with their sizes, and removed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from bench.errors import Exit
from tests.engines.test_images import launch, program

# Fixtures: a launch to be restored, under either criu, in a home of the test's own.
__all__ = ["launch", "program"]


def listed(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    capsys.readouterr()
    assert main(["images", "list", "--json"]) == 0
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.usefixtures("program")
def test_an_image_is_listed_and_removed_once_nothing_runs_from_it(
    launch: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    server = launch()
    assert server.origin.mode == "restored"
    (row,) = listed(capsys)
    folder, name = Path(str(row["folder"])), str(row["name"])
    assert row["size"] == sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) > 0
    assert row["pid"] == server.pid
    assert main(["images", "remove", name[:8]]) == Exit.USAGE
    assert "end it first" in capsys.readouterr().err
    assert folder.is_dir()
    server.stop()
    assert [row["pid"] for row in listed(capsys)] == [None]
    assert main(["images", "remove", name[:8]]) == 0
    assert capsys.readouterr().out.startswith(f"removed {name}, ")
    assert (folder.exists(), listed(capsys)) == (False, [])


def test_half_an_image_is_said_to_be_one_and_goes_with_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FIRSTTOKEN_HOME", str(tmp_path))
    for name in ("abc", "abd"):
        (tmp_path / "images" / name / "criu").mkdir(parents=True)
        (tmp_path / "images" / name / "criu" / "pages.img").write_bytes(bytes(5_000))
    (tmp_path / "images" / "abc.lock").touch()
    assert main(["images", "list"]) == 0
    assert [line.split(maxsplit=3) for line in capsys.readouterr().out.splitlines()] == [
        [name, "5", "kB", "never finished    –"] for name in ("abc", "abd")
    ]
    assert main(["images", "remove", "ab"]) == Exit.USAGE
    assert "begins several images: abc, abd" in capsys.readouterr().err
    assert main(["images", "remove"]) == Exit.USAGE
    assert main(["images", "remove", "x"]) == Exit.USAGE
    assert main(["images", "remove", "--all"]) == 0
    assert listed(capsys) == []
