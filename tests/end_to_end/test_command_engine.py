"""A server that is not ours, started by its command line: Transformers' own `transformers serve`."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.engines.command import Command
from bench.engines.engine import LaunchContext
from bench.engines.server import free_port, start
from bench.environments.environment import environment
from bench.loadgen.generator import LoadGenerator
from bench.loadgen.job import Job
from bench.loadgen.prompts import Asked, Batch, requests
from bench.models.checkpoints import resolve
from bench.scenario.model import Arrivals, EngineSetting, Model, Workload
from bench.scenario.variant import Variant

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(600)]

SERVE = "from transformers.cli.transformers import main; main()"
WORKLOAD = Workload.model_validate(
    {
        "prompts": {"kind": "text", "file": "founding:fault-triage", "chat": True},
        "output_tokens": 8,
        "ignore_eos": False,
        "requests": 3,
    }
)


def test_transformers_serve_is_started_measured_and_stopped(tmp_path: Path) -> None:
    if not environment("transformers-serve").ready:
        pytest.skip("needs `bench engines install transformers-serve`")
    model = Model(source="dummy:tiny-llama")
    checkpoint = resolve(model, "bf16")
    engine = EngineSetting(
        engine="command",
        environment="transformers-serve",
        command=["{python}", "-c", SERVE, "serve", "{model}", "--host", "{host}", "--port", "{port}"],
        env={"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
        args={"device": "cpu", "dtype": "float32"},
        served_model="{model}",
    )
    variant = Variant(
        id="v",
        factors={},
        engine_name="serve",
        engine=engine,
        model_name="tiny",
        model=model,
        quantization="bf16",
        warmup_name="none",
        warmup=(),
        page_cache="leave",
    )
    spec = Command().command(variant, LaunchContext(free_port(), tmp_path, checkpoint))
    with LoadGenerator() as load, start(spec, tmp_path) as server:
        server.wait_healthy()
        endpoint = server.endpoint
        assert endpoint.model == str(checkpoint.path)
        asked = requests(Asked(WORKLOAD, endpoint, checkpoint, tmp_path, seed=1), Batch("measured", 0, 3))
        driven = load.drive(Job(endpoint.host, endpoint.port, tuple(asked), Arrivals(closed=1)))
        tree = server.tree()
    assert [row["error"] for row in driven.requests] == [None] * 3
    assert all(row["first_token_ns"] > row["sent_ns"] for row in driven.requests)
    assert server.exit["leftover"] == []
    assert not any(Path(f"/proc/{pid}").exists() for pid in tree)
