"""A run as it happens, in the terminal: one living line on a terminal, one plain line per event elsewhere."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.live import Live
from rich.text import Text

from bench.record.launches import LaunchRecord
from bench.record.manifest import PlannedLaunch
from bench.run.progress import Progress, Silent

MARKS = {"ok": ("✓", "green"), "invalid": ("!", "yellow"), "interrupted": ("·", "yellow")}


@contextmanager
def watch(*, quiet: bool = False) -> Iterator[Progress]:
    """Progress on stderr, so that stdout holds results alone."""
    if quiet:
        yield Silent()
        return
    console = Console(stderr=True, highlight=False)
    if not console.is_terminal or os.environ.get("CI"):
        yield Plain(console)
        return
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        yield Living(console, live)


class Plain:
    """One line per event; nothing is drawn over."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.begun = time.monotonic()
        self.launched = self.begun
        self.number = self.of = 0
        self.name = ""
        self.spent: list[float] = []

    def preparing(self, what: str) -> None:
        """Before the first launch."""
        self.console.print(Text(f"· {what}", style="dim"))

    def launch(self, planned: PlannedLaunch, number: int, of: int, attempt: int) -> None:
        """A launch begins."""
        self.launched, self.number, self.of = time.monotonic(), number, of
        again = f", attempt {attempt}" if attempt > 1 else ""
        self.name = f"block {planned.block + 1}  {planned.variant}{again}"

    def phase(self, name: str) -> None:
        """Plain lines speak when a launch is over."""

    def requests(self, done: int, of: int) -> None:
        """Plain lines speak when a launch is over."""

    def finished(self, record: LaunchRecord) -> None:
        """How a launch went: number, block, variant, seconds, first token, time left."""
        self.spent.append(time.monotonic() - self.launched)
        mark, style = MARKS.get(record.status, ("✗", "red"))
        line = Text(f"{mark} ", style=style)
        line.append(f"{self.number}/{self.of}  {self.name}", style="default")
        line.append(f"  {self.spent[-1]:.0f} s", style="dim")
        if record.status == "ok":
            line.append(f"  first token {_cold(record)} after start", style="default")
        else:
            line.append(f"  {record.status}: {record.reason}", style=style)
        if left := self.left():
            line.append(f"  {left}", style="dim")
        self.console.print(line, soft_wrap=True)

    def left(self) -> str:
        """Time left, from the launches so far; empty after the last."""
        launches = self.of - self.number
        if not launches or not self.spent:
            return ""
        seconds = launches * sum(self.spent) / len(self.spent)
        return f"about {seconds / 60:.0f} min left" if seconds >= 90 else f"about {seconds:.0f} s left"

    def note(self, text: str) -> None:
        """A sentence worth reading."""
        self.console.print(Text(f"! {text}", style="yellow"), soft_wrap=True)


class Living(Plain):
    """The same lines, and below them one that moves."""

    def __init__(self, console: Console, live: Live) -> None:
        super().__init__(console)
        self.live = live
        self.doing = ""
        self.counted = ""

    def preparing(self, what: str) -> None:
        """Before the first launch."""
        self._draw(f"· {what}")

    def launch(self, planned: PlannedLaunch, number: int, of: int, attempt: int) -> None:
        """A launch begins."""
        super().launch(planned, number, of, attempt)
        self.phase("preparing")

    def phase(self, name: str) -> None:
        """The launch enters a phase."""
        self.doing, self.counted = name, ""
        self._draw()

    def requests(self, done: int, of: int) -> None:
        """Requests answered within the phase."""
        self.counted = f" {done}/{of}"
        self._draw()

    def finished(self, record: LaunchRecord) -> None:
        """The launch is on disk."""
        super().finished(record)
        self._draw("")

    def _draw(self, line: str | None = None) -> None:
        if line is None:
            left = self.left()
            line = f"▸ {self.number}/{self.of}  {self.name}  {self.doing}{self.counted}" + (f"  {left}" if left else "")
        self.live.update(Text(line, style="cyan", no_wrap=True, overflow="ellipsis"))


def _cold(record: LaunchRecord) -> str:
    spawn, first = record.stamps.get("spawn"), record.stamps.get("first_token")
    return f"{(first - spawn) / 1e9:.1f} s" if spawn is not None and first is not None else "?"
