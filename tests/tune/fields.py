"""A small scenario to turn levers of, and tables of launches as a race would leave them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from bench.scenario.load import Scenario
from bench.scenario.model import Scalar, Tune
from bench.tune.levers import Field, Levers

PARTS = {
    "engines": "{s: {engine: simulated, args: {ttft_ms: 20, itl_ms: 1}}}",
    "workload": "{prompts: {kind: random, tokens: 8}, output_tokens: 4, requests: 6}",
    "design": "{blocks: 3, max_steal: 1, max_contention: 1}",
    "tune": "{levers: {ttft_ms: [5, 60]}, objective: ttft.p50}",
}


def scenario(folder: Path, **changes: str) -> Scenario:
    weights = folder / "weights"
    weights.mkdir(exist_ok=True)
    (weights / "config.json").write_text('{"model_type": "llama", "vocab_size": 1000}')
    (weights / "model.safetensors").write_bytes(bytes(64))
    path = folder / "small.yaml"
    head = f'scenario: small\nmodel: {{source: "path:{weights}"}}\n'
    path.write_text(head + "".join(f"{key}: {text}\n" for key, text in (PARTS | changes).items()))
    return Scenario.load(path)


def field(folder: Path, levers: Mapping[str, Sequence[Scalar]]) -> Field:
    asked = scenario(folder)
    model = asked.model.model_copy(update={"tune": Tune(levers={name: list(some) for name, some in levers.items()})})
    return Levers.of(model, asked.variants[0]).grid()


def launches(times: Mapping[str, float], blocks: int = 5, noise: float = 0.01, **more: float) -> pd.DataFrame:
    """Launches of variants with these mean times; `more` names variants with a TPOT of their own, 10 otherwise."""
    draw = np.random.default_rng(3)
    return pd.DataFrame(
        [
            {
                "block": block,
                "variant": name,
                "status": "ok",
                "cold_ttft": mean * np.exp(draw.normal(0, noise)),
                "tpot.p50": more.get(name.replace("-", "_"), 10.0) * np.exp(draw.normal(0, noise)),
            }
            for block in range(blocks)
            for name, mean in times.items()
        ]
    )
