"""Ollama, SGLang and TensorRT Edge-LLM: driven as their sources say, against servers that speak as they do.

Not tests of the real servers, none of which runs here.
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from bench.conformance import Served, Subject
from bench.engines.edgellm import EdgeLlm
from bench.engines.engine import Checkpoint, Engine, LaunchContext, LaunchSpec, LaunchTrace
from bench.engines.ollama import Ollama
from bench.engines.server import free_port, start
from bench.engines.sglang import SgLang
from bench.engines.spans import SpanSink
from bench.errors import LaunchError
from bench.loadgen.generator import LoadGenerator
from bench.loadgen.prompts import Asked, Batch, requests
from bench.scenario.model import EngineSetting, Model, RandomPrompts, Workload
from tests.models.gguf_files import bpe, write
from tests.warmup.states import checkpoint, variant

SPEAKING = Path(__file__).parents[1] / "fixtures" / "speaking"
CHAT = Workload(prompts=RandomPrompts(kind="random", tokens=7), output_tokens=4, requests=1)


def gguf(tmp_path: Path) -> Checkpoint:
    file = write(tmp_path / "model.gguf", bpe())
    return Checkpoint(file, "path:m", "ab" * 32, "gguf-q4", "gguf")


def ollama(tmp_path: Path, port: int = 8123, **args: Any) -> LaunchSpec:
    asked = variant("ollama", args=args, path=str(SPEAKING / "ollama"))
    return Ollama().command(asked, LaunchContext(port, tmp_path, gguf(tmp_path)))


def sglang(tmp_path: Path, port: int = 8123, **args: Any) -> LaunchSpec:
    asked = variant("sglang", args=args, python=sys.executable, env={"PYTHONPATH": str(SPEAKING)})
    return SgLang().command(asked, LaunchContext(port, tmp_path, checkpoint(tmp_path / "m")))


def edgellm(tmp_path: Path, port: int = 8123, **args: Any) -> LaunchSpec:
    asked = variant("edge-llm", args=args, path=str(SPEAKING / "bin" / "trtedge"))
    from dataclasses import replace

    return EdgeLlm().command(
        replace(asked, quantization="fp16"), LaunchContext(port, tmp_path, checkpoint(tmp_path / "m"))
    )


def served(engine: Engine, spec: LaunchSpec, tmp_path: Path, crew: ExitStack) -> Served:
    """The server up and healthy."""
    sink, load = crew.enter_context(SpanSink()), crew.enter_context(LoadGenerator())
    server = crew.enter_context(start(spec, tmp_path))
    server.wait_healthy()
    subject = Subject(EngineSetting(engine=engine.name), Model(source="remote:"), "bf16")
    return Served(subject, gguf(tmp_path), spec, server, load, sink)


def test_ollama_serves_from_a_store_of_the_launchs_own(tmp_path: Path) -> None:
    spec = ollama(
        tmp_path, num_ctx=512, num_thread=2, context_length=1024, flash_attention=True, template="{{ .Prompt }}"
    )
    assert spec.argv == (str(SPEAKING / "ollama"), "serve")
    assert spec.env["OLLAMA_HOST"] == "127.0.0.1:8123"
    assert (spec.env["OLLAMA_CONTEXT_LENGTH"], spec.env["OLLAMA_FLASH_ATTENTION"]) == ("1024", "1")
    assert (spec.env["OLLAMA_KEEP_ALIVE"], spec.env["OLLAMA_NOPRUNE"]) == ("-1", "1")
    assert (spec.endpoint.model, spec.endpoint.token_ids) == ("m:latest", False)
    store = Path(spec.env["OLLAMA_MODELS"])
    manifest = json.loads((store / "manifests/registry.ollama.ai/library/m/latest").read_text())
    kinds = {layer["mediaType"].rpartition(".")[2]: layer["digest"].replace(":", "-") for layer in manifest["layers"]}
    assert kinds["model"] == "sha256-" + "ab" * 32
    assert (store / "blobs" / kinds["model"]).resolve() == tmp_path / "model.gguf"
    assert json.loads((store / "blobs" / kinds["params"]).read_text()) == {"num_ctx": 512, "num_thread": 2}
    assert (store / "blobs" / kinds["template"]).read_text() == "{{ .Prompt }}"
    config = json.loads((store / "blobs" / manifest["config"]["digest"].replace(":", "-")).read_text())
    assert (config["model_format"], config["model_family"], config["file_type"]) == ("gguf", "llama", "Q4_1")
    assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in manifest["layers"]]


def test_ollama_loads_at_the_first_request_and_its_start_says_so(tmp_path: Path) -> None:
    with ExitStack() as crew:
        spec = ollama(tmp_path, free_port(), context_length=1024)
        session = served(Ollama(), spec, tmp_path, crew)
        row = session.complete("what is hot here", tokens=32)
        assert (row["error"], row["prompt_tokens"], row["completion_tokens"]) == (None, 4, 9)
        trace = session.trace()
        assert session.server.stop()["leftover"] == []
    phases = {phase.name: phase for phase in Ollama().phases(trace)}
    load = phases["model_load"]
    assert load.start_ns is not None
    assert load.end_ns is not None
    assert (load.end_ns - load.start_ns) / 1e9 == pytest.approx(0.30)
    assert [phase.name for phase in Ollama().phases(trace)].count("model_load") == 1
    health, first = trace.stamps["health"], trace.stamps["first_token"]
    assert health is not None
    assert first is not None
    assert health < load.end_ns < first, "it is healthy before it has loaded anything"
    assert all(phases[name].start_ns is not None for name in ("server", "discovery", "runner_process"))
    facts = Ollama().facts(trace)
    assert (facts["version"], facts["context"], facts["backends"]) == ("0.17.4", "1024", ["cpu"])
    assert (facts["device_used"], facts["layers_on_gpu"], facts["weights_mib"]) == ("cpu", "0 of 31", {"CPU": 92.1})
    assert facts["verified"] == "not against a live server"


def test_ollama_on_a_gpu_is_told_by_its_own_words() -> None:
    from bench.record.engine_log import LogLine

    said = [
        'time=2026-03-26T23:40:07.926Z level=INFO source=types.go:42 msg="inference compute" id=GPU-1 library=CUDA'
        ' compute=8.7 name=CUDA0 description="Orin" libdirs=ollama,cuda_jetpack6 driver=12.6 total="7.4 GiB"',
        'level=INFO source=ggml.go:494 msg="offloaded 29/29 layers to GPU"',
        'level=INFO source=device.go:240 msg="model weights" device=CUDA0 size="1.1 GiB"',
        'level=INFO source=device.go:245 msg="model weights" device=CPU size="151.6 MiB"',
    ]
    facts = Ollama().facts(LaunchTrace({}, [LogLine(1, "err", line) for line in said]))
    assert (facts["backends"], facts["device_used"], facts["layers_on_gpu"]) == (["cuda"], "CUDA0", "29 of 29")
    assert facts["weights_mib"] == {"CUDA0": 1126.4, "CPU": 151.6}


def test_sglang_starts_answers_and_tells_its_phases(tmp_path: Path) -> None:
    with ExitStack() as crew:
        spec = sglang(tmp_path, free_port(), context_length=2048, disable_radix_cache=True)
        session = served(SgLang(), spec, tmp_path, crew)
        row = session.complete([1, 2, 3, 4, 5], tokens=6)
        assert (row["error"], row["prompt_tokens"], row["completion_tokens"], row["chunks"]) == (None, 5, 6, 6)
        trace = session.trace()
        assert session.server.stop()["leftover"] == []
    words = " ".join(spec.argv)
    assert "-m sglang.launch_server --model-path" in words
    assert "--dtype bfloat16 --enable-metrics --enable-cache-report --context-length 2048" in words
    phases = {phase.name: phase for phase in SgLang().phases(trace)}
    assert all(phase.start_ns is not None for phase in phases.values()), phases
    facts = SgLang().facts(trace)
    assert (facts["dtype"], facts["weights_gib"], facts["kv_cache_tokens"]) == ("bfloat16", 1.22, 161241)
    assert (facts["attention"], facts["device"], facts["prefix_caching"]) == ("flashinfer", "cuda", False)


def test_sglang_refuses_a_flag_that_its_installed_sources_do_not_have(tmp_path: Path) -> None:
    sources = tmp_path / "env/lib/python3.11/site-packages/sglang/srt/server_args.py"
    sources.parent.mkdir(parents=True)
    sources.write_text('class ServerArgs:\n    context_length: int = 1\n    x = "--mem-fraction-static"\n')
    python = tmp_path / "env/bin/python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    asked = variant("sglang", args={"mem_fraction_statics": 0.5}, python=str(python))
    with pytest.raises(LaunchError, match="did you mean mem_fraction_static") as failure:
        SgLang().command(asked, LaunchContext(1, tmp_path, checkpoint(tmp_path / "m")))
    assert failure.value.kind == "bad_argument"


def test_edge_llm_is_asked_by_chat_alone(tmp_path: Path) -> None:
    with ExitStack() as crew:
        spec = edgellm(tmp_path, free_port(), max_input_len=1024, enable_context_reuse=False)
        session = served(EdgeLlm(), spec, tmp_path, crew)
        weights = gguf(tmp_path)
        (request,) = requests(Asked(CHAT, spec.endpoint, weights, tmp_path, seed=1), Batch("measured", 0, 1))
        assert request.path == "/v1/chat/completions"
        assert request.prompt_id.startswith("chat-")
        row = session.chat(request.body["messages"][0]["content"], tokens=4)
        assert (row["error"], row["completion_tokens"], row["chunks"]) == (None, 4, 4)
        assert session.server.stop()["leftover"] == []
    words = " ".join(spec.argv)
    assert words.startswith(f"{SPEAKING}/bin/trtedge serve {tmp_path}/m --host 127.0.0.1")
    assert "--max-input-len 1024" in words
    assert "--enable-context-reuse" not in words
    assert f"--cache-dir {tmp_path}/caches/edgellm" in words


@pytest.mark.parametrize(
    ("command", "args", "said"),
    [
        (ollama, {"num_gpus": 1}, r"no setting 'num_gpus': .*did you mean num_gpu\?"),
        (edgellm, {"max_input_length": 1}, r"no flag 'max_input_length': .*did you mean max_input_len\?"),
    ],
)
def test_a_setting_that_is_not_known_is_refused_with_the_nearest(
    tmp_path: Path, command: Any, args: dict[str, Any], said: str
) -> None:
    with pytest.raises(LaunchError, match=said) as failure:
        command(tmp_path, **args)
    assert failure.value.kind == "bad_argument"


def test_weights_that_they_cannot_load_are_refused_before_start(tmp_path: Path) -> None:
    dense, packed = checkpoint(tmp_path / "m"), gguf(tmp_path)
    for engine, weights in ((Ollama(), dense), (SgLang(), packed), (EdgeLlm(), packed)):
        with pytest.raises(LaunchError) as failure:
            engine.command(variant(engine.name, python=sys.executable), LaunchContext(1, tmp_path, weights))
        assert failure.value.kind == "unsupported_quantization"
