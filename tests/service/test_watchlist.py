"""A watch list is read strictly: every mistake with its place, no key in it, nothing that costs more than declared."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import ScenarioError, UsageError
from bench.service.watchlist import load, of_url, parse

ONE = """
watch: edge
endpoints:
  orin:
    url: http://127.0.0.1:8000
"""


def wrong(text: str) -> str:
    with pytest.raises(ScenarioError) as caught:
        parse(text, "watch.yaml")
    return str(caught.value)


def test_a_short_list_has_sensible_defaults() -> None:
    (endpoint,) = parse(ONE).endpoints.values()
    assert (endpoint.interval_s, endpoint.output_tokens, endpoint.streams) == (60.0, 8, ["idle", "warm", "cached"])
    assert endpoint.target.url == "http://127.0.0.1:8000"


def test_mistakes_are_told_with_their_place_and_what_was_meant() -> None:
    said = wrong(ONE + "    intervall_s: 5\n    model: 3\n")
    assert "watch.yaml:6:5" in said
    assert "did you mean interval_s?" in said
    assert "model" in said


def test_a_key_in_the_file_is_refused() -> None:
    assert "unknown key" in wrong(ONE + "    key: sk-1234567\n")
    said = wrong(ONE.replace("http://", "http://user:secret@"))
    assert "environment variable" in said
    assert "secret" not in said


def test_what_costs_more_than_declared_is_refused_with_the_interval_that_would_do() -> None:
    said = wrong(ONE + "    interval_s: 1\n    tokens_per_day: 1000\n")
    assert "tokens_per_day is 1000" in said
    assert "interval_s to 24883.2 or more" in said


def test_an_alarm_that_comes_before_its_warning_is_refused_either_way_round() -> None:
    assert "swap them" in wrong(ONE + "    limits: {latency_ms: {warning: 300, alarm: 200}}\n")
    assert "swap them" in wrong(ONE + "    limits: {availability: {warning: 0.8, alarm: 0.9}}\n")
    good = parse(ONE + "    limits: {availability: {warning: 0.9, alarm: 0.8}}\n")
    assert good.endpoints["orin"].limits.availability is not None


def test_names_that_could_be_paths_are_refused() -> None:
    assert "endpoints" in wrong(ONE.replace("orin", "../orin"))
    assert "watch" in wrong(ONE.replace("edge", "a/b"))


def test_an_address_alone_is_a_list_of_one() -> None:
    made, text = of_url("https://llm.example/v1")
    assert list(made.endpoints) == ["llm.example-443"]
    assert parse(text) == made
    with pytest.raises(UsageError):
        of_url("ftp://x")


def test_files_that_are_none_are_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        load(tmp_path / "none.yaml")
    (tmp_path / "empty.yaml").write_text("")
    with pytest.raises(ScenarioError):
        load(tmp_path / "empty.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="UTF-8"):
        load(tmp_path / "bytes.yaml")
