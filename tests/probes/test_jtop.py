"""jetson-stats at arm's length: a stand-in module in an interpreter of its own, speaking through the pipe."""

from __future__ import annotations

import ast
import sys
import time
from pathlib import Path

import pytest

from bench.probes.context import Context
from bench.probes.jtop import SIDECAR, JTop
from bench.probes.roots import Roots
from tests.waiting import until

# What the client of jetson-stats looks like from outside, written from its public documentation.
CLIENT = """
__version__ = "7.2.2"
import time
class JtopException(Exception): pass
class jtop:
    interval = 0.5
    def __init__(self, interval=1.0): self.n = 0
    def __enter__(self):
        {enter}
        return self
    def __exit__(self, *_): return False
    def ok(self):
        self.n += 1
        time.sleep(0.05)
        return self.n < {ticks}
    power = {{"tot": {{"power": 5200, "avg": 5100}}, "rail": {{"VDD_IN": {{"power": 5200, "online": True}}}}}}
    temperature = {{"tj": {{"temp": 48.5, "online": True}}}}
    gpu = {{"gpu": {{"status": {{"load": 30.0}}, "freq": {{"cur": 918000}}}}}}
    memory = {{"RAM": {{"used": 2048000, "serial": "1423"}}}}
"""


def python(tmp_path: Path, enter: str = "pass", ticks: int = 10**6) -> str:
    """An interpreter that has the stand-in."""
    (tmp_path / "jtop.py").write_text(CLIENT.format(enter=enter, ticks=ticks))
    program = tmp_path / "python3"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    program.chmod(0o755)
    return str(program)


def settled(probe: JTop) -> dict[str, tuple[float | None, str | None]]:
    for _ in range(80):
        if readings := probe.read():
            return {field: (reading.value, reading.reason) for field, reading in readings.items()}
        time.sleep(0.05)
    pytest.fail("it said nothing")


def test_its_numbers_arrive_with_the_interval_that_is_really_in_force(tmp_path: Path) -> None:
    probe = JTop(Context(options={"python": python(tmp_path), "period_s": 0.1}))
    readings: dict[str, tuple[float | None, str | None]] = {}
    try:
        # The first line is the greeting, values come with those after it.
        until(lambda: "temperature.tj.temp" in (given := settled(probe)) and not readings.update(given))
        assert readings["interval_s"] == (0.5, None), "asked for 0.1, the service has 0.5"
        assert readings["temperature.tj.temp"] == (48.5, None)
        assert readings["gpu.gpu.status.load"] == (30.0, None)
        assert not any("serial" in field for field in readings), "texts are not passed on"
        assert "power_w" not in readings, "its total counts a rail twice on some boards"
    finally:
        probe.close()


@pytest.mark.parametrize(
    ("enter", "words"),
    [
        (
            'raise JtopException("The jtop.service is not active. Please run: sudo systemctl restart jtop.service")',
            "restart",
        ),
        ('raise JtopException("Mismatch version jtop service: [7.1.0] and client: [7.2.2]")', "one version"),
        ('raise JtopException("I can\'t access jtop.service")', "usermod"),
    ],
)
def test_a_service_that_refuses_is_explained(tmp_path: Path, enter: str, words: str) -> None:
    probe = JTop(Context(options={"python": python(tmp_path, enter)}))
    try:
        assert {reason for _, reason in settled(probe).values()} == {"not_found"}
        assert words in str(probe.hint("interval_s", "not_found"))
    finally:
        probe.close()


def test_an_interpreter_without_it_is_told_how_to_get_it(tmp_path: Path) -> None:
    probe = JTop(Context(Roots(path=str(tmp_path)), options={"python": sys.executable}))
    try:
        assert {reason for _, reason in settled(probe).values()} == {"not_found"}
        assert "jetson-stats" in str(probe.hint("interval_s", "not_found"))
    finally:
        probe.close()


def test_no_module_of_ours_imports_it_but_the_program_apart() -> None:
    importers = set()
    for file in Path("bench").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            if any(name.split(".")[0] == "jtop" for name in names):
                importers.add(file)
    assert importers == {Path("bench/programs/jtop_process.py")}
    assert SIDECAR.name == "jtop_process.py"
