"""Tokenizer and weights: read from a checkpoint's folder, or taken over from the warm parent that was forked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

# What a parent has loaded for its forks, by what it was loaded from and how. Each is used once in a process.
_held: dict[tuple[str | None, ...], Any] = {}


def hold_tokenizer(folder: str) -> None:
    """Load it for the forks of this process."""
    _held["tokenizer", folder] = _read_tokenizer(folder)


def hold_model(folder: str, dtype: str, attention: str | None) -> int:
    """Load the weights for the forks of this process, into the memory that all devices are fed from; their bytes."""
    model = _held["model", folder, dtype, attention] = _read_model(Path(folder), dtype, attention, torch.device("cpu"))
    return sum(tensor.numel() * tensor.element_size() for tensor in model.parameters())


def tokenizer(folder: str) -> tuple[Any, bool]:
    """The tokenizer, and whether a parent had it."""
    held = _held.pop(("tokenizer", folder), None)
    return (held, True) if held is not None else (_read_tokenizer(folder), False)


def model(folder: str, dtype: str, attention: str | None, device: torch.device) -> tuple[Any, bool]:
    """The model on its device, ready to infer, and whether a parent had it."""
    held = _held.pop(("model", folder, dtype, attention), None)
    if held is None:
        return _read_model(Path(folder), dtype, attention, device), False
    return (held.to(device) if device.type != "cpu" else held), True


def _read_tokenizer(folder: str) -> Any:
    return transformers.AutoTokenizer.from_pretrained(folder)


def _read_model(folder: Path, dtype: str, attention: str | None, device: torch.device) -> Any:
    """A packed GGUF file stays packed; compressed tensors are unpacked here, as part of loading.

    Left to itself, Transformers unpacks them layer by layer in its first call, ten times slower.
    """
    options: dict[str, Any] = {"dtype": DTYPES[dtype]}
    if attention:
        options["attn_implementation"] = attention
    packed = sorted(folder.glob("*.gguf"))
    if packed:
        options |= {"gguf_file": packed[0].name, "quantization_config": transformers.GgufConfig()}
    elif _compressed(folder):
        options["quantization_config"] = transformers.CompressedTensorsConfig(dequantize=True)
    if device.type == "cuda":
        options["device_map"] = {"": device}
    return transformers.AutoModelForCausalLM.from_pretrained(folder, **options).eval()


def _compressed(folder: Path) -> bool:
    """Whether a checkpoint's tensors are in llm-compressor's format."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return (config.get("quantization_config") or {}).get("quant_method") == "compressed-tensors"
