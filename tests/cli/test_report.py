"""`bench report`: files where they were asked for, tables that can be read again, errors in words."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pandas as pd
import pytest

from bench.cli import main
from bench.errors import Exit
from tests.runs import Behaviour, synthetic_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic_run(tmp_path_factory.mktemp("results"), {"a": Behaviour()}, blocks=2, requests=4, tokens=4)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_the_page_is_put_into_reports_and_its_path_is_printed(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run)]) == Exit.PASS
    path = Path(capsys.readouterr().out.strip())
    assert path == Path("reports/synthetic-20260101-000000.html")
    assert path.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_folder_of_runs_stands_for_its_newest(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run.parent), "--format", "md", "-o", "-"]) == Exit.PASS
    assert capsys.readouterr().out.startswith("# synthetic")


def test_csv_holds_the_summary_as_a_tidy_table(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run), "--format", "csv", "-o", "-"]) == Exit.PASS
    table = pd.read_csv(StringIO(capsys.readouterr().out)).set_index("metric")
    assert table.loc["ttft.p50", "value"] == pytest.approx(100)


@pytest.mark.parametrize(
    ("table", "rows"), [("summary", None), ("launches", 2), ("requests", 10), ("samples", None), ("phases", 6)]
)
def test_every_table_goes_into_parquet_and_comes_back(run: Path, tmp_path: Path, table: str, rows: int | None) -> None:
    target = tmp_path / "deep" / "table.parquet"
    assert main(["report", str(run), "--format", "parquet", "--table", table, "-o", str(target)]) == Exit.PASS
    found = pd.read_parquet(target)
    assert len(found) == rows or (rows is None and len(found))


def test_several_runs_share_a_table_that_says_whose_a_row_is(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = synthetic_run(tmp_path, {"b": Behaviour(ttft=50)}, blocks=1, requests=4, tokens=4, run_id="other")
    assert main(["report", str(run), str(other), "--format", "csv", "-o", "-"]) == Exit.PASS
    table = pd.read_csv(StringIO(capsys.readouterr().out))
    assert set(table["run"]) == {"20260101-000000", "other"}


def test_json_and_the_terminal_table_write_nothing(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(run), "--json"]) == Exit.PASS
    assert json.loads(capsys.readouterr().out)["scenario"] == "synthetic"
    assert main(["report", str(run), "--summary"]) == Exit.PASS
    assert "TTFT p50" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_what_is_no_run_is_a_sentence_and_exit_4(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "nothing")]) == Exit.USAGE
    assert "does not exist" in capsys.readouterr().err


def test_parquet_is_not_poured_into_a_terminal(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(run), "--format", "parquet", "-o", "-"]) == Exit.USAGE
    assert "give a file" in capsys.readouterr().err
