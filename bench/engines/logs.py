"""An engine's log as messages, free of colours, prefixes and accidents, and how a phase shows in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.environments.pythons import Version, version
from bench.record.engine_log import LogLine
from bench.record.launches import Phase

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07]*\x07")
# Who speaks: "(EngineCore pid=7)", "(VllmWorker rank=0 pid=7)" before 0.10.2, "(RayWorkerWrapper pid=7, ip=10.0.0.2)"
# and "(pid=7)" from Ray.
_NAME = r"\((?:(?P<name{n}>[A-Za-z][\w.-]*) )?(?:\w+=[^\s,)]+,? )*pid=(?P<pid{n}>\d+)(?:, ?\w+=[^\s,)]+)*\)"
PROCESS = _NAME.format(n="")
# A message begins with either of these, or with both: "(EngineCore pid=7) INFO 11-22 05:14:07 [core.py:134] …" from
# vLLM 0.10.2 on, "INFO 11-22 05:14:07 [core.py:58] …" before, "INFO 11-22 05:14:07 model_runner.py:1060] …" before 0.8.
_BEGIN = re.compile(
    rf"(?:{PROCESS}\s?)?"
    r"(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d(?:[.,]\d+)? (?:\[[^\]\n]*\]|[\w./]+:\d+\]) "
    rf"|{_NAME.format(n=2)} ?"
    # Uvicorn's own lines, between vLLM's.
    r"|^(?:INFO|WARNING|ERROR):\s+"
)


@dataclass(frozen=True, slots=True)
class Message:
    """One message: when its first piece was read, the process that said it (None where unknown), and its text.

    `text` has no header; pieces that came without one are joined with nothing between them.
    """

    t_ns: int
    process: str | None
    text: str


def plain(text: str) -> list[str]:
    """A line of output without colours, cut where a carriage return went back to its start."""
    return re.split(r"[\r\n]+", _ANSI.sub("", text))


def messages(lines: Iterable[LogLine]) -> Iterator[Message]:
    """The messages of a log.

    Colours go; what a carriage return overwrote counts as written; two messages glued together are cut apart; a piece
    without a header continues the message before it on its stream.
    """
    unfinished: dict[str, Message] = {}
    for line in lines:
        for text in plain(line.text):
            for name, piece in _pieces(text):
                before = unfinished.get(line.stream)
                if name is None and before is not None:
                    unfinished[line.stream] = Message(before.t_ns, before.process, before.text + piece)
                    continue
                if before is not None:
                    yield before
                unfinished[line.stream] = Message(line.t_ns, name or None, piece)
    yield from unfinished.values()


def lines(log: Iterable[LogLine]) -> Iterator[Message]:
    """The log line by line, without colours, for engines whose messages have no header."""
    for line in log:
        for text in re.split(r"[\r\n]+", _ANSI.sub("", line.text)):
            if text.strip():
                yield Message(line.t_ns, None, text.rstrip())


def _pieces(text: str) -> Iterator[tuple[str | None, str]]:
    """The text cut at each header: (process, text); process is None without a header, "" where the header has none."""
    headers = list(_BEGIN.finditer(text))
    if head := text[: headers[0].start()].strip() if headers else text:
        yield None, head
    ends = [header.start() for header in headers[1:]] + [len(text)]
    for header, end in zip(headers, ends, strict=False):
        name, pid = header["name"] or header["name2"], header["pid"] or header["pid2"]
        yield f"{name or 'process'} {pid}" if pid else "", text[header.end() : end]


@dataclass(frozen=True, slots=True)
class Compilation:
    """What a log says about compiled code: lines that tell of a cache hit, and lines that tell of compiling."""

    hits: Sequence[str]
    misses: Sequence[str]

    @property
    def words(self) -> str:
        """The evidence in one phrase."""
        if not self.hits and not self.misses:
            return "no word of compiling or of a compile cache"
        parts = []
        if self.hits:
            parts.append(f"{len(self.hits)} from the cache: “{self.hits[0]}”")
        if self.misses:
            parts.append(f"{len(self.misses)} compiled: “{self.misses[0]}”")
        return "; ".join(parts)


_HIT = re.compile(r"Directly load (?:the compiled graph|the \S+ graph|the \d+-th graph|AOT compilation)[^\n]*")
_MISS = re.compile(
    r"Compiling a graph for[^\n]*?takes? [\d.]+ s(?:econds)?"
    r"|Compiling model again due to a load failure[^\n]*"
    r"|saved AOT compiled function"
)
_PATH = re.compile(r" (?:from(?: path)?|to) /\S+?(?=,|$)")


def compilation(lines: Iterable[LogLine], events: Iterable[Mapping[str, Any]] = ()) -> Compilation:
    """Hits and misses of the compile cache: in vLLM's words since 0.6, or counted by a worker's events.

    An event counts with integer fields `cache_hits` and `cache_misses`.
    """
    hits, misses = [], []
    for message in messages(lines):
        hits += [_PATH.sub("", found[0]).strip() for found in _HIT.finditer(message.text)]
        misses += [_PATH.sub("", found[0]).strip() for found in _MISS.finditer(message.text)]
    for event in events:
        if event.get("cache_hits"):
            hits.append(f"{event['cache_hits']} graphs loaded ({event.get('name')})")
        if event.get("cache_misses"):
            misses.append(f"{event['cache_misses']} graphs compiled ({event.get('name')})")
    return Compilation(hits, misses)


OLDEST, NEWEST = version("0"), version("999")
UNITS = {"ms": 1e-3, "s": 1.0}


@dataclass(frozen=True, slots=True)
class Took:
    """A line printed when a phase ends, with its seconds in the group `s` (or in `unit`, ms)."""

    phase: str
    pattern: str
    since: Version = OLDEST
    until: Version = NEWEST
    unit: str = "s"
    # Of engines with two cores: the one that says it, where only one does.
    core: str | None = None

    def phases(self, said: Sequence[Message], stamps: Mapping[str, int | None]) -> Iterator[Phase]:
        """One for each time that the line was printed."""
        pattern = re.compile(self.pattern)
        for message in said:
            for match in pattern.finditer(message.text):
                try:
                    seconds = float(match["s"]) * UNITS[self.unit]
                except ValueError:
                    yield Phase(self.phase, None, None, "log", message.process, reason="parse_failed")
                    continue
                yield Phase(self.phase, message.t_ns - round(seconds * 1e9), message.t_ns, "log", message.process)


@dataclass(frozen=True, slots=True)
class Between:
    """Two lines that bracket a phase, the first of each; `begin` None is the spawn."""

    phase: str
    begin: str | None
    end: str
    since: Version = OLDEST
    until: Version = NEWEST
    core: str | None = None

    def phases(self, said: Sequence[Message], stamps: Mapping[str, int | None]) -> Iterator[Phase]:
        """One, or `partial` where it began and the launch did not live to see its end."""
        begin = stamps.get("spawn") if self.begin is None else first(self.begin, said)
        end = first(self.end, said)
        if begin is not None and end is not None and begin <= end:
            yield Phase(self.phase, begin, end, "log")
        elif begin is not None and end is None and self.begin is not None and stamps.get("ready") is None:
            yield Phase(self.phase, begin, None, "log", reason="partial")


Rule = Took | Between


def first(pattern: str, said: Sequence[Message]) -> int | None:
    """When the first message that matches was printed."""
    return next((message.t_ns for message in said if re.search(pattern, message.text)), None)


def by_rules(rules: Sequence[Rule], said: Sequence[Message], stamps: Mapping[str, int | None]) -> list[Phase]:
    """All phases that the rules find, in their order; a phase that none of its rules finds is null."""
    found: dict[str, list[Phase]] = {}
    for rule in rules:
        found.setdefault(rule.phase, []).extend(rule.phases(said, stamps))
    return [
        phase
        for name, phases in found.items()
        for phase in phases or [Phase(name, None, None, "log", reason="not_found")]
    ]
