from __future__ import annotations

from pathlib import Path

import pytest

from bench.engines.engine import Checkpoint
from bench.errors import ModelError
from bench.models.cache import source_key
from bench.models.checkpoints import resolve
from bench.scenario.model import Model
from bench.scenario.sources import DUMMIES, PINS, REMOTE, SMOLLM2, mistake, parse


def test_sources_are_taken_apart() -> None:
    hub = parse("hf:baidu/ERNIE-4.5-0.3B-PT@abc123")
    assert (hub.kind, hub.name, hub.version, hub.file) == ("hf", "baidu/ERNIE-4.5-0.3B-PT", "abc123", None)
    file = parse("hf:owner/name#q4.gguf")
    assert (file.version, file.file) == ("main", "q4.gguf")
    package = parse("pypi:some-model==1.2#inside/model.gguf")
    assert (package.name, package.version, package.file) == ("some-model", "1.2", "inside/model.gguf")
    assert parse("dummy:tiny-llama").name == "tiny-llama"
    assert DUMMIES == ("ernie-4.5-0.3b", "tiny-llama")


def test_a_source_reads_back_as_it_was_written() -> None:
    for source in ("hf:owner/name@main#a.gguf", "path:/models/x", "pypi:a==1#b/c", "dummy:tiny-llama"):
        assert str(parse(source)) == source


def test_the_embedded_model_has_short_names_and_a_pinned_checksum() -> None:
    for name in ("default", "smollm2-135m"):
        assert str(parse(name)) == SMOLLM2
        assert parse(name).sha256 == PINS[SMOLLM2]


def test_a_given_checksum_wins_and_names_another_entry() -> None:
    given = parse(SMOLLM2, sha256="0" * 64)
    assert given.sha256 == "0" * 64
    assert source_key(given) != source_key(parse(SMOLLM2))


def test_a_revision_belongs_to_hub_sources() -> None:
    assert parse("hf:a/b", revision="v2").version == "v2"
    assert parse("hf:a/b@v2", revision="v2").version == "v2"
    with pytest.raises(ModelError, match="hf:a/b@v1 names the revision v1 already"):
        parse("hf:a/b@v1", revision="v2")
    with pytest.raises(ModelError, match="only hf: sources have revisions"):
        parse("dummy:tiny-llama", revision="v2")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("smolm2-135m", "did you mean smollm2-135m"),
        ("ftp:there", "is not a source: default, smollm2-135m, hf:owner/name"),
        ("hf:no-owner", "does not have the form hf:owner/name"),
        ("pypi:name#file", "does not have the form pypi:distribution==version#"),
        ("dummy:ernie-4.5-0.3", "did you mean dummy:ernie-4.5-0.3b"),
    ],
)
def test_a_wrong_source_is_answered_with_how_it_is_written(source: str, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        parse(source)


@pytest.mark.parametrize("source", ["", "hf:", "hf:a", "hf:a/b/c", "pypi:a==1", "dummy:", "path:", "a/b", "x"])
def test_what_is_no_source_is_a_mistake_of_the_scenario(source: str) -> None:
    assert str(mistake(source)).startswith(repr(source))


@pytest.mark.parametrize(
    "source", ["hf:a/b", "hf:a/b@v1#x.gguf", "path:x.gguf", "pypi:a==1.0+x#b/c", "default", "dummy:ernie-4.5-0.3b"]
)
def test_what_is_a_source_is_no_mistake(source: str) -> None:
    assert mistake(source) is None


def test_a_server_s_own_model_needs_nothing_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTTOKEN_HOME", str(tmp_path))
    found = resolve(Model(source=REMOTE), "bf16", offline=True)
    assert found == Checkpoint(None, REMOTE, None, "bf16", "remote")
    assert found.tokenizer is None
