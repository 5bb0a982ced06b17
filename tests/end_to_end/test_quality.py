"""Quality as served against an independent computation in plain Transformers."""

from __future__ import annotations

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.analyse.answers import Answers, Text, read_text
from bench.analyse.divergence import diverge
from bench.analyse.run import Run
from bench.engines.engine import Checkpoint, Endpoint
from bench.judge.gate import limits
from bench.judge.trade import trades
from bench.loadgen.generator import LoadGenerator
from bench.loadgen.job import Job, Request
from bench.loadgen.questions import quality_requests
from bench.models.checkpoints import resolve
from bench.scenario.model import Arrivals, Model, Quality
from tests.end_to_end.transformers_server import serving

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(600)]


def copied(source: Path, to: Path, noise: int) -> Path:
    """A checkpoint with its bf16 mantissas moved by up to `noise` steps of 1/128."""
    shutil.copytree(source, to)
    file = to / "model.safetensors"
    data = bytearray(file.read_bytes())
    start = 8 + struct.unpack("<Q", data[:8])[0]
    values = np.frombuffer(data, "<u2", offset=start + start % 2).copy()
    values = values ^ np.random.default_rng(1).integers(0, noise + 1, len(values)).astype("<u2")
    data[start + start % 2 :] = values.tobytes()
    file.write_bytes(data)
    return to


def asked(folder: Path, checkpoint: Path) -> tuple[Answers, list[Request]]:
    """A served checkpoint's answers to all questions, through the real client, and the questions."""
    folder.mkdir()
    # Random weights get no quality figure; for arithmetic they are as good as any.
    described = replace(resolve(Model(source=f"path:{checkpoint}"), "fp32"), random_weights=False)
    with serving(folder, f"path:{checkpoint}", "fp32", threads=1) as server, LoadGenerator() as load:
        endpoint = Endpoint("127.0.0.1", server.port, "", body={"model": None})
        questions = _questions(endpoint, described)
        driven = load.drive(Job("127.0.0.1", server.port, tuple(questions), Arrivals(closed=1), keep_logprobs=True))
    prompts = {question.request_id: question.body.get("prompt") for question in questions}
    texts: dict[str, Text] = {}
    for document in driven.logprobs:
        read = read_text(document["prompt_id"], document | {"prompt": prompts[document["request_id"]]})
        if document["label"] == "text":
            assert read is not None
            texts[read.name] = read
    return Answers(checkpoint.name, folder.name, texts), questions


def _questions(endpoint: Endpoint, checkpoint: Checkpoint) -> list[Request]:
    quality = Quality.model_validate({"against": {}})
    made = quality_requests(quality, first_id=0, endpoint=endpoint, checkpoint=checkpoint, base=Path())
    return [question for question in made if question.label in ("text", "greedy")]


def plain(folders: Sequence[Path], texts: Sequence[Text], python: Path) -> dict[str, float | list[float]]:
    """The same from Transformers itself."""
    documents = [{"ids": text.ids, "positions": text.positions} for text in texts]
    script = Path(__file__).with_name("plain_divergence.py")
    done = subprocess.run(
        [python, script, *folders], input=json.dumps(documents), capture_output=True, text=True, check=True
    )
    found: dict[str, float | list[float]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("noise", [7, 31], ids=["close", "far"])
def test_perplexity_and_divergence_are_those_of_plain_transformers(tmp_path: Path, noise: int) -> None:
    from bench.environments.environment import provisioned

    source = resolve(Model(source="dummy:tiny-llama"), "bf16").path
    assert source is not None
    folders = [copied(source, tmp_path / "reference", 0), copied(source, tmp_path / "other", noise)]
    reference, other = (asked(tmp_path / f"served-{folder.name}", folder)[0] for folder in folders)
    assert len(reference.texts) == 18
    found = diverge(reference, other)
    expected = plain(folders, list(reference.texts.values()), provisioned("transformers"))
    assert found.kl_kind == "exact"
    assert found.kl.value == pytest.approx(expected["kl"], rel=1e-3, abs=3e-8)
    assert isinstance(expected["perplexity"], list)
    assert found.perplexity.value == pytest.approx(expected["perplexity"][1], rel=1e-3)
    assert found.perplexity_ratio.value == pytest.approx(
        expected["perplexity"][1] / expected["perplexity"][0], rel=1e-3
    )
    print(f"\nKL {found.kl.value:.6g} served, {expected['kl']:.6g} in plain Transformers")


def test_a_server_without_log_probabilities_gets_no_divergence_but_agreement(tmp_path: Path) -> None:
    weights = tmp_path / "weights"
    weights.mkdir()
    (weights / "config.json").write_text('{"model_type": "llama", "vocab_size": 1000}')
    (weights / "model.safetensors").write_bytes(bytes(64))
    (tmp_path / "mute.yaml").write_text(
        f"""
scenario: mute
model: {{source: "path:{weights}"}}
engines: {{s: {{engine: simulated, args: {{ttft_ms: 500, itl_ms: 0.2}}}}}}
matrix: {{warmup: [none, requests]}}
workload: {{prompts: {{kind: random, tokens: 8}}, output_tokens: 4, requests: 3}}
design: {{max_steal: 1.0, max_contention: 1.0, blocks: 1}}
quality: {{against: {{warmup: none}}, max_kl: 0.1, documents: 2}}
"""
    )
    bench = Path(sys.executable).parent / "bench"
    command: list[str | Path] = [bench, "run", tmp_path / "mute.yaml", "--results", tmp_path / "results", "--no-report"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    run = Run.open(tmp_path / "results")
    (trade,) = trades(run)
    assert trade.quality.kl.value is None
    assert trade.quality.kl.reason == "the server gives no log-probabilities of the prompt"
    assert trade.quality.agreement is not None
    assert trade.quality.agreement.share.value == 1
    assert trade.quality.agreement.founding[0].label == "founding:fault-triage"
    assert limits(run)[0].verdict == "INVALID"
    assert not run.requests.query("stage == 'quality'")["measured"].any()
