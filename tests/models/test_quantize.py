"""Quantizing: what is refused before it starts, how its progress is told, and that it leaves nothing half-made."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import textwrap
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from bench.data import CALIBRATION, EVALUATION
from bench.engines.engine import Checkpoint
from bench.errors import ModelError, UsageError
from bench.models import quantize
from bench.models.cache import Cache
from bench.models.contents import input_widths
from bench.models.quantize import METHODS, QuantizeOptions, calibration, chosen, progress_line, provenance
from bench.scenario.model import Model
from tests.children import ended

SMOLLM2 = {"model.layers.0.self_attn.q_proj.weight": (576, 576), "model.layers.0.mlp.down_proj.weight": (576, 1536)}


def checkpoint(folder: Path, shapes: Mapping[str, tuple[int, ...]] = SMOLLM2) -> Checkpoint:
    """A dense checkpoint of the right shapes, its weights left out of the file."""
    folder.mkdir(parents=True, exist_ok=True)
    shapes = {"model.embed_tokens.weight": (100, 7), "model.norm.weight": (576,), **shapes}
    header = json.dumps({name: {"dtype": "BF16", "shape": list(shape)} for name, shape in shapes.items()}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    (folder / "config.json").write_text('{"vocab_size": 100}')
    (folder / "tokenizer.json").write_text("{}")
    return Checkpoint(folder, "path:model", "digest", "bf16", size_bytes=10)


def test_the_largest_group_size_that_divides_every_width_is_taken(tmp_path: Path) -> None:
    assert chosen(checkpoint(tmp_path / "a"), QuantizeOptions("awq")) == 64
    ernie = {"q.weight": (2048, 1024), "down.weight": (1024, 3072)}
    assert chosen(checkpoint(tmp_path / "b", ernie), QuantizeOptions("gptq")) == 128


def test_a_group_size_that_does_not_divide_is_refused_with_those_that_do(tmp_path: Path) -> None:
    dense = checkpoint(tmp_path)
    with pytest.raises(UsageError, match=r"128 does not divide .*576 of model.layers.0.self_attn.q_proj; 64, 32 would"):
        chosen(dense, QuantizeOptions("awq", group_size=128))
    assert chosen(dense, QuantizeOptions("awq", group_size=96)) == 96
    with pytest.raises(UsageError, match="group size 0"):
        chosen(dense, QuantizeOptions("awq", group_size=0))


def test_a_model_that_no_group_size_divides_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no group size of 128, 64, 32 divides"):
        chosen(checkpoint(tmp_path, {"odd.weight": (10, 250)}), QuantizeOptions("awq"))


def test_int8_has_no_groups(tmp_path: Path) -> None:
    assert chosen(checkpoint(tmp_path), QuantizeOptions("int8")) is None
    with pytest.raises(UsageError, match="no group size"):
        chosen(checkpoint(tmp_path), QuantizeOptions("int8", group_size=64))


@pytest.mark.parametrize(("method", "words"), [("awk", "did you mean awq"), ("fp8", "one of awq, gptq, int8")])
def test_an_unknown_method_is_answered_with_the_known_ones(method: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        QuantizeOptions(method)


def test_settings_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UsageError, match="samples must be at least 1"):
        QuantizeOptions("awq", samples=0)
    with pytest.raises(UsageError, match="n_grid must be at least 3"):
        QuantizeOptions("awq", n_grid=2)


def test_files_that_are_no_weights_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no linear layers"):
        input_widths(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(ModelError, match="no safetensors file"):
        input_widths(tmp_path)


def test_the_shipped_texts_are_bilingual_and_share_nothing_with_those_for_evaluation() -> None:
    seen, judged = (
        [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
        for file in (CALIBRATION, EVALUATION)
    )
    for entries in (seen, judged):
        assert {entry["language"] for entry in entries} == {"en", "zh"}
        assert len({entry["id"] for entry in entries}) == len(entries)
    pieces = {entry["text"][at : at + 24] for entry in seen for at in range(len(entry["text"]) - 23)}
    assert not [entry["id"] for entry in judged if any(entry["text"][at : at + 24] in pieces for at in range(200))]
    assert calibration(None) == [entry["text"] for entry in seen]


@pytest.mark.parametrize(
    ("content", "words"), [("", "holds no texts"), ('{"txt": 1}', r":1: not a JSON object"), ("no json", ":1:")]
)
def test_a_corpus_that_cannot_be_used_is_named_with_its_line(tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text(content)
    with pytest.raises(UsageError, match=words):
        calibration(file)


def test_what_decides_the_result_is_recorded(tmp_path: Path) -> None:
    made = provenance(checkpoint(tmp_path), QuantizeOptions("awq", seed=9, samples=4), 64, ["a", "b"])
    assert (made["group_size"], made["seed"], made["samples"], made["from"]) == (64, 9, 4, "digest")
    other = provenance(checkpoint(tmp_path), QuantizeOptions("awq", seed=9, samples=4), 64, ["a", "c"])
    assert made["calibration"]["sha256"] != other["calibration"]["sha256"]
    assert set(METHODS) == set(quantize.SCHEMES)


def test_progress_tells_the_time_left() -> None:
    assert progress_line(10, 30, 60.0) == "layer 10 of 30, 2:00 left"


WORKER = """
import json, pathlib, sys, time
job = json.loads(pathlib.Path(sys.argv[1]).read_text())
def say(event, **fields): print(json.dumps({"event": event, **fields}), flush=True)
say("loaded", layers=2, device="cpu")
pathlib.Path(job["out"], "model.safetensors").write_bytes(b"half")
say("progress", done=1, of=2)
BEHAVIOUR
pathlib.Path(job["out"], "model.safetensors").write_bytes(b"whole")
pathlib.Path(job["out"], "config.json").write_text("{}")
say("done", seconds=1.0, tokens=256, versions={})
"""


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A dense model, an empty cache, and this interpreter in place of llm-compressor's."""
    checkpoint(tmp_path / "model")
    monkeypatch.setenv("FIRSTTOKEN_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(quantize, "provisioned", lambda name: Path(sys.executable))
    return tmp_path


def worker(folder: Path, monkeypatch: pytest.MonkeyPatch, behaviour: str) -> None:
    file = folder / "worker.py"
    file.write_text(WORKER.replace("BEHAVIOUR", textwrap.dedent(behaviour)))
    monkeypatch.setattr(quantize, "_PROGRAM", file)


def left(folder: Path) -> list[str]:
    """Everything in the cache that is not a lock or the memory of checksums."""
    ours = ("digests.json", ".lock")
    return [path.name for path in (folder / "home" / "models").glob("*") if not path.name.endswith(ours)]


def test_a_finished_one_is_kept_with_its_provenance_and_found_again(
    prepared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker(prepared, monkeypatch, "")
    model, told = Model(source=f"path:{prepared}/model"), list[str]()
    made = quantize.quantize(model, QuantizeOptions("awq"), progress=told.append)
    assert made.quantization == "awq"
    assert any("layer 1 of 2" in line and "left" in line for line in told)
    (entry,) = Cache().entries()
    assert entry.about["group_size"] == 64
    assert entry.about["tokens"] == 256
    assert "tokenizer.json" in entry.files
    worker(prepared, monkeypatch, "raise SystemExit('called again')")
    assert quantize.quantize(model, QuantizeOptions("awq")).digest == made.digest
    with pytest.raises(ModelError, match="other settings: group_size 64"):
        quantize.quantize(model, QuantizeOptions("awq", samples=3))


def test_a_damaged_one_is_refused(prepared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worker(prepared, monkeypatch, "")
    model = Model(source=f"path:{prepared}/model")
    made = quantize.quantize(model, QuantizeOptions("gptq"))
    assert made.path is not None
    (made.path / "model.safetensors").write_bytes(b"whale")
    with pytest.raises(ModelError, match="damaged"):
        quantize.quantize(model, QuantizeOptions("gptq"))


@pytest.mark.parametrize(
    ("behaviour", "words"),
    [
        ("raise OSError(28, 'No space left on device')", "disk_full"),
        ("raise MemoryError()", "out_of_memory"),
        ("sys.exit(0)", "status 0"),
        ("import os; os.kill(os.getpid(), 11)", "segmentation fault"),
    ],
)
def test_one_that_fails_says_why_and_leaves_nothing(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, behaviour: str, words: str
) -> None:
    worker(prepared, monkeypatch, behaviour)
    with pytest.raises(ModelError, match=words):
        quantize.quantize(Model(source=f"path:{prepared}/model"), QuantizeOptions("awq"))
    assert [name for name in left(prepared) if not name.endswith(".partial")] == []


INTERRUPTED = """
import sys
from pathlib import Path
from bench.models import quantize
from bench.models.quantize import QuantizeOptions
from bench.scenario.model import Model
quantize.provisioned = lambda name: Path(sys.executable)
quantize._PROGRAM = Path(sys.argv[1]) / "worker.py"
model = Model(source=f"path:{sys.argv[1]}/model")
quantize.quantize(model, QuantizeOptions("awq"), progress=lambda l: print(l, flush=True))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_one_leaves_no_entry_and_no_worker(
    prepared: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    # The real worker dies with whoever called it, by the parent-death signal; this one does the same.
    dies = "import ctypes; ctypes.CDLL(None).prctl(1, 9, 0, 0, 0); time.sleep(60)"
    worker(
        prepared,
        monkeypatch,
        f"pathlib.Path({str(prepared)!r}, 'pid').write_text(str(__import__('os').getpid()))\n{dies}",
    )
    environment = {**os.environ, "FIRSTTOKEN_HOME": str(prepared / "home")}
    with ended(
        subprocess.Popen(
            [sys.executable, "-c", INTERRUPTED, str(prepared)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=Path(__file__).parents[2],
        )
    ) as harness:
        deadline = time.monotonic() + 60
        while not (prepared / "pid").exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        time.sleep(0.3)
        harness.send_signal(number)
        harness.wait()
    pid = int((prepared / "pid").read_text())
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{pid}").exists()
    assert Cache().entries() == []
    # The next attempt is not in the way of what a killed one could not clear.
    worker(prepared, monkeypatch, "")
    quantize.quantize(Model(source=f"path:{prepared}/model"), QuantizeOptions("awq"))
    assert len(Cache().entries()) == 1
    assert not [name for name in left(prepared) if name.endswith((".tmp", ".partial"))]


def test_a_worker_that_dies_in_the_middle_of_a_report_is_a_failure_with_its_last_words() -> None:
    """Not a document that cannot be read."""
    script = r"""
import os
os.write(1, b'{"event": "started"}\n{"event": "progre')
os.write(2, b"OSError: [Errno 28] No space left on device\n")
os.kill(os.getpid(), 9)
"""
    with pytest.raises(ModelError, match=r"quantizing failed \(disk_full\)"):
        quantize.run([sys.executable, "-c", script], lambda words: None)
