"""Models in their true shape with random weights: their speed is real, their words are noise."""

from __future__ import annotations

from typing import Any

# transformers model_type → the configuration that decides the shape. Published figures of each model's own config.
SHAPES: dict[str, dict[str, Any]] = {
    "ernie-4.5-0.3b": {
        "model_type": "ernie4_5",
        "vocab_size": 103424,
        "hidden_size": 1024,
        "intermediate_size": 3072,
        "num_hidden_layers": 18,
        "num_attention_heads": 16,
        "num_key_value_heads": 2,
        "head_dim": 128,
        "max_position_embeddings": 131072,
        "rope_theta": 500000.0,
        "tie_word_embeddings": True,
        "use_bias": False,
    },
    "tiny-llama": {
        "model_type": "llama",
        "vocab_size": 2048,
        "hidden_size": 128,
        "intermediate_size": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 4096,
        "rope_theta": 10000.0,
        "tie_word_embeddings": True,
    },
}

# Raised when the worker would make other files from the same shape.
RECIPE = 1


def key(name: str) -> dict[str, Any]:
    """The cache key of a dummy model."""
    return {"kind": "dummy", "name": name, "shape": SHAPES[name], "recipe": RECIPE}


def room(name: str) -> int:
    """Bytes that its bf16 weights may take, generously."""
    shape = SHAPES[name]
    embeddings = shape["vocab_size"] * shape["hidden_size"]
    layer = shape["hidden_size"] * (4 * shape["hidden_size"] + 3 * shape["intermediate_size"])
    return 2 * int(embeddings + shape["num_hidden_layers"] * layer) + 50_000_000
