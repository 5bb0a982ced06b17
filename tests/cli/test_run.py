"""`bench run` as a new user meets it: its exit code, and going on where there is something to go on with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.cli import main
from bench.errors import Exit
from bench.record.documents import read_manifest
from bench.record.store import RunFolder

TEXT = """\
scenario: small
engines: {s: ENGINE}
workload: {prompts: {kind: random, tokens: 8}, output_tokens: 4, requests: 4}
design: {blocks: 2, retries: 0, max_steal: 1.0, max_contention: 1.0}
"""


QUICK = "{engine: simulated, args: {ttft_ms: 5, itl_ms: 1}}"


def scenario(folder: Path, engine: str = QUICK) -> str:
    path = folder / "small.yaml"
    path.write_text(TEXT.replace("ENGINE", engine))
    return str(path)


def run(folder: Path, *more: str, engine: str = QUICK) -> int:
    return main(["run", scenario(folder, engine), "--results", str(folder / "results"), "--no-report", "--json", *more])


def folders(tmp_path: Path) -> list[Path]:
    return sorted(path.parent for path in (tmp_path / "results" / "small").glob("[!.]*/manifest.json"))


def test_a_run_none_of_whose_launches_counts_ends_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, engine='{engine: command, command: [sh, -c, "exit 3", "{port}"]}') == Exit.INVALID
    said = json.loads(capsys.readouterr().out)
    assert said["state"] == "complete"
    assert said["launches"] == {"failed": 2}


def test_resuming_if_there_is_anything_starts_anew_on_a_fresh_checkout_and_goes_on_elsewhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(tmp_path, "--resume") == Exit.USAGE
    assert "there is no unfinished run" in capsys.readouterr().err
    assert run(tmp_path, "--resume-if-any") == Exit.PASS
    (only,) = folders(tmp_path)
    with RunFolder.open(only) as folder:
        folder.manifest.state = "interrupted"
        folder.save(folder.manifest)
    assert run(tmp_path, "--resume-if-any") == Exit.PASS
    assert folders(tmp_path) == [only]
    assert read_manifest(only).state == "complete"


def test_an_unfinished_run_of_another_version_is_not_gone_on_with(tmp_path: Path) -> None:
    assert run(tmp_path) == Exit.PASS
    (first,) = folders(tmp_path)
    with RunFolder.open(first) as folder:
        folder.manifest.state = "interrupted"
        folder.save(folder.manifest)
    assert run(tmp_path, "--resume-if-any", engine=QUICK.replace("5", "6")) == Exit.PASS
    assert len(folders(tmp_path)) == 2


@pytest.mark.parametrize("command", [["run"], ["suite", "orin", "--plan"], ["tune"]])
def test_an_unknown_board_is_refused_with_the_nearest(
    tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = [] if command[0] == "suite" else [scenario(tmp_path)]
    assert main([*command, *file, "--emulate", "orin-nxx"]) == Exit.USAGE
    said = capsys.readouterr().err
    assert "no emulated board is called 'orin-nxx'" in said
    assert "(did you mean orin-nx?)" in said
    assert not (tmp_path / "results").exists()
