"""How an engine was started: its words, and what of them was the launch's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench import programs
from bench.engines.command import Command
from bench.engines.engine import Checkpoint, LaunchContext
from bench.engines.invocation import invocation
from bench.engines.openai import OpenAI
from bench.engines.transformers import Transformers
from bench.record.launches import Invocation
from bench.scenario.model import EngineSetting, Model
from bench.scenario.variant import Variant

MODEL = Path("/models/small")


def variant(engine: EngineSetting) -> Variant:
    return Variant("v", {}, "e", engine, "m", Model(source="default"), "bf16", "none", (), "leave")


def context(port: int) -> LaunchContext:
    checkpoint = Checkpoint(MODEL, "path:/models/small", "d", "bf16")
    return LaunchContext(
        port, Path("/runs/r/000"), checkpoint, Path("/caches/v"), spans_url="http://127.0.0.1:7/v1/traces"
    )


def started(engine: Any, how: EngineSetting, port: int = 40960) -> Invocation:
    asked, given = variant(how), context(port)
    found = invocation(engine, asked, given, engine.command(asked, given))
    assert found is not None
    return found


def test_a_number_that_only_looks_like_the_port_stays_as_it_is() -> None:
    words = ["serve", "--max-len", "40960", "--listen", "{host}:{port}", "{folder}/x", "{model}", "140960"]
    found = started(Command(), EngineSetting(engine="command", command=words))
    assert found.argv == [
        "serve", "--max-len", "40960", "--listen", "127.0.0.1:40960", "/runs/r/000/x", "/models/small", "140960"
    ]  # fmt: skip
    assert found.template.argv == [
        "serve", "--max-len", "40960", "--listen", "127.0.0.1:{port}", "{folder}/x", "{model}", "140960"
    ]  # fmt: skip


def test_a_path_that_only_begins_like_a_place_stays_as_it_is() -> None:
    words = ["serve", "/models/smaller", "/models/small/tokenizer.json"]
    found = started(Command(), EngineSetting(engine="command", command=words))
    assert found.template.argv == ["serve", "/models/smaller", "{model}/tokenizer.json"]


def test_what_is_secret_by_its_name_is_not_kept() -> None:
    how = EngineSetting(engine="command", command=["serve"], env={"HF_TOKEN": "hush", "THREADS": "2"})
    found = started(Command(), how)
    assert found.secrets == ["HF_TOKEN"]
    assert found.env == found.template.env == {"THREADS": "2"}


def test_our_own_engine_is_found_by_the_folder_of_its_program(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    (tmp_path / "config.json").write_text("{}")
    asked = variant(EngineSetting(engine="transformers", python="/bin/sh"))
    given = LaunchContext(40960, Path("/runs/r/000"), Checkpoint(tmp_path, "path:x", "d", "bf16"))
    found = invocation(Transformers(), asked, given, Transformers().command(asked, given))
    assert found is not None
    assert found.env["PYTHONPATH"] == str(programs.FOLDER)
    assert found.template.env["PYTHONPATH"] == "{programs}"
    assert found.template.cwd == "{folder}"


def test_a_server_that_ran_before_was_not_started() -> None:
    asked, given = variant(EngineSetting(engine="openai", base_url="http://127.0.0.1:1")), context(1)
    assert invocation(OpenAI(), asked, given, OpenAI().command(asked, given)) is None
