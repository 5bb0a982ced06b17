"""Small phrases that messages share: the name that was meant, lists and amounts, values, what the system said."""

from __future__ import annotations

import errno
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

# Text that YAML 1.2 reads as text without quotes, inside `{}` and `[]` too.
_PLAIN = re.compile(r"[A-Za-z_/][\w./-]*")
# What Markdown and the HTML inside it give a meaning.
_MARKS = re.compile(r"([\\`*_\[\]<>|#])")


def among(names: Iterable[str], value: object) -> str:
    """`one of a, b, c (did you mean b?)`, in the order given."""
    known = list(names)
    if not known:
        return "known: there are none"
    near = nearest(value, known)
    return f"one of {', '.join(known)}" + (f" (did you mean {near}?)" if near else "")


def nearest(name: object, known: Iterable[str]) -> str | None:
    """The known name that was probably meant: a slip of the keyboard away, or the only one that begins like it.

    A slip is at most one edit in three characters (insertion, deletion, replacement, two neighbours swapped); what is
    farther away would send its reader astray. Upper case and `-` for `_` are no difference.
    """
    wanted = _folded(str(name))
    names = list(known)
    near = [(_edits(wanted, _folded(one)), place, one) for place, one in enumerate(names)]
    near = [found for found in near if found[0] <= max(len(wanted), len(found[2])) // 3]
    if near:
        return min(near)[2]
    begun = [one for one in names if len(wanted) >= 3 and _folded(one).startswith(wanted)]
    return begun[0] if len(begun) == 1 else None


def listed(items: Iterable[str], last: str = "and") -> str:
    """`a`, `a and b`, `a, b and c`."""
    parts = list(items)
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {last} {parts[-1]}" if parts else ""


def counted(amount: int, noun: str) -> str:
    """`1 launch`, `3 launches`."""
    return f"{amount} {numbered(amount, noun)}"


def numbered(amount: int, noun: str) -> str:
    """The noun as it stands behind so many: `launch`, `launches`."""
    many = f"{noun}es" if noun.endswith(("s", "ch", "x")) else f"{noun}s"
    return noun if amount == 1 else many


def shown(value: Any) -> str:
    """A value as it stands in a file, shortened."""
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


def flow(value: Any) -> str:
    """A value as YAML on one line; text is quoted where it would be read as anything else."""
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{flow(str(key))}: {flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(flow, value)) + "]"
    if isinstance(value, str) and _PLAIN.fullmatch(value) and value.lower() not in ("true", "false", "null"):
        return value
    return json.dumps(value, ensure_ascii=False)


def escaped(text: str) -> str:
    """Text that Markdown and the HTML inside it leave alone, on one line."""
    return _MARKS.sub(r"\\\1", " ".join(text.split())).replace("&", "&amp;")


def unwritten(path: object, error: OSError) -> str:
    """Why a path cannot be written, as the file system has it."""
    return f"no space left while writing {path}" if is_full(error) else f"{path} cannot be written: {why(error)}"


def unread(path: object, error: OSError) -> str:
    """Why a path cannot be read, as the file system has it."""
    return f"{path} cannot be read: {why(error)}"


def why(error: OSError) -> str:
    """The system's own words, without a number or a path."""
    return error.strerror or str(error)


def is_full(error: OSError) -> bool:
    """Whether there was no room: on the disk, in a quota, in what one file may hold."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def _folded(name: str) -> str:
    return name.lower().replace("-", "_")


def _edits(a: str, b: str) -> int:
    """Optimal string alignment distance."""
    before: list[int] = []
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        earlier, before, row = before, row, [i]
        for j, right in enumerate(b, 1):
            cost = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (left != right))
            if i > 1 and j > 1 and left == b[j - 2] and a[i - 2] == right:
                cost = min(cost, earlier[j - 2] + 1)
            row.append(cost)
    return row[-1]
