"""GGUF files made on this machine from safetensors, by llama.cpp's own converter and quantizer."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.engines.engine import Checkpoint
from bench.engines.gguf import gguf_file
from bench.environments import pip
from bench.environments.environment import environment, pip_of, provisioned
from bench.errors import ModelError
from bench.home import Progress, clear
from bench.models.cache import Cache, Entry

ENVIRONMENT = "llama-cpp"
# Our names → llama.cpp's.
DENSE = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
QUANTIZED = ("gguf-q4_0", "gguf-q4_k_m", "gguf-q5_k_m", "gguf-q6_k", "gguf-q8_0")
# Raised when the same file would be made differently.
_RECIPE = 1
_CONVERTER = "convert_hf_to_gguf.py"
_SENTENCEPIECE = "sentencepiece==0.2.1"


def dense(base: Checkpoint, quantization: str, cache: Cache, progress: Progress | None) -> Entry:
    """A checkpoint of safetensors as one GGUF file of that dtype; ModelError in the converter's words if it cannot."""
    assert base.path is not None
    source, kind = base.path, DENSE[quantization]

    def write(folder: Path, partial: Path) -> None:
        place = environment(ENVIRONMENT)
        python = provisioned("transformers")
        provisioned(ENVIRONMENT)
        share = place.folder / "share"
        target = folder / f"model-{kind}.gguf"
        words = (str(python), str(share / _CONVERTER), str(source), "--outfile", str(target), "--outtype", kind)
        paths = os.pathsep.join(map(str, (share / "gguf-py", _sentencepiece(share))))
        _work(words, f"{base.source} as {kind}", {"PYTHONPATH": paths})

    if progress:
        progress(f"converting {base.source} to GGUF, {kind}, once")
    needs = (base.size_bytes or 0) * (2 if kind == "f32" else 1)
    return _entry(base, quantization, write, needs, cache, progress)


def quantized(base: Checkpoint, whole: Entry, quantization: str, cache: Cache, progress: Progress | None) -> Entry:
    """A dense GGUF file quantized to one of QUANTIZED. `base` is what the dense one was made from."""
    kind = quantization.removeprefix("gguf-").upper()

    def write(folder: Path, partial: Path) -> None:
        provisioned(ENVIRONMENT)
        program = environment(ENVIRONMENT).folder / "bin" / "llama-quantize"
        target = folder / f"model-{kind.lower()}.gguf"
        _work((str(program), str(gguf_file(whole.folder)), str(target), kind), f"{base.source} as {kind}", {})

    if progress:
        progress(f"quantizing {base.source} to GGUF, {kind.lower()}, once")
    return _entry(base, quantization, write, base.size_bytes or 0, cache, progress)


def _sentencepiece(share: Path) -> Path:
    """The one package that the converter imports and the `transformers` environment lacks, beside the converter."""
    folder = share / "site"
    if not (folder / "sentencepiece").is_dir():
        scratch = share / "site.tmp"
        clear(scratch)
        place = environment("transformers")
        options = ("install", "--no-deps", "--progress-bar", "off", "--target", str(scratch), _SENTENCEPIECE)
        said = pip.run([*pip_of(place), *options], place.log, lambda line: None)
        if said is not None:
            meaning, hint = pip.explain(said)
            raise ModelError(f"{_SENTENCEPIECE}, which the converter needs, cannot be installed: {meaning}", hint=hint)
        clear(folder)
        scratch.rename(folder)
    return folder


def _entry(
    base: Checkpoint, quantization: str, write: Any, needs: int, cache: Cache, progress: Progress | None
) -> Entry:
    key = {"kind": "gguf", "from": base.digest, "quantization": quantization, "recipe": _RECIPE}
    about = {"source": base.source, "quantization": quantization, "random_weights": base.random_weights}
    return cache.entry(key) or cache.put(key, write, needs=needs, about=about, progress=progress)


def _work(argv: Sequence[str], what: str, env: Mapping[str, str]) -> None:
    quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run(argv, capture_output=True, text=True, errors="replace", env={**os.environ, **quiet, **env})
    if ran.returncode:
        said = [line.strip() for line in (ran.stdout + "\n" + ran.stderr).splitlines() if line.strip()]
        raise ModelError(f"{what} could not be made: {said[-1][:300] if said else f'exit {ran.returncode}'}")
