"""Loads the plug-in that makes scenarios pytest items, also where the package was not installed."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_configure(config: pytest.Config) -> None:
    if not config.pluginmanager.has_plugin("firsttoken"):
        from bench import pytest_plugin

        config.pluginmanager.register(pytest_plugin, "firsttoken")
