"""The real quantizer on a tiny model: every method makes a checkpoint that the real server runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench.environments.environment import environment
from bench.models import quantize
from bench.models.cache import Cache
from bench.models.checkpoints import resolve
from bench.models.quantize import ENVIRONMENT, QuantizeOptions
from bench.scenario.model import Model
from tests.end_to_end.transformers_server import serving

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(900)]


@pytest.mark.parametrize("method", ["awq", "gptq", "int8"])
def test_a_quantized_checkpoint_is_smaller_and_answers(tmp_path: Path, method: str) -> None:
    if not environment(ENVIRONMENT).ready:
        pytest.skip(f"needs `bench engines install {ENVIRONMENT}`")
    dense = resolve(Model(source="dummy:tiny-llama"), "bf16").path
    assert dense is not None
    shutil.copytree(dense, tmp_path / "model", ignore=shutil.ignore_patterns("entry.json"))
    model, told = Model(source=f"path:{tmp_path}/model"), list[str]()
    cache = Cache(tmp_path / "cache")
    made = quantize.quantize(
        model, QuantizeOptions(method, samples=2, length=64, n_grid=3), cache=cache, progress=told.append
    )
    assert made.path is not None
    (entry,) = [entry for entry in cache.entries() if entry.key["kind"] == "quantized"]
    assert entry.damage(full=True) == []
    assert entry.about["versions"]["llmcompressor"]
    assert entry.about["tokens"] == (0 if method == "int8" else 128)
    assert (made.path / "tokenizer.json").read_bytes() == (dense / "tokenizer.json").read_bytes()
    assert (made.size_bytes or 0) < (dense / "model.safetensors").stat().st_size
    if method != "int8":
        assert any("layer 2 of 2" in line for line in told)
    with serving(tmp_path / "served", f"path:{made.path}", "bf16", threads=1) as server:
        answer = server.complete(prompt=[5, 6, 7], max_tokens=4, ignore_eos=True)
    assert answer["usage"]["completion_tokens"] == 4
