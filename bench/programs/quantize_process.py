"""Quantizes a checkpoint with llm-compressor. Runs in the `llm-compressor` environment and knows nothing of bench.

`quantize_worker.py JOB.json`: the job names the model's folder, the folder to write, the method and its settings, and
holds the calibration texts. Reports JSON lines on stdout, one event each; whatever the libraries print goes to stderr.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import os
import random
import select
import signal
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Do one job."""
    # Whoever gave the job has gone: nobody wants its result any more.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    reports = os.dup(1)
    os.dup2(2, 1)

    def report(event: str, **fields: Any) -> None:
        write_all(reports, json.dumps({"event": event, **fields}).encode() + b"\n")

    report("started")
    quantize(job, report)


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything, waiting where there is no room; OSError if the other side is gone."""
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:
            waiting = select.poll()
            waiting.register(descriptor, select.POLLOUT)
            waiting.poll()


def quantize(job: dict[str, Any], report: Callable[..., None]) -> None:
    """Load, quantize, save; report progress by layer."""
    import torch
    from llmcompressor import oneshot
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(job["seed"])
    random.seed(job["seed"])
    if not torch.accelerator.is_available():
        work_without_accelerator()
    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.bfloat16)
    if torch.cuda.is_available():
        model = model.to("cuda")
    layers = int(model.config.get_text_config().num_hidden_layers)
    report("loaded", layers=layers, device=str(model.device))
    begun = time.monotonic()
    calibration = None if job["method"] == "int8" else samples(tokenizer, job)
    modifiers = recipe(job)
    count_layers(modifiers[0], lambda done: report("progress", done=min(done, layers), of=layers))
    oneshot(model=model, tokenizer=tokenizer, recipe=modifiers, dataset=calibration)
    seconds = time.monotonic() - begun
    report("saving")
    model.save_pretrained(job["out"], save_compressed=True)
    keep_config(Path(job["model"]), Path(job["out"]))
    report(
        "done",
        seconds=round(seconds, 1),
        tokens=sum(int(batch["input_ids"].numel()) for batch in calibration) if calibration else 0,
        versions={name: version(name) for name in ("llmcompressor", "compressed-tensors", "torch", "transformers")},
    )


def recipe(job: dict[str, Any]) -> list[Any]:
    """The modifiers of a method."""
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier

    ignore = ["lm_head"]
    if job["method"] == "int8":
        return [QuantizationModifier(targets=["Linear"], scheme="W8A8", ignore=ignore)]
    weights = {
        "num_bits": 4,
        "type": "int",
        "symmetric": job["method"] == "gptq",
        "strategy": "group",
        "group_size": job["group_size"],
    }
    groups = {"config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}}, "ignore": ignore}
    if job["method"] == "gptq":
        return [GPTQModifier(**groups)]
    return [AWQModifier(n_grid=job["n_grid"]), QuantizationModifier(**groups)]


def count_layers(modifier: Any, report: Callable[[int], None]) -> None:
    """Have a modifier tell after each layer how many it has done. The library gives each its own pass, so that a
    modifier of ours in the list would see nothing of the others' work.
    """
    kind, done = type(modifier), itertools.count(1)
    original = kind.on_sequential_epoch_end

    def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = original(self, *args, **kwargs)
        report(next(done))
        return result

    kind.on_sequential_epoch_end = counted


def samples(tokenizer: Any, job: dict[str, Any]) -> Any:
    """The calibration texts in drawn order, end to end, cut into rows of equal length: nothing is padded.

    Texts that are shorter than what was asked for give fewer rows.
    """
    import torch

    texts = list(job["texts"])
    random.Random(job["seed"]).shuffle(texts)
    stream = [token for text in texts for token in tokenizer(text + "\n\n")["input_ids"]]
    length = min(job["length"], len(stream))
    rows = [stream[start : start + length] for start in range(0, len(stream) - length + 1, length)][: job["samples"]]
    batches = [torch.tensor(rows[start : start + job["batch"]]) for start in range(0, len(rows), job["batch"])]
    documents = [{"input_ids": batch, "attention_mask": torch.ones_like(batch)} for batch in batches]
    return torch.utils.data.DataLoader(documents, batch_size=None)


def keep_config(source: Path, out: Path) -> None:
    """The source's own configuration with the quantization added: this library's version of it may read differently
    in another one.
    """
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    written = json.loads((out / "config.json").read_text(encoding="utf-8"))
    config["quantization_config"] = written["quantization_config"]
    (out / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    (out / "recipe.yaml").unlink(missing_ok=True)
    for file in out.iterdir():
        file.chmod(0o644)


def work_without_accelerator() -> None:
    """Undo the library's assumption that host memory can be pinned for a device's sake; without one, it cannot."""
    from llmcompressor.pipelines.cache import IntermediatesCache

    IntermediatesCache.pin_memory = lambda self, *args, **kwargs: None


if __name__ == "__main__":
    main()
