"""Scenarios as pytest items: `pytest scenarios/quick.yaml`.

Only files named on the command line are collected (or every scenario under a named folder, with `--scenarios`), so a
YAML file that happens to lie among tests is left alone. Nothing heavy is imported until an item runs.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

_SCENARIO = re.compile(r"^scenario\s*:", re.MULTILINE)


def is_scenario(path: Path) -> bool:
    """Whether a YAML file calls itself a scenario: a top-level key `scenario`."""
    if path.suffix not in {".yaml", ".yml"}:
        return False
    try:
        return bool(_SCENARIO.search(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError):
        return False


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the plug-in."""
    group = parser.getgroup("firsttoken", "benchmark scenarios")
    group.addoption("--scenarios", action="store_true", help="collect every scenario under the folders named, too")
