"""jetson-stats as an optional source, listened to through a pipe; only when a scenario or a user asks for it.

Its service takes the fan over and has one interval for all clients, the first one's: the interval in force is recorded
beside the one asked for.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from bench.probes.context import Context, nulls
from bench.probes.listener import Listener
from bench.probes.probe import Reading
from bench.programs import FOLDER
from bench.record.launches import FieldInfo

# jtop's names are kept. Two traps: its `avg` is the mean of the last two readings, and its total power adds up rails
# that contain each other on AGX Orin, so neither is called `power_w`.
_REMEDIES = {
    "missing": "sudo pip3 install -U jetson-stats, then option `python: /usr/bin/python3`",
    "service": "sudo systemctl restart jtop.service",
    "permission": "sudo usermod -aG jtop $USER, then log in again; in a container: -v /run/jtop.sock:/run/jtop.sock",
    "version": "sudo pip3 install -U jetson-stats && sudo systemctl restart jtop.service: one version on both sides",
}
SIDECAR = FOLDER / "jtop_process.py"


class JTop:
    """The latest reading of the sidecar. Options: `python` (an interpreter that has jtop), `period_s`."""

    name = "jtop"

    def __init__(self, context: Context) -> None:
        self.period_s = float(context.options.get("period_s", 1.0))
        python = str(context.options.get("python") or context.roots.which("python3") or sys.executable)
        self._lines = Listener([python, str(SIDECAR), str(self.period_s)], clock=context.clock)
        self._known: dict[str, FieldInfo] = {}
        self._last = 0
        self.trouble: str | None = None
        self.interval_s: float | None = None
        self._take(self._lines.first(5.0))

    @property
    def fields(self) -> tuple[FieldInfo, ...]:
        """What it has spoken of so far, and the interval in force."""
        own = FieldInfo(self.name, "interval_s", "s", "interval in force, which may not be the one asked for", "jtop")
        return (own, *self._known.values())

    def read(self) -> Mapping[str, Reading]:
        """What is new; null once it is silent."""
        line = self._lines.latest()
        if line is None:
            return nulls(self.fields, "not_found")
        if line.number == self._last:
            late = self._lines.silent_s() > max(3 * (self.interval_s or self.period_s), 3.0)
            return nulls(self.fields, "stale") if late else {}
        self._last = line.number
        values = self._take(line.text)
        if values is None:
            return nulls(self.fields, "not_found" if self.trouble else "parse_failed")
        interval = Reading(self.interval_s) if self.interval_s is not None else Reading.null("unsupported")
        given = {field: Reading(values[field]) if field in values else Reading.null("partial") for field in self._known}
        return {"interval_s": interval, **given}

    def _take(self, text: str | None) -> dict[str, float] | None:
        """A line's values; None for a line without any."""
        try:
            message: dict[str, Any] = json.loads(text or "")
        except ValueError:
            return None
        if "hello" in message:
            self.interval_s, self.trouble = message["hello"].get("interval_s"), None
            return {}
        if "error" in message:
            self.trouble = str(message["kind"])
            return None
        values = {}
        for name, value in message.get("v", {}).items():
            self._known.setdefault(name, FieldInfo(self.name, name, "jtop's", "as jetson-stats gives it", "jtop"))
            values[name] = float(value)
        return values

    def close(self) -> None:
        """End the sidecar."""
        self._lines.close()

    def hint(self, field: str, reason: str) -> str | None:
        """The command that would make a null a value."""
        return _REMEDIES.get(self.trouble or "")
