"""A test that fails ends the processes that it started."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests import children
from tests.children import ended

SLEEPER = [sys.executable, "-S", "-E", "-c", "import time; time.sleep(600)"]
DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"


def test_a_failed_assertion_ends_the_process_and_is_what_is_said() -> None:
    with pytest.raises(AssertionError, match="what was found"), ended(subprocess.Popen(SLEEPER)) as process:
        raise AssertionError("what was found")
    assert process.returncode == -15


def test_one_that_is_deaf_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "_TERM_S", 0.1)
    process = subprocess.Popen([*SLEEPER[:-1], DEAF], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"deaf\n"
    with pytest.raises(RuntimeError), ended(process):
        raise RuntimeError
    assert process.returncode == -9


def test_one_that_a_test_forgot_fails_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "PATIENCE_S", 0.1)
    with pytest.raises(AssertionError, match="did not end"), ended(subprocess.Popen(SLEEPER)) as process:
        pass
    assert process.returncode == -15


def test_one_that_ends_by_itself_is_waited_for() -> None:
    with ended(subprocess.Popen([*SLEEPER[:-1], "import time; time.sleep(0.2); raise SystemExit(3)"])) as process:
        assert process.poll() is None
    assert process.returncode == 3
