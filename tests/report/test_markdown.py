"""The report as Markdown: the same content, and nobody's words become markup."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.analyse.run import Run
from bench.report import elements, markdown
from bench.report.elements import Cell, Facts, Fold, Heading, Note, Notes, Page, Printed, Prose, Section, Table

HOSTILE = "a|b `c` <img src=x> [d](e)\n# not a heading"


def rendered(*content: elements.Block, monkeypatch: pytest.MonkeyPatch) -> str:
    page = Page("title", "subtitle", (Section("one", "One", content),), ("a",))
    monkeypatch.setattr(markdown, "document", lambda run: page)
    return markdown.render([None])  # type: ignore[list-item]


def test_a_table_keeps_its_columns_whatever_its_cells_say(monkeypatch: pytest.MonkeyPatch) -> None:
    table = Table((Heading("x"), Heading("y", "ms", numeric=True)), ((Cell(HOSTILE), Cell("1.0", "0.9–1.1")),))
    lines = [line for line in rendered(table, monkeypatch=monkeypatch).splitlines() if line.startswith("|")]
    assert lines[0] == "| x | y (ms) |"
    assert lines[1] == "|---|---:|"
    assert len(re.findall(r"(?<!\\)\|", lines[2])) == 3
    assert lines[2].endswith("| 1.0 (0.9–1.1) |")


def test_text_is_text(monkeypatch: pytest.MonkeyPatch) -> None:
    content = (Prose((HOSTILE,)), Notes((Note(HOSTILE, HOSTILE),)), Facts(((HOSTILE, HOSTILE),), "facts"))
    text = rendered(*content, monkeypatch=monkeypatch)
    assert "\n# not" not in text
    assert not re.search(r"(?<!\\)<img", text)
    assert "**facts**" in text


def test_a_log_cannot_close_its_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    text = rendered(Fold("log", (Printed(("```", "# inside", "`````")),)), monkeypatch=monkeypatch)
    assert text.count("``````\n") == 2


def test_a_real_run_has_its_sections_and_no_drawings(small_run: Run) -> None:
    text = markdown.render([small_run])
    assert text.startswith("# synthetic\n")
    assert {"## In short", "## Summary", "## Machine and versions"} <= set(text.splitlines())
    assert "<svg" not in text


def test_an_emulated_run_says_so_on_top(small_run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small_run.manifest, "emulated", "orin-nx")
    assert "> **EMULATED** orin-nx" in markdown.render([small_run]).splitlines()[:6]


def test_the_path_of_this_machine_is_in_no_report(small_run: Run) -> None:
    assert str(Path.cwd()) not in markdown.render([small_run])
