"""FastDeploy's contract: started, waited for and asked as its source says. Not a test of the real server."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest

from bench.engines.engine import LaunchContext, LaunchSpec, LaunchTrace
from bench.engines.fastdeploy import FastDeploy
from bench.engines.server import free_port, start
from bench.errors import LaunchError
from bench.loadgen.generator import LoadGenerator
from bench.loadgen.job import Job, Request
from bench.scenario.model import Arrivals, Quantization
from tests.warmup.states import checkpoint, variant

SPEAKS_LIKE_IT = Path(__file__).parents[1] / "fixtures" / "fastdeploy"


def spec(tmp_path: Path, **args: Any) -> LaunchSpec:
    asked = variant("fastdeploy", args=args, python=sys.executable, env={"PYTHONPATH": str(SPEAKS_LIKE_IT)})
    context = LaunchContext(free_port(), tmp_path, checkpoint(tmp_path / "weights"))
    return FastDeploy().command(asked, context)


def test_the_command_line_has_the_names_of_its_source(tmp_path: Path) -> None:
    words = " ".join(spec(tmp_path, max_model_len=2048, max_num_seqs=4, enable_prefix_caching=False).argv)
    assert "-m fastdeploy.entrypoints.openai.api_server --model" in words
    assert "--max-model-len 2048 --max-num-seqs 4" in words
    assert "--engine-worker-queue-port" in words
    assert "enable-prefix-caching" not in words


def test_it_starts_answers_and_its_own_stamp_agrees_with_ours(tmp_path: Path) -> None:
    launch = spec(tmp_path, max_model_len=2048)
    with start(launch, tmp_path) as server, LoadGenerator() as load:
        server.wait_healthy()
        body = {"model": "m", "prompt": list(range(15)), "max_tokens": 5, "stream": True}
        body["stream_options"] = {"include_usage": True}
        request = Request(0, "p", "measured", "/v1/completions", body, measured=True, output_tokens=5)
        job = Job(launch.endpoint.host, launch.endpoint.port, (request,), Arrivals(closed=1))
        (row,) = load.drive(job).requests
        assert server.stop()["leftover"] == []
    assert row["error"] is None
    assert (row["prompt_tokens"], row["completion_tokens"], row["chunks"]) == (15, 5, 5)
    ours = (row["first_token_ns"] - row["sent_ns"]) / 1e6
    # Its clock starts when the request has arrived, ours when it is sent.
    assert row["server_ttft_ms"] == pytest.approx(80, abs=40)
    assert row["server_ttft_ms"] <= ours + 1


def test_a_flag_that_it_does_not_have_is_a_classified_launch(tmp_path: Path) -> None:
    launch = spec(tmp_path, max_modellen=2048)
    with start(launch, tmp_path) as server, pytest.raises(LaunchError) as failure:
        server.wait_healthy()
    assert failure.value.kind == "bad_argument"


@pytest.mark.parametrize("quantization", ["awq", "gguf-q4"])
def test_weights_that_it_cannot_serve_are_refused_before_start(tmp_path: Path, quantization: Quantization) -> None:
    asked = dataclasses.replace(variant("fastdeploy", python=sys.executable), quantization=quantization)
    with pytest.raises(LaunchError) as failure:
        FastDeploy().command(asked, LaunchContext(1, tmp_path, checkpoint(tmp_path / "weights")))
    assert failure.value.kind == "unsupported_quantization"


def test_it_says_that_it_was_not_verified() -> None:
    assert FastDeploy().facts(LaunchTrace({}, []))["verified"] == "not against a live server"
