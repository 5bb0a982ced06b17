"""GGUF files are read without their weights, and bring their own tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.engines.gguf import header
from bench.errors import ModelError
from bench.loadgen.vocabulary import vocabulary
from bench.models.cache import Cache
from bench.models.checkpoints import resolve
from bench.models.packed import tokenizer
from bench.scenario.model import Model
from tests.models.gguf_files import bpe, write


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    # No environment is installed below this home: what works here needs none.
    monkeypatch.setenv("FIRSTTOKEN_HOME", str(tmp_path / "home"))
    return Cache()


def test_the_metadata_is_what_was_written(tmp_path: Path) -> None:
    found = header(write(tmp_path / "a.gguf", {**bpe(), "a.float": 0.5, "a.flag": True}))
    assert (found.architecture, found.file_type, found.vocab_size) == ("llama", "q4_1", 16)
    assert found.metadata["a.float"] == 0.5
    assert found.metadata["a.flag"] is True
    assert found.metadata["tokenizer.ggml.merges"] == ["h e", "l l"]


@pytest.mark.parametrize("length", [4, 20, 24, 60, 200])
def test_a_file_cut_short_says_so(tmp_path: Path, length: int) -> None:
    file = write(tmp_path / "a.gguf", bpe())
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(ModelError, match="cut short or damaged"):
        header(file)


def test_a_damaged_length_takes_no_memory(tmp_path: Path) -> None:
    file = write(tmp_path / "a.gguf", bpe())
    data = bytearray(file.read_bytes())
    data[24:32] = b"\xff" * 8
    file.write_bytes(data)
    with pytest.raises(ModelError, match="cut short or damaged"):
        header(file)


def test_another_file_or_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no.gguf").write_bytes(b"PK\x03\x04 not this")
    with pytest.raises(ModelError, match="no GGUF file"):
        header(tmp_path / "no.gguf")
    with pytest.raises(ModelError, match="version 1"):
        header(write(tmp_path / "old.gguf", bpe(), version=1))


def test_the_tokenizer_cuts_and_merges_as_the_file_says(tmp_path: Path) -> None:
    found = tokenizer(header(write(tmp_path / "a.gguf", bpe())))
    tokens = bpe()["tokenizer.ggml.tokens"]
    assert [tokens[number] for number in found.encode("hello world 12").ids] == [
        *("he", "ll", "o", "Ġ", "w", "o", "r", "l", "d"),
        *("Ġ", "1", "2"),
    ]
    assert found.decode(found.encode("hello world 12").ids) == "hello world 12"
    assert found.encode("<s>").ids == [0]


def test_a_beginning_is_added_where_the_file_asks_for_one(tmp_path: Path) -> None:
    found = tokenizer(header(write(tmp_path / "a.gguf", bpe(add_bos=True))))
    assert found.encode("he").ids == [0, 14]


def test_a_way_of_cutting_that_is_not_known_gives_no_tokenizer(tmp_path: Path) -> None:
    assert tokenizer(header(write(tmp_path / "a.gguf", bpe(pre="something-new")))) is None
    assert tokenizer(header(write(tmp_path / "b.gguf", {**bpe(), "tokenizer.ggml.model": "llama"}))) is None


def test_an_engine_that_loads_gguf_gets_the_file_where_it_lies(tmp_path: Path, cache: Cache) -> None:
    file = write(tmp_path / "a.gguf", bpe())
    found = resolve(Model(source=f"path:{file}"), "gguf-q4", form="gguf", cache=cache)
    assert (found.path, found.format, found.quantization, found.vocab_size) == (file, "gguf", "gguf-q4", 16)
    words = vocabulary(found)
    assert words.size == 16
    assert words.special == {0, 1}
    again = resolve(Model(source=f"path:{file}"), "gguf-q4", form="gguf", cache=cache)
    assert again.tokenizer == found.tokenizer


def test_a_published_type_is_not_made_again(tmp_path: Path, cache: Cache) -> None:
    eight = write(tmp_path / "b.gguf", {**bpe(), "general.file_type": 7})
    assert resolve(Model(source=f"path:{eight}"), "gguf-q8_0", form="gguf", cache=cache).path == eight
    sixteen = write(tmp_path / "c.gguf", {**bpe(), "general.file_type": 32})
    assert resolve(Model(source=f"path:{sixteen}"), "bf16", form="gguf", cache=cache).path == sixteen


def test_a_checkpoint_named_for_a_quantization_is_used_as_it_is(tmp_path: Path, cache: Cache) -> None:
    file = write(tmp_path / "a.gguf", bpe())
    model = Model(source="dummy:tiny-llama", checkpoints={"gguf-q4_k_m": f"path:{file}"})
    assert resolve(model, "gguf-q4_k_m", form="gguf", cache=cache).path == file


def test_what_no_gguf_file_can_be_is_refused_with_what_can(tmp_path: Path, cache: Cache) -> None:
    folder = tmp_path / "dense"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"x")
    with pytest.raises(ModelError, match=r"no GGUF file of path:\S+ as awq: one of fp32, fp16, bf16, .*gguf-q8_0"):
        resolve(Model(source=f"path:{folder}"), "awq", form="gguf", cache=cache)
    with pytest.raises(ModelError, match=r"checkpoints: \{gguf-q4:"):
        resolve(Model(source=f"path:{folder}"), "gguf-q4", form="gguf", cache=cache)
    with pytest.raises(ModelError, match="which this engine does not load"):
        resolve(Model(source=f"path:{folder}"), "gguf-q8_0", cache=cache)
