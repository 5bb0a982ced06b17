"""How a mistake is put into words: the offending value, what is allowed, the nearest match."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from bench.errors import nearest

# Text that YAML 1.2 reads as text without quotes, inside `{}` and `[]` too.
_PLAIN = re.compile(r"[A-Za-z_/][\w./-]*")


def dotted(path: Sequence[str | int]) -> str:
    """A path as people write it: matrix.quantization[1]."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def shown(value: Any) -> str:
    """A value as it stands in the file, shortened."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:56]}…{text[-1]}"


def among(names: Iterable[str], value: Any) -> str:
    """`one of a, b, c (did you mean b?)`, in the order given."""
    known = list(names)
    if not known:
        return "known: there are none"
    near = nearest(value, known)
    return f"one of {', '.join(known)}" + (f" (did you mean {near}?)" if near else "")


def counted(amount: int, noun: str) -> str:
    """`1 launch`, `3 launches`."""
    many = f"{noun}es" if noun.endswith(("s", "ch", "x")) else f"{noun}s"
    return f"{amount} {noun if amount == 1 else many}"


def flow(value: Any) -> str:
    """A value as YAML on one line; text is quoted where it would be read as anything else."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{flow(str(key))}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in ("true", "false", "null"):
        return value
    return json.dumps(value, ensure_ascii=False)


def joined(names: Iterable[str], word: str = "or") -> str:
    """`a`, `a or b`, `a, b or c`."""
    items = list(names)
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} {word} {items[-1]}" if items else ""
