"""Quantizing a checkpoint with llm-compressor, in an environment of its own, into the cache."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from bench.data import CALIBRATION
from bench.engines.engine import Checkpoint
from bench.engines.failure import classify
from bench.engines.server_process import signal_name
from bench.environments.environment import provisioned
from bench.errors import ModelError, UsageError
from bench.home import Progress, room
from bench.models.cache import Cache, Entry
from bench.models.checkpoints import checkpoint, quantized_key, resolve
from bench.models.contents import input_widths
from bench.phrases import among, unread
from bench.programs import FOLDER
from bench.scenario.model import Model

# Weights of a row that share a scale, as vLLM's 4-bit kernels take them, the cheapest in memory first.
GROUP_SIZES = (128, 64, 32)
METHODS = ("awq", "gptq", "int8")
ENVIRONMENT = "llm-compressor"
SCHEMES = {
    "awq": "W4A16, asymmetric, scales searched against activations",
    "gptq": "W4A16, symmetric, rounding corrected by the Hessian",
    "int8": "W8A8, weights per channel, activations per token while running",
}
_PROGRAM = FOLDER / "quantize_process.py"
_SIDE = ("generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
_SIDE_MORE = ("tokenizer.model", "vocab.json", "merges.txt", "added_tokens.json", "chat_template.jinja")


@dataclass(frozen=True, slots=True)
class QuantizeOptions:
    """How to quantize. `samples` rows of `length` tokens are cut from the calibration texts; `n_grid` is AWQ's search.

    `group_size` None takes the largest of GROUP_SIZES that divides every input width. `corpus` is a JSON-lines file
    with `text`, the shipped one if None.
    """

    method: str
    group_size: int | None = None
    samples: int = 16
    length: int = 128
    seed: int = 1
    n_grid: int = 10
    batch: int = 8
    corpus: Path | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UsageError(f"{self.method!r} cannot be made here: {among(METHODS, self.method)}")
        # Two points of the search are its fixed ends.
        for name, least in (("samples", 1), ("length", 1), ("n_grid", 3), ("batch", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} must be at least {least}, not {getattr(self, name)}")


def quantize(
    model: Model,
    options: QuantizeOptions,
    *,
    cache: Cache | None = None,
    replace: bool = False,
    progress: Progress | None = None,
) -> Checkpoint:
    """The quantized checkpoint, made now unless it is in the cache; `replace` makes it again.

    ModelError or UsageError says what stands in the way. An interrupted run leaves nothing behind.
    """
    cache = cache or Cache()
    tell = progress or (lambda line: None)
    dense = resolve(model, "bf16", cache=cache, progress=progress)
    assert dense.path is not None
    if (dense.path / "config.json").is_file() and _config(dense.path).get("quantization_config"):
        raise ModelError(f"{dense.source} is quantized already", hint="name the checkpoint it was made from")
    key = quantized_key(dense, options.method)
    if not replace and (found := cache.entry(key)) is not None:
        if not made_by(found, options, dense):
            raise ModelError(
                f"there is a {options.method} checkpoint of {dense.source} made with other settings: "
                f"{_settings(found)}",
                hint="add --replace to make it again with these",
            )
        return checkpoint(found, dense.source)
    size = chosen(dense, options)
    python = provisioned(ENVIRONMENT)
    texts = calibration(options.corpus)
    about = provenance(dense, options, size, texts)

    def write(folder: Path, partial: Path) -> None:
        job = {**asdict(options), "corpus": None, "group_size": size, "model": str(dense.path), "out": str(folder)}
        file = partial / "job.json"
        file.write_text(json.dumps({**job, "texts": texts}), encoding="utf-8")
        about.update(run([str(python), str(_PROGRAM), str(file)], tell))
        assert dense.path is not None
        for name in (*_SIDE, *_SIDE_MORE):
            if (dense.path / name).is_file():
                shutil.copyfile(dense.path / name, folder / name)

    tell(f"quantizing {dense.source} to {options.method}" + (f", group size {size}" if size else ""))
    room(cache.root, dense.size_bytes or 0, "the quantized model")
    entry = cache.put(key, write, needs=dense.size_bytes or 0, about=about, replace=replace, progress=progress)
    return checkpoint(entry, dense.source)


def provenance(dense: Checkpoint, options: QuantizeOptions, size: int | None, texts: Sequence[str]) -> dict[str, Any]:
    """What is kept about how a checkpoint was made; the worker adds seconds, tokens and versions."""
    made: dict[str, Any] = {
        "source": dense.source,
        "from": dense.digest,
        "quantization": options.method,
        "scheme": SCHEMES[options.method],
        "random_weights": dense.random_weights,
        "seed": options.seed,
    }
    if options.method != "int8":
        made |= {
            "group_size": size,
            "samples": options.samples,
            "length": options.length,
            "n_grid": options.n_grid if options.method == "awq" else None,
            "calibration": {
                "texts": len(texts),
                "sha256": sha256("\0".join(texts).encode()).hexdigest(),
                "corpus": str(options.corpus.name) if options.corpus else "shipped",
            },
        }
    return made


def made_by(entry: Entry, options: QuantizeOptions, dense: Checkpoint) -> bool:
    """Whether an entry was made with these settings."""
    size = chosen(dense, options)
    wanted = provenance(dense, options, size, calibration(options.corpus))
    return all(entry.about.get(name) == value for name, value in wanted.items() if name != "source")


def chosen(dense: Checkpoint, options: QuantizeOptions) -> int | None:
    """The group size to use; None for a method without groups. UsageError names the sizes that divide every width."""
    if options.method == "int8":
        if options.group_size is not None:
            raise UsageError("int8 has one scale per channel and takes no group size")
        return None
    assert dense.path is not None
    return group_size(input_widths(dense.path), options.group_size)


def group_size(widths: Mapping[int, str], asked: int | None) -> int:
    """The size asked for, or the largest of GROUP_SIZES that divides every width; UsageError names those that do."""
    sizes = ", ".join(map(str, GROUP_SIZES))
    fitting = [size for size in GROUP_SIZES if not any(width % size for width in widths)]
    if asked is None:
        if fitting:
            return fitting[0]
        raise UsageError(
            f"no group size of {', '.join(map(str, GROUP_SIZES))} divides every input width: {_layers(widths)}"
        )
    wrong = widths if asked < 1 else {width: name for width, name in widths.items() if width % asked}
    if not wrong:
        return asked
    do = f"{', '.join(map(str, fitting))} would" if fitting else f"none of {sizes} does either"
    raise UsageError(f"group size {asked} does not divide the input width {_layers(wrong)}; {do}")


def calibration(corpus: Path | None) -> list[str]:
    """The texts that a quantizer sees."""
    file = corpus or CALIBRATION
    texts = []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UsageError(unread(file, error)) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{file} is not UTF-8: {error.reason} at byte {error.start}") from error
    for number, line in enumerate(lines, 1):
        try:
            text = json.loads(line)["text"] if line.strip() else None
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"{file}:{number}: not a JSON object with `text`") from error
        if text is not None:
            texts.append(str(text))
    if not texts:
        raise UsageError(f"{file} holds no texts")
    return texts


def run(argv: Sequence[str], tell: Progress) -> dict[str, Any]:
    """Run the worker and pass its progress on with the time left; what it reported at the end."""
    tail: deque[str] = deque(maxlen=2000)
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True) as worker,
    ):
        try:
            result = _follow(worker, tell)
        except BaseException:
            worker.kill()
            raise
        status = worker.wait()
        errors.seek(0)
        tail.extend(line for line in errors.read().decode("utf-8", "replace").replace("\r", "\n").split("\n") if line)
    if status or result is None:
        ended = {"code": status if status >= 0 else None, "signal": signal_name(-status) if status < 0 else None}
        kind, sentence = classify(list(tail), ended, "start")
        raise ModelError(
            f"quantizing failed ({kind}): {sentence}",
            hint="free some disk space" if kind == "disk_full" else None,
        )
    return result


def _follow(worker: subprocess.Popen[str], tell: Progress) -> dict[str, Any] | None:
    assert worker.stdout is not None
    begun = time.monotonic()
    for line in worker.stdout:
        if not line.endswith("\n"):
            break  # cut short by its death
        report: dict[str, Any] = json.loads(line)
        match report.pop("event"):
            case "loaded":
                tell(f"  {report['layers']} layers, on {report['device']}")
                begun = time.monotonic()
            case "progress":
                tell(f"  {progress_line(report['done'], report['of'], time.monotonic() - begun)}")
            case "saving":
                tell("  writing")
            case "done":
                return report
    return None


def progress_line(done: int, of: int, elapsed_s: float) -> str:
    """Layers done and the time left, if they go on as they did."""
    left = elapsed_s / done * (of - done)
    return f"layer {done} of {of}, {int(left) // 60}:{int(left) % 60:02d} left"


def _config(folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return config


def _settings(entry: Entry) -> str:
    names = ("group_size", "samples", "length", "n_grid", "seed")
    return ", ".join(f"{name} {entry.about[name]}" for name in names if entry.about.get(name) is not None)


def _layers(widths: Mapping[int, str]) -> str:
    return ", ".join(f"{width} of {name}" for width, name in sorted(widths.items()))
