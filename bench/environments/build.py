"""Programs built with cmake from a source distribution that pip downloads: fetched, configured, compiled, put in place.

Everything is made in a folder beside the environment, which stays where it is when a build is interrupted or fails, so
that the next attempt goes on with what is compiled; it is removed once the programs are in place.
"""

from __future__ import annotations

import os
import re
import shutil
import tarfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from bench.environments import pip
from bench.environments.logged import logged
from bench.environments.recipe import Build
from bench.errors import EnvironmentFault
from bench.home import Progress, clear

# What a compiler may need for one file of heavy templates, bytes.
JOB_MEMORY = 1_500_000_000
NICE = "10"
# How often the share that is done is told, in steps of a hundredth.
TOLD_PERCENT = 5
_STEP = re.compile(r"\[(\d+)/(\d+)\]")
# What cmake and compilers say, and what it means to whoever reads it. First match wins.
_CAUSES = (
    (r"No space left on device|Disk quota exceeded", "the disk is full", "free some space or set FIRSTTOKEN_HOME"),
    (
        r"No CMAKE_CUDA_COMPILER could be found|Could NOT find CUDAToolkit|CUDA Toolkit not found|Failed to find nvcc",
        "there is no CUDA compiler (nvcc) here",
        "put the bin folder of CUDA on PATH or name nvcc in CUDACXX; llama-cpp needs no CUDA",
    ),
    (
        r"No CMAKE_C(?:XX)?_COMPILER could be found|CMAKE_C(?:XX)?_COMPILER not set",
        "there is no C++ compiler here",
        "on Debian and Ubuntu: apt install g++; or name yours in CC and CXX",
    ),
    (
        r"Killed signal terminated program|virtual memory exhausted|[Cc]annot allocate memory|out of memory allocating",
        "memory ran out while compiling",
        "compile fewer files at once: set CMAKE_BUILD_PARALLEL_LEVEL=1; what is compiled is kept",
    ),
)


def build(step: Build, environment: Path, fetch: Sequence[str], log: Path, tell: Progress) -> None:
    """Make a step's programs in `environment`/bin; EnvironmentFault says what is missing.

    `fetch` is the pip to download with, as words. cmake and ninja are the environment's own, else those on PATH.
    """
    work = environment.with_name(f"{environment.name}.build")
    work.mkdir(parents=True, exist_ok=True)
    source = _source(step, work, fetch, log, tell) / step.folder
    if not (source / "CMakeLists.txt").is_file():
        raise EnvironmentFault(f"{step.requirement.split()[0]} has no cmake project in {step.folder}")
    env = _tools(environment)
    made = work / "made"
    settings = (f"-D{setting}" for setting in step.settings)
    configure = ["cmake", "-G", "Ninja", "-S", str(source), "-B", str(made), "-DCMAKE_BUILD_TYPE=Release", *settings]
    tell("  configuring")
    _run(configure, env, log, lambda line: None)
    jobs = env.get("CMAKE_BUILD_PARALLEL_LEVEL") or str(at_once())
    tell(f"  compiling {', '.join(step.targets)}, {jobs} files at once")
    compile_ = ["cmake", "--build", str(made), "--parallel", jobs, "--target", *step.targets]
    _run(compile_, env, log, _Share(tell))
    for name in step.targets:
        program = next((file for file in made.rglob(name) if file.is_file() and os.access(file, os.X_OK)), None)
        if program is None:
            raise EnvironmentFault(f"{name} was built and is nowhere below {made}")
        shutil.copy2(program, environment / "bin" / name)
    for name in step.keep:
        _keep(source / name, environment / "share" / name)
    clear(work)


def at_once() -> int:
    """How many files may be compiled at once: as many as there are cores, and as their memory allows."""
    cores = len(os.sched_getaffinity(0))
    return max(1, min(cores, psutil.virtual_memory().available // JOB_MEMORY))


def explain(output: str) -> tuple[str, str | None]:
    """What the output of cmake or of a compiler means, in words, and what to do about it."""
    for pattern, meaning, hint in _CAUSES:
        if re.search(pattern, output):
            return meaning, hint
    errors = [line.strip() for line in output.splitlines() if re.search(r"\berror\b[: ]|CMake Error", line)]
    lines = errors or [line.strip() for line in output.splitlines() if line.strip()]
    return (lines[0][:300] if errors else lines[-1][:300] if lines else "cmake failed without a word"), None


def _source(step: Build, work: Path, fetch: Sequence[str], log: Path, tell: Progress) -> Path:
    """The unpacked source distribution; downloaded unless a whole one is here."""
    unpacked = work / "source"
    if unpacked.is_dir():
        return unpacked
    wanted = work / "wanted.txt"
    wanted.write_text(f"{step.requirement}\n", encoding="utf-8")
    name = re.split(r"[=<>! ]", step.requirement)[0]
    options = ["--no-deps", "--no-binary", name, "--progress-bar", "off", "--dest", str(work)]
    said = pip.run([*fetch, "download", *options, "--requirement", str(wanted)], log, tell)
    if said is not None:
        meaning, hint = pip.explain(said)
        raise EnvironmentFault(f"{name} could not be fetched: {meaning} (all of pip's words: {log})", hint=hint)
    archive = next(work.glob("*.tar.gz"), None)
    if archive is None:
        raise EnvironmentFault(f"pip brought no source distribution of {name}")
    scratch = work / "unpacking"
    clear(scratch)
    with tarfile.open(archive) as opened:
        opened.extractall(scratch, filter="data")
    (top,) = scratch.iterdir()
    top.rename(unpacked)
    clear(scratch)
    archive.unlink()
    return unpacked


def _tools(environment: Path) -> Mapping[str, str]:
    """The variables to build with: the environment's cmake and ninja first; EnvironmentFault if there are none."""
    env = {**os.environ, "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    # Ninja rewrites one line on a terminal; it is told here line by line.
    env["NINJA_STATUS"] = "[%f/%t] "
    for tool in ("cmake", "ninja"):
        if shutil.which(tool, path=env["PATH"]) is None:
            raise EnvironmentFault(f"there is no {tool}", hint=f"install it, or add `{tool}` to the environment")
    return env


def _run(argv: Sequence[str], env: Mapping[str, str], log: Path, line: Progress) -> None:
    polite = ("nice", "-n", NICE) if shutil.which("nice") else ()
    program = shutil.which(argv[0], path=env["PATH"]) or argv[0]
    said = logged([*polite, program, *argv[1:]], log, line, env=env)
    if said is not None:
        meaning, hint = explain(said)
        raise EnvironmentFault(
            f"it could not be built: {meaning} (all of the compiler's words: {log})",
            hint=hint or "run the same command again: it goes on where it stopped",
        )


def _keep(file: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    if file.is_dir():
        shutil.copytree(file, to, dirs_exist_ok=True)
    else:
        shutil.copy2(file, to)


class _Share:
    """Tells how much is compiled and how long the rest will take, now and then."""

    def __init__(self, tell: Progress) -> None:
        self._tell = tell
        self._begun = time.monotonic()
        self._told = 0

    def __call__(self, line: str) -> None:
        match = _STEP.match(line)
        if match is None:
            return
        done, of = int(match[1]), int(match[2])
        percent = 100 * done // of
        if percent < self._told + TOLD_PERCENT and done < of:
            return
        self._told = percent
        left = (time.monotonic() - self._begun) / done * (of - done)
        self._tell(f"  {done} of {of} compiled, about {int(left) // 60}:{int(left) % 60:02d} left")
