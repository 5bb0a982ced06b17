"""Which llama-server knows which flag: read from the binary's own --help, with what became of renamed ones."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from bench.errors import LaunchError
from bench.phrases import nearest

HELP_TIMEOUT_S = 60.0
# How weights come into memory, in one word for all versions: up to 0.4 each way had a switch of its own.
LOAD = {"mmap": "mmap", "none": "no-mmap", "dio": "direct-io", "mlock": "mlock"}
# Flags that were renamed, and what says the same in other versions.
INSTEAD = {
    "mmap": "load: mmap",
    "no_mmap": "load: none",
    "direct_io": "load: dio",
    "no_direct_io": "load: mmap",
    "mlock": "load: mlock",
    "load_mode": "load",
    "no_webui": "nothing: the page for browsers is off here",
}
_NAMES = re.compile(r"(?P<names>-{1,2}[A-Za-z][\w-]*(?:, +-{1,2}[A-Za-z][\w-]*)*)(?: (?P<value>\S))?")


@dataclass(frozen=True, slots=True)
class Flags:
    """The long flags of one binary, without dashes in front: those that want a value, and those that are switches."""

    valued: frozenset[str]
    switches: frozenset[str]

    def __contains__(self, name: str) -> bool:
        return name in self.valued or name in self.switches


def flags(program: Path) -> Flags:
    """What the binary knows; LaunchError if it cannot be asked."""
    try:
        now = program.stat()
    except OSError as error:
        raise LaunchError("missing_file", f"{program}: {error.strerror}") from error
    return _flags(program, now.st_mtime_ns, now.st_size)


@cache
def _flags(program: Path, _changed: int, _size: int) -> Flags:
    try:
        ran = subprocess.run(
            [program, "--help"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=HELP_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LaunchError("unsupported", f"{program} does not answer to --help: {error}") from error
    found = parse(ran.stdout)
    if "model" not in found or "port" not in found:
        said = (ran.stderr or ran.stdout).strip().splitlines()
        raise LaunchError(
            "unsupported", f"{program} is no llama-server: {said[-1][:200] if said else 'it says nothing'}"
        )
    return found


def parse(text: str) -> Flags:
    """The flags of a help text: a line of its own for each, beginning with its spellings and a hint at its value."""
    valued: set[str] = set()
    switches: set[str] = set()
    for line in text.splitlines():
        match = _NAMES.match(line)
        if match is None:
            continue
        spelled = [name.strip() for name in match["names"].split(",")]
        names = [name.removeprefix("--") for name in spelled if name.startswith("--")]
        # Help that follows on the same line stands behind many spaces; a value stands behind one.
        (valued if match["value"] else switches).update(names)
    return Flags(frozenset(valued), frozenset(switches))


def command_line(args: Mapping[str, Any], known: Flags | None) -> Iterator[str]:
    """Arguments with underscores as words of the command line; without `known` (in an image) nothing is refused.

    True is the bare flag, or `on` where it wants a value; false its `no-` form, or `off`. Lists are joined by commas.
    """
    for name, value in args.items():
        flag = name.replace("_", "-")
        if value is None:
            continue
        if name == "load":
            yield from _load(value, known)
            continue
        if known is not None and flag not in known and f"no-{flag}" not in known:
            raise LaunchError("bad_argument", f"this llama-server has no flag {name!r}: {_instead(name, known)}")
        takes_value = known is not None and flag in known.valued
        if value is True or value is False:
            yield from _switch(name, flag, value, known, takes_value)
        else:
            if known is not None and not takes_value:
                raise LaunchError(
                    "bad_argument", f"args.{name} is a switch of llama-server: true or false, not {value!r}"
                )
            yield from (f"--{flag}", ",".join(map(str, value)) if isinstance(value, list) else str(value))


def _switch(name: str, flag: str, value: bool, known: Flags | None, takes_value: bool) -> Iterator[str]:
    if takes_value:
        yield from (f"--{flag}", "on" if value else "off")
    elif value:
        if known is not None and flag not in known:
            raise LaunchError("bad_argument", f"llama-server can only turn {name!r} off: leave it out")
        yield f"--{flag}"
    elif known is None or f"no-{flag}" in known:
        yield f"--no-{flag}"
    # A switch without a `no-` form is off when it is left out.


def _load(value: Any, known: Flags | None) -> Iterator[str]:
    if value not in LOAD:
        raise LaunchError("bad_argument", f"args.load is {value!r}, and must be one of {', '.join(LOAD)}")
    if known is None or "load-mode" in known:
        yield from ("--load-mode", str(value))
    elif LOAD[value] in known:
        yield f"--{LOAD[value]}"
    elif value != "mmap":
        raise LaunchError("bad_argument", f"this llama-server cannot load weights by {value!r}")


def _instead(name: str, known: Flags) -> str:
    if name in INSTEAD:
        return f"use {INSTEAD[name]}"
    near = nearest(name, [flag.replace("-", "_") for flag in sorted(known.valued | known.switches)])
    return f"did you mean {near}?" if near else "see `llama-server --help`"
