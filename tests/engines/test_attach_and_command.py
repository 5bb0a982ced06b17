"""Engines that are someone else's: attached to by URL, or started by a command line."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from bench.engines.command import Command, fill
from bench.engines.engine import Checkpoint, LaunchContext, LaunchTrace
from bench.engines.openai import OpenAI, parse
from bench.engines.server import free_port, start
from bench.errors import LaunchError
from bench.scenario.model import EngineSetting, Model
from bench.scenario.variant import Variant

CHILD = Path(__file__).parent / "child.py"


def variant(**engine: Any) -> Variant:
    return Variant(
        id="v",
        factors={},
        engine_name="e",
        engine=EngineSetting(**engine),
        model_name="m",
        model=Model(source="path:m"),
        quantization="bf16",
        warmup_name="none",
        warmup=(),
        page_cache="leave",
    )


def context(tmp_path: Path, **changes: Any) -> LaunchContext:
    checkpoint = Checkpoint(tmp_path / "model", "path:m", None, "bf16")
    return LaunchContext(**{"port": 4321, "folder": tmp_path, "checkpoint": checkpoint, **changes})


@pytest.mark.parametrize(
    ("url", "host", "port", "tls", "prefix"),
    [
        ("http://127.0.0.1:8000", "127.0.0.1", 8000, False, ""),
        ("http://board.local:8000/v1", "board.local", 8000, False, ""),
        ("https://api.example.com/v1/", "api.example.com", 443, True, ""),
        ("https://example.com/llm/v1", "example.com", 443, True, "/llm"),
        ("http://[::1]:9/", "::1", 9, False, ""),
    ],
)
def test_a_base_url_is_taken_apart(url: str, host: str, port: int, tls: bool, prefix: str) -> None:
    endpoint = parse(url)
    assert (endpoint.host, endpoint.port, endpoint.tls, endpoint.prefix) == (host, port, tls, prefix)


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://x", "http://", "http://x:99999", "http://u:p@x"])
def test_a_base_url_that_makes_no_sense_is_refused(url: str) -> None:
    with pytest.raises(LaunchError, match="base_url"):
        parse(url)


def test_an_attached_server_is_asked_with_the_key_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOME_KEY", "s3cret")
    engine = variant(
        engine="openai",
        base_url="https://h/v1",
        api_key_env="SOME_KEY",
        served_model="big",
        args={"token_ids": False, "body": {"top_k": 1}},
    )
    spec = OpenAI().command(engine, context(tmp_path))
    assert spec.attached
    assert spec.health == "/v1/models"
    assert spec.endpoint.headers == {"Authorization": "Bearer s3cret"}
    assert (spec.endpoint.model, spec.endpoint.token_ids, spec.endpoint.body) == ("big", False, {"top_k": 1})
    facts = OpenAI().facts(LaunchTrace(stamps={}, log=(), endpoint=spec.endpoint))
    assert facts["base_url"] == "https://h:443"
    assert "s3cret" not in str(facts)


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        ({}, "needs base_url"),
        ({"base_url": "http://h", "api_key_env": "SURELY_UNSET_KEY"}, "export SURELY_UNSET_KEY"),
        ({"base_url": "http://h", "args": {"max_model_len": 9}}, "max_model_len"),
    ],
)
def test_attaching_without_what_it_needs_says_what(tmp_path: Path, engine: dict[str, Any], words: str) -> None:
    with pytest.raises(LaunchError, match=words) as caught:
        OpenAI().command(variant(engine="openai", **engine), context(tmp_path))
    assert caught.value.kind == "bad_argument"


def test_a_command_is_filled_in_and_args_become_flags(tmp_path: Path) -> None:
    engine = variant(
        engine="command",
        command=["serve", "--port={port}", "{model}", '--json={"a": {"b": 1}}'],
        args={"max_len": 5, "eager": True, "quiet": False, "token_ids": False},
        env={"HOME_OF": "{folder}"},
    )
    spec = Command().command(engine, context(tmp_path, args={"max_len": 7}))
    assert spec.argv[:4] == ("serve", "--port=4321", str(tmp_path / "model"), '--json={"a": {"b": 1}}')
    assert spec.argv[4:] == ("--max-len", "7", "--eager")
    assert spec.env == {"HOME_OF": str(tmp_path)}
    assert not spec.endpoint.token_ids


@pytest.mark.parametrize(("word", "hint"), [("{prot}", "did you mean port"), ("{python}", "python:")])
def test_a_place_that_nothing_fills_is_named(word: str, hint: str) -> None:
    with pytest.raises(LaunchError, match=hint) as caught:
        fill(word, {"port": "1", "python": None})
    assert caught.value.kind == "bad_argument"


def test_a_server_is_started_by_its_command_and_asked_for_its_models_name(tmp_path: Path) -> None:
    engine = variant(
        engine="command", command=["{python}", "-S", str(CHILD), "{port}"], python=sys.executable, ready="/ok"
    )
    spec = Command().command(engine, context(tmp_path, port=free_port()))
    with start(spec, tmp_path) as server:
        server.wait_healthy()
        assert server.endpoint.model == "little-model"
        phases = Command().phases(LaunchTrace(stamps=server.stamps, log=server.log()))
    assert [phase.name for phase in phases] == ["to first_output", "to port_open", "to health"]
    assert all((phase.end_ns or 0) >= (phase.start_ns or 0) for phase in phases)
