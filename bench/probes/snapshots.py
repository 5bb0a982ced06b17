"""Whether a running engine can be written to disk on this machine and woken again: CRIU, and vLLM's own snapshots."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.home import home
from bench.probes.roots import Roots

# Where packages put it, also for a user whose PATH has no sbin.
PLACES = ("/usr/local/sbin", "/usr/sbin", "/sbin")
CHECK_S = 30.0
# Kernels from 6.13 on lay out their vDSO in a way that older versions do not know.
NEWER = "install criu 4.1 or newer (Debian 12 has 3.17.1), and be root"


@dataclass(frozen=True, slots=True)
class Ability:
    """One way to restore engines: `reason` and `words` say why not, `fix` what would help; `version` as it says it."""

    name: str
    reason: str | None = None
    words: str = ""
    fix: str | None = None
    version: str | None = None
    words_to_call: tuple[str, ...] = ()

    @property
    def there(self) -> bool:
        """Whether it works here."""
        return self.reason is None


def criu(path: str | None = None) -> Ability:
    """What `criu check` says on this machine; `path` is searched in the place of $PATH."""
    searched = os.environ.get("PATH", os.defpath) if path is None else path
    program = shutil.which("criu", path=os.pathsep.join([searched, *(PLACES if path is None else ())]))
    if program is None:
        return Ability("criu", "not_found", "criu is not installed", NEWER)
    version = re.search(r"\d+(\.\d+)+", _asked(program, "--version")[1])
    known = version.group() if version else None
    # Without root only what a capability allows; versions before 4 do not know the option, and say so.
    rights = () if os.geteuid() == 0 else ("--unprivileged",)
    code, said = _asked(program, "check", *rights)
    if code == 0:
        return Ability("criu", version=known, words_to_call=(program, *rights))
    told = [line for line in said.splitlines() if line.startswith("Error") and "exited, status" not in line]
    # The first is the cause, and what follows from it comes after.
    first = re.sub(r"^Error \([^)]*\):\s*", "", told[0]) if told else said.strip()[-200:] or f"exit {code}"
    return Ability("criu", "unsupported", f"criu {known} check: {first}", NEWER, known)


def vllm_snapshot(roots: Roots, by: Ability) -> Ability:
    """Whether `vllm snapshot create` and `restore` have all that they need: the first thing that is missing."""
    name = "vllm snapshot"
    if os.uname().machine != "x86_64":
        return Ability(name, "unsupported", "vLLM takes snapshots on x86-64 alone")
    if not roots.in_proc("driver/nvidia/version").is_file():
        return Ability(name, "unsupported", "vLLM takes snapshots of engines on an NVIDIA GPU, and none is here")
    if not by.there:
        return Ability(name, by.reason, by.words, by.fix)
    rings = roots.in_proc("sys/kernel/io_uring_disabled")
    if not rings.is_file() or rings.read_text().strip() != "2":
        words = "an open io_uring cannot be restored"
        return Ability(name, "no_permission", words, "sudo sysctl kernel.io_uring_disabled=2")
    folder = Path(os.environ.get("CRIU_CUDA_PLUGIN_DIR") or "/usr/local/lib/criu")
    if not (folder / "cuda_plugin.so").is_file():
        words = f"{folder} has no cuda_plugin.so"
        return Ability(name, "not_found", words, "build criu with its CUDA plugin, and set CRIU_CUDA_PLUGIN_DIR")
    commands = home().glob("engines/vllm*/lib/python3*/site-packages/vllm/entrypoints/cli/snapshot.py")
    if next(commands, None) is None:
        return Ability(name, "not_found", "no vLLM here has the command", "bench engines install vllm: 0.31 or newer")
    return Ability(name)


def abilities(roots: Roots) -> list[Ability]:
    """All of them on this very machine; none of one that is emulated or read from an archive."""
    if roots.emulated is not None or roots.proc != "/proc":
        return []
    by = criu()
    return [by, vllm_snapshot(roots, by)]


def _asked(program: str, *words: str) -> tuple[int, str]:
    """Exit status and all that it said."""
    try:
        done = subprocess.run(
            [program, *words], capture_output=True, stdin=subprocess.DEVNULL, timeout=CHECK_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, f"Error (): {error}"
    # Error lines first on its error stream; the usage of an unknown word stands on the other one.
    return done.returncode, (done.stderr + done.stdout).decode("utf-8", "replace")
