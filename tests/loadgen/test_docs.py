from dataclasses import fields
from pathlib import Path

from bench.data import FOUNDING
from bench.emulate.server.script import FAULTS, Noise, Script
from bench.record.schema import ERROR_KINDS

PAGE = (Path(__file__).parents[2] / "docs" / "wire.md").read_text(encoding="utf-8")


def test_the_page_names_everything_that_a_script_can_say() -> None:
    names = [one.name for kind in (Script, Noise) for one in fields(kind)] + list(FAULTS)
    assert [name for name in names if f"`{name}`" not in PAGE] == []


def test_the_page_names_every_kind_of_error_and_every_shipped_prompt_file() -> None:
    assert [kind for kind in ERROR_KINDS if f"`{kind}`" not in PAGE] == []
    assert [path.stem for path in FOUNDING.glob("*.jsonl") if f"`founding:{path.stem}`" not in PAGE] == []
