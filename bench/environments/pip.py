"""pip as a subprocess: which one to call, its output kept and told, and its complaints in our words."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Iterable
from pathlib import Path

from bench.environments.logged import logged
from bench.errors import EnvironmentFault
from bench.home import Progress

# What pip says, and what it means to whoever reads it. First match wins.
_CAUSES = (
    (r"No space left on device|Disk quota exceeded", "the disk is full", "free some space or set FIRSTTOKEN_HOME"),
    (
        r"Name or service not known|name resolution|NewConnectionError|Connection refused|Network is unreachable"
        r"|ConnectTimeout|ReadTimeout|ProxyError|timed out",
        "the package index cannot be reached",
        "check the network, or give an index or folder that can be reached (PIP_INDEX_URL, PIP_FIND_LINKS)",
    ),
    (r"CERTIFICATE_VERIFY_FAILED", "the package index's certificate is not trusted", "set PIP_CERT"),
    (
        r"No matching distribution found for (?P<what>\S+)",
        "there is no {what} for this Python and this kind of machine",
        "try another interpreter with --python, or make the environment by hand and name it with `python:`",
    ),
    (r"THESE PACKAGES DO NOT MATCH THE HASHES", "a package's checksum is wrong", "run it again"),
)
# The lines that say how far it is.
_TOLD = ("Collecting", "Downloading", "Installing", "Building", "Successfully")


def command(others: Iterable[Path] = ()) -> list[str]:
    """This interpreter's own pip, else that of another one; EnvironmentFault if none of them has it."""
    if importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    for python in others:
        if (python.parent / "pip").exists():
            return [str(python), "-m", "pip"]
    raise EnvironmentFault(
        f"there is no pip for {sys.executable}", hint=f"run `{sys.executable} -m ensurepip`, or install python3-pip"
    )


def run(argv: list[str], log: Path, tell: Progress) -> str | None:
    """Call pip: every line goes to the log, the steps are told. None if it succeeded, else the end of its output."""
    # A PIP_TARGET or PIP_USER of the user's would put the packages elsewhere.
    env = {key: value for key, value in os.environ.items() if key not in ("PIP_TARGET", "PIP_PREFIX", "PIP_USER")}
    env |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1", "PYTHONNOUSERSITE": "1"}

    def tell_steps(line: str) -> None:
        if line.startswith(_TOLD):
            tell(f"  {line.strip()[:160]}")

    return logged(argv, log, tell_steps, env=env)


def explain(output: str) -> tuple[str, str | None]:
    """What pip's output means, in words, and what to do about it."""
    for pattern, meaning, hint in _CAUSES:
        match = re.search(pattern, output)
        if match:
            return meaning.format(**match.groupdict()), hint
    errors = [line for line in output.splitlines() if line.startswith("ERROR")]
    return (errors[-1].removeprefix("ERROR:").strip() if errors else "pip failed"), None
