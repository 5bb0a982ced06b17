"""A dead engine's output as words to search for a cause: who said each line, how gravely, and whether it says anything.

An engine of several processes dies in the one that computes; the others then fill the screen with tracebacks whose last
sentence sends the reader back up. So every line is given its process and its level, lines that only point elsewhere are
dropped, and an exception counts for less where its process went on working after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bench.engines.logs import PROCESS, plain

# Of words that are not their process's last, only so many lines before the end may tell.
RECENT = 40
# What stands before the words, in the order in which it is taken off. Levels that no one dies of are quiet.
_HEADS = tuple(
    re.compile(pattern)
    for pattern in (
        rf"{PROCESS}\s?",
        r"(?P<level>DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d \d\d:\d\d:\d\d(?:[.,]\d+)? "
        r"(?:\[(?P<file>[^\]\n:]*)[^\]\n]*\]|(?P<file2>[\w./]+):\d+\]) ?",
        r"\[rank(?P<rank>\d+)\]:(?:\[(?P<letter>[IWEF])\d[^\]]*\])? ?",
        r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?: (?P<place>[A-Z]{2}\d+(?: [A-Z]{2}\d+)*))?\] ",
        r"\[\d\d/\d\d/\d{4}-\d\d:\d\d:\d\d\] \[TRT(?:-LLM)?\](?: \[RANK (?P<mpi>\d+)\])? \[(?P<letter>[VIWEF])\] ",
        r"\[TensorRT-LLM\]\[(?P<level>INFO|WARNING|ERROR)\] ",
        r"\d+\.\d\d\.\d{3}\.\d{3} (?P<letter>[DIWE]) ",
    )
)
# Levels within the words of other loggers, which are quoted with them.
_LEVEL = re.compile(r"(?:^|\blevel=)(?P<level>DEBUG|INFO|WARN(?:ING)?|ERROR)(?::\s|\s)")
_QUIET = {"DEBUG", "INFO", "V", "D", "I"}
_MILD = {"WARN", "WARNING", "W"}
_COMPUTES = re.compile(r"core|worker|runner|scheduler|spawnprocess|^rank|^[TPDE]P\d", re.IGNORECASE)
_COMPUTING_FILE = re.compile(
    r"(?:^|/)(?:core|engine|llm_engine|loader|\w*worker\w*|\w*model_runner|\w*executor)(?:\.py)?$"
)
_COMPUTING_WORDS = re.compile(r"(?:Scheduler|EngineCore|Worker\w*) (?:hit|encountered|failed)")
_BOOTSTRAP = re.compile(r"Process (?P<name>[\w.-]+):$")
_TRACEBACK = "Traceback (most recent call last):"
_CHAINED = re.compile(r"During handling of the above exception|The above exception was the direct cause")
_EXCEPTION = re.compile(
    r"(?:[A-Za-z_][\w.]*\.)?[A-Z]\w*(?:Error|Exception|Failed|Timeout|NotFound|Fault)(?::|$)|[\w.]+\.exc\.\w+:"
)
# Sentences that send the reader elsewhere, and what Python prints around an end.
_POINTERS = re.compile(
    r"[Ss]ee (?:the )?(?:root cause|stack ?trace|error messages?|logs?)\b[^.]*above"
    r"|check (?:the stack trace above|if there are relevant logs)"
    r"|Engine core initialization failed|Failed core proc|[Ee]ngine ?[Dd]ead|EngineCore failed to start"
    r"|EngineCore encountered (?:a fatal error|an issue)"
    r"|Engine (?:core|process) .*(?:failed to start|died|unexpectedly)"
    r"|Engine loop is not running|Background loop (?:has errored|is stopped)|Task finished unexpectedly"
    r"|scheduler (?:is dead|died)|Initialization failed\. Please see|Received sigquit from a child"
    r"|[Cc]hild process unexpectedly|Executor worker (?:died|returned error)"
    r"|resource_tracker|destroy_process_group|warnings\.warn\(|nanobind: leaked|[Aa]pplication startup failed"
    r"|^(?:KeyboardInterrupt|SystemExit|Aborted|Terminated)\b"
)
# A wrapper around the worker's own sentence.
_WRAPPED = re.compile(r"Worker failed with error '(?P<inner>.+?)', please check")
_FRAME = re.compile(r'^(?:\s+File ".*", line \d+|[\s~^]+$)')


@dataclass(frozen=True, slots=True)
class Word:
    """One line that may tell. `last` says that its process did not go on with its work after it."""

    text: str
    process: str | None
    computes: bool
    mild: bool
    exception: bool
    chained: bool
    last: bool
    recent: bool


@dataclass(slots=True)
class _Head:
    process: str | None = None
    level: str | None = None
    file: str = ""
    found: bool = False


@dataclass(slots=True)
class _Open:
    """The traceback whose later lines came without a header: whose it is, and whether it may go on."""

    process: str | None = None
    computes: bool = False
    level: str | None = None
    tracebacks: int = 0
    chained: bool = False
    active: bool = False


@dataclass(slots=True)
class _Said:
    """A line on its way to being a word."""

    text: str
    head: _Head
    computes: bool
    chained: bool
    number: int


def words(lines: Sequence[str]) -> list[Word]:
    """Every line that may tell why an engine died, in the order in which it was said."""
    said = list(_said(lines))
    last = _last(said)
    return [
        Word(
            text=one.text,
            process=one.head.process,
            computes=one.computes,
            mild=(one.head.level or "") in _MILD,
            exception=bool(_EXCEPTION.match(one.text)),
            chained=one.chained,
            last=one.number > last.get(one.head.process, -1),
            recent=one.number >= len(lines) - RECENT,
        )
        for one in said
        if (one.head.level or "") not in _QUIET and one.text and not _FRAME.match(one.text)
        if not points_elsewhere(one.text)
    ]


def _last(said: Sequence[_Said]) -> dict[str | None, int]:
    """Per process the line up to which it went on with its work: a quiet one, or one with many ordinary ones after it.

    Tracebacks may be of any length; a process that says forty other things has survived what it said before.
    """
    until: dict[str | None, int] = {}
    ordinary: dict[str | None, int] = {}
    for one in reversed(said):
        process = one.head.process
        if process in until:
            continue
        after = ordinary.get(process, 0)
        if (one.head.level or "") in _QUIET or after >= RECENT:
            until[process] = one.number
        ordinary[process] = after + _ordinary(one.text)
    return until


def _ordinary(text: str) -> bool:
    told = text.startswith(_TRACEBACK) or _EXCEPTION.match(text) or _CHAINED.search(text) or points_elsewhere(text)
    return bool(text) and not text[0].isspace() and not told


def points_elsewhere(line: str) -> bool:
    """Whether a line only sends the reader elsewhere, or is what Python prints around any end."""
    return bool(_POINTERS.search(line))


def tiers(said: Sequence[Word]) -> Iterator[list[Word]]:
    """The words in the order of their trust: what the computing process died with comes first, warnings come last."""
    grave = [word for word in said if not word.mild]
    yield [word for word in grave if word.computes and word.last]
    yield [word for word in grave if not word.computes and word.last]
    yield [word for word in grave if word.computes]
    yield [word for word in grave if word.recent]
    yield [word for word in said if word.recent]


def root(said: Sequence[Word]) -> Word | None:
    """The exception to quote: the earliest that the computing process died of, else the first of the last chain."""
    for word in said:
        if word.exception and word.computes and word.last and not word.mild:
            return word
    found: Word | None = None
    for word in said:
        if word.exception and word.last and not word.mild and not (found is not None and word.chained):
            found = word
    return found


def _said(lines: Sequence[str]) -> Iterator[_Said]:
    within = _Open()
    chained = False
    for number, line in enumerate(lines):
        for piece in plain(line):
            text, head = _headed(piece)
            if wrapped := _WRAPPED.search(text):
                text = wrapped["inner"]
            chained = chained or bool(_CHAINED.search(text))
            if opened := _BOOTSTRAP.match(text):
                head.process = head.process or opened["name"]
                within = _Open(head.process, bool(_COMPUTES.search(head.process)), active=True)
            elif head.found:
                within = _Open(head.process, _computes(text, head), head.level, active=_TRACEBACK in text)
            elif text.startswith(_TRACEBACK):
                # One traceback belongs to the header before it, and those that are chained to it.
                within.active = within.active and (within.tracebacks == 0 or within.chained)
            if _TRACEBACK in text:
                within.tracebacks, within.chained = within.tracebacks + 1, False
            within.chained = within.chained or bool(_CHAINED.search(text))
            if not head.found and within.active:
                head.process, head.level = within.process, within.level
            computes = within.computes if within.active or head.found else _computes(text, head)
            exception = bool(_EXCEPTION.match(text))
            yield _Said(text, head, computes, chained and exception, number)
            chained = chained and not exception


def _computes(text: str, head: _Head) -> bool:
    if head.process is not None:
        return bool(_COMPUTES.search(head.process))
    return bool(_COMPUTING_FILE.search(head.file) or _COMPUTING_WORDS.search(text))


def _headed(line: str) -> tuple[str, _Head]:
    head, text = _Head(), line
    for pattern in _HEADS:
        match = pattern.match(text.lstrip())
        if match is None:
            continue
        found = {name: value for name, value in match.groupdict().items() if value is not None}
        text, head.found = text.lstrip()[match.end() :], True
        head.level = found.get("level") or found.get("letter") or head.level
        head.file = found.get("file") or found.get("file2") or head.file
        rank = found.get("rank") or found.get("mpi")
        named = f"{found.get('name') or 'process'} {found['pid']}" if "pid" in found else None
        head.process = head.process or named or found.get("place") or (f"rank {rank}" if rank else None)
    if head.level is None and (level := _LEVEL.search(text)):
        head.level, head.found = level["level"], True
    return text.rstrip(), head
