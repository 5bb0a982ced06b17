from __future__ import annotations

import pytest

from bench.errors import ModelError
from bench.models.dummy import SHAPES
from bench.models.reference import ALIASES, PINS, SMOLLM2, parse
from bench.scenario import sources


def test_sources_are_taken_apart() -> None:
    hub = parse("hf:baidu/ERNIE-4.5-0.3B-PT@abc123")
    assert (hub.kind, hub.name, hub.version, hub.file) == ("hf", "baidu/ERNIE-4.5-0.3B-PT", "abc123", None)
    file = parse("hf:owner/name#q4.gguf")
    assert (file.version, file.file) == ("main", "q4.gguf")
    package = parse("pypi:some-model==1.2#inside/model.gguf")
    assert (package.name, package.version, package.file) == ("some-model", "1.2", "inside/model.gguf")
    assert parse("dummy:tiny-llama").name == "tiny-llama"


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
    assert given.key != parse(SMOLLM2).key


def test_a_revision_belongs_to_hub_sources() -> None:
    assert parse("hf:a/b", revision="v2").version == "v2"
    assert parse("hf:a/b@v2", revision="v2").version == "v2"
    with pytest.raises(ModelError, match="disagree"):
        parse("hf:a/b@v1", revision="v2")
    with pytest.raises(ModelError, match="hf: sources only"):
        parse("dummy:tiny-llama", revision="v2")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("smolm2-135m", "did you mean smollm2-135m"),
        ("ftp:there", "names no model"),
        ("hf:no-owner", "is not written as hf:owner/name"),
        ("pypi:name#file", "is not written as pypi:distribution==version#"),
        ("dummy:ernie-4.5-0.3", "did you mean ernie-4.5-0.3b"),
    ],
)
def test_a_wrong_source_is_answered_with_how_it_is_written(source: str, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        parse(source)


def test_scenarios_are_checked_against_the_names_that_exist() -> None:
    assert set(sources.ALIASES) == set(ALIASES)
    assert set(sources.DUMMIES) == set(SHAPES)
