"""Which endpoints are watched, and how: a strict YAML file, or one address. Keys are in environment variables only."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from bench.errors import ScenarioError, UsageError
from bench.phrases import unread
from bench.programs import ready_process
from bench.scenario import document
from bench.scenario.model import Strict
from bench.scenario.validate import describe, errors_of

# Canaries of a round: the first prompt after a pause, an unseen one right behind it, and one that is always the same.
Stream = Literal["idle", "warm", "cached"]
STREAMS: tuple[Stream, ...] = get_args(Stream)
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
MOST_ENDPOINTS = 500
# A template's own tokens around the words, and tokens of a word at worst: what is planned before a server counts.
TEMPLATE_TOKENS, WORD_TOKENS = 40, 2
# The prompt that is always the same is so many times as long: a prefix cache keeps whole blocks of tokens only.
CACHED_TIMES = 4
DAY_S = 86400


class Bound(Strict):
    """Where a figure turns worse; `alarm` is never on the better side of `warning`."""

    warning: float = Field(ge=0, description="from here on it is a warning")
    alarm: float = Field(ge=0, description="from here on it is an alarm")


class Limits(Strict):
    """Limits of the six figures; one that is left out is taken from the run, or not judged."""

    latency_ms: Bound | None = Field(None, description="first token of a warm, unseen prompt")
    first_after_idle_ms: Bound | None = Field(None, description="first token after a pause")
    throughput_tokens_per_s: Bound | None = Field(None, description="tokens after the first, one stream")
    memory_mib: Bound | None = Field(None, description="resident memory of the engine's processes")
    processor_cores: Bound | None = Field(None, description="processors that the engine keeps busy")
    availability: Bound | None = Field(None, description="share of canaries that were answered")

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        for name in type(self).model_fields:
            bound: Bound | None = getattr(self, name)
            if bound is None:
                continue
            falling = name in FALLING
            if (bound.alarm > bound.warning) if falling else (bound.alarm < bound.warning):
                raise ValueError(
                    f"{name}: an alarm at {bound.alarm:g} comes before the warning at {bound.warning:g}; swap them"
                )
        return self


# Figures that are worse when they fall.
FALLING = ("throughput_tokens_per_s", "availability")


class WatchedEndpoint(Strict):
    """One endpoint: whom to ask, how often, and what that may cost."""

    url: str = Field(description="an OpenAI-compatible server, e.g. http://127.0.0.1:8000")
    model: str | None = Field(None, description="name to ask for; the first of /v1/models by default")
    path: Literal["chat", "completions"] | None = Field(None, description="which endpoint; found out by default")
    key_env: str | None = Field(
        None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="environment variable that holds the API key"
    )
    interval_s: float = Field(60.0, ge=0.05, description="seconds between two rounds of canaries")
    jitter: float = Field(0.2, ge=0, lt=1, description="share of the interval by which a round may come early or late")
    timeout_s: float = Field(30.0, gt=0, description="a canary that takes longer failed")
    share: float = Field(0.05, gt=0, le=1, description="share of the time that canaries may keep the engine busy")
    tokens_per_day: int = Field(500_000, ge=1, description="tokens that canaries may cost a day, prompts included")
    words: int = Field(12, ge=1, le=4096, description="length of a prompt, about a token a word")
    output_tokens: int = Field(8, ge=1, le=512, description="length of an answer")
    streams: list[Stream] = Field(
        default_factory=lambda: list(STREAMS), min_length=1, description="which canaries a round has"
    )
    process: bool = Field(True, description="read memory and processor use of who listens there, if that is here")
    limits: Limits = Field(default_factory=Limits, description="limits of the six figures")

    @model_validator(mode="after")
    def _affordable(self) -> Self:
        try:
            ready_process.parse(self.url)
        except ValueError as error:
            raise ValueError(f"url: {error}") from None
        needs = self.tokens_a_day
        if needs > self.tokens_per_day:
            least = self.interval_s * needs / self.tokens_per_day
            raise ValueError(
                f"canaries need about {needs} tokens a day, and tokens_per_day is {self.tokens_per_day}: "
                f"raise it, or set interval_s to {math.ceil(least * 10) / 10:g} or more"
            )
        return self

    def tokens_of(self, stream: Stream) -> int:
        """Tokens that one canary is planned with, the template's included."""
        words = self.words * (CACHED_TIMES if stream == "cached" else 1)
        return TEMPLATE_TOKENS + WORD_TOKENS * words + self.output_tokens

    @property
    def tokens_a_day(self) -> int:
        """Tokens a day at the interval asked for."""
        return round(DAY_S / self.interval_s * sum(map(self.tokens_of, self.streams)))

    @property
    def target(self) -> ready_process.Target:
        """Where it is, without its key."""
        paths = {"chat": ready_process.CHAT, "completions": ready_process.COMPLETIONS, None: None}
        return ready_process.shaped(ready_process.parse(self.url), model=self.model, path=paths[self.path])


class Alarms(Strict):
    """Who is told when a state changes, besides the log."""

    command: list[str] | None = Field(None, min_length=1, description="started with the change as JSON on its stdin")
    webhook_env: str | None = Field(
        None, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="variable with an address that gets the JSON by POST"
    )


class WatchList(Strict):
    """The whole file."""

    watch: str = Field(pattern=NAME, description="name of what is watched; the records' folder has it")
    endpoints: dict[Annotated[str, Field(pattern=NAME)], WatchedEndpoint] = Field(
        min_length=1, max_length=MOST_ENDPOINTS, description="the endpoints by name"
    )
    alarms: Alarms = Field(default_factory=Alarms, description="who is told")
    keep_days: int = Field(30, ge=1, description="days that records are kept")


def load(path: Path) -> tuple[WatchList, str]:
    """A watch list and its text; ScenarioError carries every mistake with its place, UsageError says if unreadable."""
    try:
        with path.open("rb") as file:
            data = file.read(document.MAX_BYTES + 1)
        if len(data) > document.MAX_BYTES:
            raise UsageError(f"{path} is larger than {document.MAX_BYTES // 1024} KiB; that is no watch list")
        text = data.decode("utf-8-sig")
    except OSError as error:
        raise UsageError(unread(path, error), hint="an address begins with http:// or https://") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8", hint="save it as UTF-8") from error
    return parse(text, str(path)), text


def parse(text: str, file: str = "watch.yaml") -> WatchList:
    """The watch list in a text; ScenarioError carries every mistake with its place."""
    read = document.read(text, file)
    if read.data is not None or not read.problems:
        if isinstance(read.data, dict):
            describe(read, WatchList, read.data, errors_of(WatchList, read.data))
        else:
            read.problem((), "a watch list is a mapping: `watch: name` and `endpoints:`")
    if read.problems:
        raise ScenarioError(sorted(set(read.problems), key=lambda one: (one.line, one.column, one.path)))
    return WatchList.model_validate(read.data)


def of_url(url: str) -> tuple[WatchList, str]:
    """A watch list of one address with everything as it is by default, and its text; UsageError if it is none."""
    try:
        target = ready_process.parse(url)
    except ValueError as error:
        raise UsageError(str(error)) from error
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{target.host}-{target.port}").strip("-.")[:64]
    text = f"watch: {name}\nendpoints:\n  {name}:\n    url: {target.url}\n"
    return parse(text, url), text


def limited(watched: WatchList, limits: Limits) -> WatchList:
    """The watch list with limits from elsewhere wherever an endpoint has none of its own."""
    endpoints = {}
    for name, endpoint in watched.endpoints.items():
        own = endpoint.limits.model_dump(exclude_none=True)
        merged = Limits.model_validate(limits.model_dump(exclude_none=True) | own)
        endpoints[name] = endpoint.model_copy(update={"limits": merged})
    return watched.model_copy(update={"endpoints": endpoints})
