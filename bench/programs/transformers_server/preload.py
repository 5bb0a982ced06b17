"""What a warm parent does before launches are forked from it; see parent_process.py.

It computes with one thread: the workers of a parallel region are not copied by a fork, and OpenMP would wait for them
in the child for ever.
"""

from __future__ import annotations

from typing import Any

import torch
import transformers

# What the server's own start imports.
from . import loading, runtime, schedule, serve  # noqa: F401

_threads: list[int] = []


def prepare(model: str, preload: str, dtype: str = "bf16", attention: str | None = None) -> dict[str, Any]:
    """Import the model's own code; load its tokenizer with `tokenizer` and `weights`, its weights with the latter."""
    _threads.append(torch.get_num_threads())
    torch.set_num_threads(1)
    runtime.quiet()
    done: dict[str, Any] = {"preload": preload}
    # Naming a class of these is what imports its module.
    known = transformers.AutoModelForCausalLM._model_mapping
    config = type(transformers.AutoConfig.from_pretrained(model))
    if config in known:
        done["model_class"] = known[config].__name__
    _ = transformers.AutoTokenizer
    if preload in ("tokenizer", "weights"):
        loading.hold_tokenizer(model)
    if preload == "weights":
        done["weight_bytes"] = loading.hold_model(model, dtype, attention)
    return done


def resume() -> None:
    """In a fork: as many threads as a new process would have had."""
    for count in _threads:
        torch.set_num_threads(count)
