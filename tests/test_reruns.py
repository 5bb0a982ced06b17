"""A session that runs failed tests once more counts them, names them, and fails where one comes back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.reruns import Account, attempt

# Without the plug-ins that happen to be installed here.
BARE = os.environ | {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
# Fails in its first attempt where a file says so: what a stall does to a test.
SHAKY = """
from pathlib import Path
import pytest

@pytest.mark.parametrize("name", ["a", "b", "c"])
def test_shaky(name):
    file = Path(__file__).with_name(name)
    if file.exists():
        left = int(file.read_text())
        file.write_text(str(left - 1))
        assert left <= 0
"""


class Folder:
    """A folder of tests that fail as often as they are told to, run by a real pytest."""

    def __init__(self, root: Path) -> None:
        self.root, self.runs = root, list[tuple[str, ...]]()
        (root / "test_shaky.py").write_text(SHAKY)
        (root / "pytest.ini").write_text("[pytest]\n")

    def session(self, **failures: int) -> Account | None:
        for name, count in failures.items():
            (self.root / name).write_text(str(count))
        return attempt(self._run, self.root / "cache", self.root / "kept/reruns.json")

    def _run(self, options: Sequence[str]) -> bool:
        self.runs.append(tuple(options))
        argv = [sys.executable, "-m", "pytest", "-q"]
        argv += ["-o", f"cache_dir={self.root / 'cache'}", *options, str(self.root)]
        return subprocess.run(argv, cwd=self.root, env=BARE, capture_output=True, check=False).returncode == 0


def test_where_nothing_fails_nothing_is_said(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    assert folder.session() == Account(())
    assert Account(()).lines() == []
    assert len(folder.runs) == 1


def test_what_passes_the_second_time_is_named_and_fails_the_session_when_it_comes_back(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    first = folder.session(a=1, b=1)
    assert first is not None
    assert first.again == ("test_shaky.py::test_shaky[a]", "test_shaky.py::test_shaky[b]")
    assert first.lines() == [
        "RERUN test_shaky.py::test_shaky[a]",
        "RERUN test_shaky.py::test_shaky[b]",
        "2 tests passed only when run again",
    ]
    assert first.complaint is None
    assert json.loads((tmp_path / "kept/reruns.json").read_text()) == list(first.again)

    second = folder.session(b=1, c=1)
    assert second is not None
    assert second.repeated == ("test_shaky.py::test_shaky[b]",)
    assert second.complaint is not None
    assert second.complaint.endswith("so it is no stall: test_shaky.py::test_shaky[b]")


def test_a_run_without_a_rerun_in_between_forgets(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.session(a=1)
    folder.session()
    last = folder.session(a=1)
    assert last is not None
    assert (last.again, last.complaint) == (("test_shaky.py::test_shaky[a]",), None)


def test_what_fails_twice_fails_the_session_and_leaves_the_list_alone(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    folder.session(a=1)
    assert folder.session(a=2) is None
    assert json.loads((tmp_path / "kept/reruns.json").read_text()) == ["test_shaky.py::test_shaky[a]"]


def test_a_pytest_that_could_not_run_is_not_run_again(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    assert folder.session() is None
    assert len(folder.runs) == 1
