"""What a GGUF file says of itself: its metadata, read without its weights."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from bench.errors import ModelError

MAGIC = b"GGUF"
# How values are stored: number → struct's letter. 8 is a string, 9 an array.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
# No key or list of a sound file is longer; a damaged one must not take all memory.
_LONGEST, _MOST = 64 << 20, 16 << 20

# general.file_type → the name that llama.cpp gives it, in lower case.
FILE_TYPES = {
    0: "f32",
    1: "f16",
    2: "q4_0",
    3: "q4_1",
    7: "q8_0",
    8: "q5_0",
    9: "q5_1",
    10: "q2_k",
    11: "q3_k_s",
    12: "q3_k_m",
    13: "q3_k_l",
    14: "q4_k_s",
    15: "q4_k_m",
    16: "q5_k_s",
    17: "q5_k_m",
    18: "q6_k",
    32: "bf16",
}


@dataclass(frozen=True, slots=True)
class Header:
    """The metadata of a GGUF file by its keys, e.g. general.architecture."""

    metadata: Mapping[str, Any]

    @property
    def architecture(self) -> str | None:
        """The kind of model, e.g. llama."""
        return self.metadata.get("general.architecture")

    @property
    def file_type(self) -> str | None:
        """The type that most of its weights have, e.g. q4_k_m; None where the file does not say."""
        return FILE_TYPES.get(self.metadata.get("general.file_type", -1))

    @property
    def vocab_size(self) -> int | None:
        """How many tokens it knows."""
        tokens = self.metadata.get("tokenizer.ggml.tokens")
        return len(tokens) if tokens else None


def header(file: Path) -> Header:
    """Read a file's metadata; ModelError if it is no GGUF file, or cut short."""
    try:
        with file.open("rb") as handle:
            if handle.read(4) != MAGIC:
                raise ModelError(f"{file} is no GGUF file")
            version, _, count = _unpack(handle, "<IQQ")
            if version not in (2, 3):
                raise ModelError(f"{file} is GGUF of version {version}; 2 and 3 are known")
            pairs = ((_text(handle), _value(handle, _unpack(handle, "<I")[0])) for _ in range(count))
            return Header(dict(pairs))
    except OSError as error:
        raise ModelError(f"{file} cannot be read: {error.strerror}") from error
    except (EOFError, ValueError, KeyError) as error:
        raise ModelError(f"{file} is cut short or damaged: {error}", hint="fetch it again") from error


def _unpack(handle: BinaryIO, form: str) -> tuple[Any, ...]:
    size = struct.calcsize(form)
    data = handle.read(size)
    if len(data) < size:
        raise EOFError("it ends within its metadata")
    return struct.unpack(form, data)


def _text(handle: BinaryIO) -> str:
    (length,) = _unpack(handle, "<Q")
    if length > _LONGEST:
        raise ValueError(f"a text of {length} bytes")
    data = handle.read(length)
    if len(data) < length:
        raise EOFError("it ends within its metadata")
    return data.decode("utf-8", "replace")


def _value(handle: BinaryIO, kind: int) -> Any:
    if kind == _STRING:
        return _text(handle)
    if kind != _ARRAY:
        return _unpack(handle, f"<{_SCALARS[kind]}")[0]
    of, length = _unpack(handle, "<IQ")
    if length > _MOST:
        raise ValueError(f"a list of {length} values")
    if of in _SCALARS:
        return list(_unpack(handle, f"<{length}{_SCALARS[of]}"))
    return [_value(handle, of) for _ in range(length)]


def gguf_file(place: Path) -> Path:
    """The one GGUF file of a folder, or the place itself if it is a file."""
    found = [place] if place.is_file() else sorted(place.glob("*.gguf"))
    if len(found) != 1:
        raise ModelError(f"{place} holds {len(found)} GGUF files instead of one", hint="name the file itself")
    return found[0]
