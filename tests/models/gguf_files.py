"""Small GGUF files written here, byte by byte as the format says."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def write(file: Path, metadata: Mapping[str, Any], *, version: int = 3) -> Path:
    """A GGUF file with that metadata and no tensors."""
    body = b"GGUF" + struct.pack("<IQQ", version, 0, len(metadata))
    for key, value in metadata.items():
        body += _text(key) + _value(value)
    file.write_bytes(body)
    return file


def bpe(*, pre: str = "smollm", add_bos: bool = False) -> dict[str, Any]:
    """The metadata of a tiny byte-level BPE vocabulary: letters, a space, `he`, `ll`, and two control tokens."""
    letters = ["<s>", "</s>", *"helowrd ".replace(" ", "Ġ"), *"0123", "he", "ll"]
    return {
        "general.architecture": "llama",
        "general.file_type": 3,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": letters,
        "tokenizer.ggml.token_type": [3, 3, *([1] * (len(letters) - 2))],
        "tokenizer.ggml.merges": ["h e", "l l"],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.add_bos_token": add_bos,
    }


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: Any) -> bytes:
    if isinstance(value, bool):
        return struct.pack("<I?", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + _text(value)
    if isinstance(value[0], str):
        return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_text, value))
    return struct.pack("<IIQ", 9, 5, len(value)) + struct.pack(f"<{len(value)}i", *value)
