from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest
import typer

import bench.cli
from bench.cli import COMMANDS, main
from bench.errors import BenchError, Exit, IncomparableError, InternalError, RecordError, UsageError

MODULES = sorted(f"{name}_" if name == "import" else name for name in COMMANDS)
HEAVY = ("pandas", "scipy", "matplotlib", "pyarrow", "numpy", "torch", "transformers", "vllm")


def test_the_package_runs_as_a_module_with_the_same_exit_codes() -> None:
    done = subprocess.run([sys.executable, "-m", "bench", "chek"], capture_output=True, text=True)
    assert done.returncode == Exit.USAGE
    assert "did you mean check?" in done.stderr
    shown = subprocess.run([sys.executable, "-m", "bench", "--help"], capture_output=True, text=True, check=True)
    assert shown.stdout.startswith("Usage: bench ")


def test_the_package_lists_what_it_offers() -> None:
    import bench

    shown = [name for name in dir(bench) if not name.startswith("_")]
    assert shown == ["Comparison", "Run", "Scenario"]
    assert all(getattr(bench, name).__name__ == name for name in shown)


def bench_command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", "import sys; from bench.cli import main; sys.exit(main())", *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )


def imported_by(*arguments: str) -> list[str]:
    """Top-level packages that a command has imported when it is done."""
    code = (
        "import sys; from bench.cli import main; main(); print(*{one.split('.')[0] for one in sys.modules}, sep='\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_help_imports_no_more_than_it_needs() -> None:
    assert not {*HEAVY, "rich", "pydantic", "ruamel"} & set(imported_by("--help"))


def test_check_imports_nothing_heavy() -> None:
    assert not {*HEAVY, "rich"} & set(imported_by("check", "scenarios/quick.yaml"))


def test_help_lists_every_command_that_is_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    listed = capsys.readouterr().out
    for name, line in COMMANDS.items():
        assert f"\n  {name} " in listed, name
        assert line.endswith("."), name


@pytest.mark.parametrize("module", MODULES)
def test_a_command_lives_in_the_module_of_its_name(module: str) -> None:
    command = getattr(import_module(f"bench.cli.{module}"), module)
    assert isinstance(command, typer.Typer) or command.__module__ == f"bench.cli.{module}"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Usage: bench {name}" in text
    assert f"Example: bench {name}" in text.split("Usage:", 1)[1].split("\n", 1)[1], "an example is missing"


def test_no_command_at_all_shows_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    assert "Commands:" in capsys.readouterr().out


def test_the_version_is_the_distribution_s(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"firsttoken {version('firsttoken')}\n"


def test_an_unknown_command_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chek"]) == Exit.USAGE
    told = capsys.readouterr().err
    assert told.startswith("bench: no command is called 'chek': one of ")
    assert "(did you mean check?)" in told


@pytest.mark.parametrize(
    "arguments", [["check"], ["check", "--josn", "x"], ["plan", "x", "--blocks", "many"], ["--nope"]]
)
def test_a_wrong_command_line_ends_with_4(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == Exit.USAGE
    assert "Error: " in capsys.readouterr().err


@pytest.fixture
def ending(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException | int | None], int]:
    """Run a command that ends in a given way."""

    def run(how: BaseException | int | None) -> int:
        def command() -> int | None:
            if isinstance(how, BaseException):
                raise how
            return how

        monkeypatch.setattr("bench.cli.plan.plan", command)
        return main(["plan"])

    return run


@pytest.mark.parametrize(
    ("how", "code"),
    [
        (None, 0),
        (1, 1),
        (typer.Exit(), 0),
        (typer.Exit(Exit.INCONCLUSIVE), 2),
        (SystemExit(3), 3),
        (UsageError("no"), 4),
        (RecordError("no"), 4),
        (IncomparableError("no"), 3),
        (InternalError("no"), 5),
        (BenchError("no"), 5),
        (typer.BadParameter("no"), 4),
        (typer.Abort(), 130),
        (KeyboardInterrupt(), 130),
    ],
)
def test_every_ending_has_its_exit_code(
    how: BaseException | int | None, code: int, ending: Callable[[BaseException | int | None], int]
) -> None:
    assert ending(how) == code


def test_an_error_is_told_with_what_to_do(
    ending: Callable[[BaseException | int | None], int], capsys: pytest.CaptureFixture[str]
) -> None:
    ending(UsageError("no run there", hint="`bench run` makes one"))
    assert capsys.readouterr().err == "bench: no run there\n  → `bench run` makes one\n"


def test_an_interruption_is_one_line(
    ending: Callable[[BaseException | int | None], int], capsys: pytest.CaptureFixture[str]
) -> None:
    ending(KeyboardInterrupt())
    assert capsys.readouterr().err == "bench: interrupted\n"


def test_an_interrupted_run_is_told_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(scenario: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("bench.cli.run.run", run)
    assert main(["run", "x.yaml"]) == 130
    said = capsys.readouterr().err
    assert said == "bench: interrupted\n  → `bench run … --resume` goes on from what is finished\n"


def test_a_bug_is_one_sentence_and_a_file(
    ending: Callable[[BaseException | int | None], int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.delenv("BENCH_DEBUG", raising=False)
    assert ending(ZeroDivisionError("by nought")) == Exit.INTERNAL
    (file,) = tmp_path.iterdir()
    told = capsys.readouterr().err
    assert told == f"bench: this is a bug (ZeroDivisionError: by nought); the traceback is in {file}\n"
    assert "Traceback (most recent call last)" in file.read_text()


def test_debugging_shows_the_traceback(
    ending: Callable[[BaseException | int | None], int],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv("BENCH_DEBUG", "1")
    ending(ZeroDivisionError("by nought"))
    assert "Traceback (most recent call last)" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", ["--help", "plugins", "schema", "check scenarios/quick.yaml"])
def test_a_reader_that_goes_away_is_no_error(arguments: str) -> None:
    code = "import sys, time; from bench.cli import main; time.sleep(0.3); sys.exit(main())"
    writer = subprocess.Popen(
        [sys.executable, "-c", code, *arguments.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert writer.stdout is not None
    assert writer.stderr is not None
    writer.stdout.close()
    told = writer.stderr.read()
    writer.stderr.close()
    assert told == b""
    assert writer.wait(20) == bench.cli.BROKEN_PIPE


def test_plain_output_has_no_colours() -> None:
    for environment in ({"NO_COLOR": "1"}, {"CI": "true"}, {"TERM": "dumb"}):
        done = bench_command("check", "scenarios/none.yaml", **environment)
        assert "\x1b" not in done.stdout + done.stderr


def test_the_command_modules_import_nothing_heavy_at_the_top() -> None:
    for module in [*MODULES, "options", "output", "selftest"]:
        path = Path(import_module(f"bench.cli.{module}").__file__ or "")
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & {*HEAVY, "rich"}, f"{path.name} imports {names}"
