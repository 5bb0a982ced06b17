"""The engine's contract: a pure description of how to start it, and what its traces mean afterwards."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bench.record.engine_log import LogLine
from bench.record.launches import Phase, WarmupStage
from bench.scenario.variant import Variant


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights on this machine. `format` is safetensors, gguf or remote (an attached server has its own).

    `side` is the folder of the tokenizer where it does not lie beside the weights.
    """

    path: Path | None
    source: str
    digest: str | None
    quantization: str
    format: str = "safetensors"
    size_bytes: int | None = None
    random_weights: bool = False
    vocab_size: int | None = None
    side: Path | None = None

    @property
    def tokenizer(self) -> Path | None:
        """The tokenizer file, if there is one."""
        folder = self.side or self.path
        file = folder / "tokenizer.json" if folder else None
        return file if file and file.is_file() else None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the server answers. `prefix` is the path before /v1, usually empty."""

    host: str
    port: int
    model: str
    tls: bool = False
    prefix: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    # True where the server accepts token-id prompts on /v1/completions.
    token_ids: bool = True
    # False where the server has no /v1/completions: prompts go as the one message of a chat.
    completions: bool = True
    # Extra fields that this engine needs in every request body.
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ParentSpec:
    """What a warm parent has done before a launch is forked from it, in the engine's own interpreter.

    `imports` must succeed and `optional` ones may fail, which is told. `prepare` and `child` name functions,
    `module:function`: the one is called in the parent after the imports with `arguments`, the other in each fork. `env`
    is what the imports depend on; all other variables are the launch's and set after the fork. `holds` is a path whose
    data the parent keeps in memory. `versions` name the distributions that it is called after.
    """

    imports: tuple[str, ...]
    optional: tuple[str, ...] = ()
    prepare: str | None = None
    arguments: Mapping[str, Any] = field(default_factory=dict)
    child: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    holds: Path | None = None
    versions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageSpec:
    """What an image of a launch is known by beside its words: its weights and their digest.

    `folder` is the launch's own, which its words and variables may name; an image has one in its place.
    """

    folder: Path
    weights: Path | None = None
    digest: str | None = None


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """All that a launch needs: argv and environment, or none of them for a server that already runs."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    endpoint: Endpoint
    cwd: Path | None = None
    health: str | None = "/health"
    ready_timeout_s: float = 900.0
    stop_timeout_s: float = 20.0
    # Signal that ends the engine politely.
    stop_signal: str = "SIGTERM"
    # File to which the engine's own worker writes start-up events as JSON lines, if it does.
    events_file: Path | None = None
    # Set to receive OpenTelemetry spans: the spec's builder put the sink's address into argv and env.
    wants_spans: bool = False
    # How to fork the launch, where the variant asks for that and it can be done: `argv` is then `python -m module …`.
    parent: ParentSpec | None = None
    # What an image of it is known by, where the variant asks to be restored from one.
    image: ImageSpec | None = None
    # Why it can be neither, where the variant asks for it.
    not_forked: str | None = None
    # True where the launch is to run on a GPU, so that one which fell back to the CPU in silence is found.
    wants_gpu: bool | None = None

    @property
    def attached(self) -> bool:
        """Whether the server is someone else's: never started, never stopped."""
        return not self.argv


@dataclass(frozen=True, slots=True)
class Span:
    """One OpenTelemetry span, on CLOCK_MONOTONIC."""

    name: str
    start_ns: int
    end_ns: int
    process: str
    parent: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LaunchTrace:
    """What a launch left behind, for the engine to interpret.

    `stamps` has the keys of record.launches.STAMPS. `events` are the worker's own JSON lines, each with at least
    `name` and `t_ns` (CLOCK_MONOTONIC, shared by all processes of one machine). `warmup` has one entry per warm-up
    stage that was driven.
    """

    stamps: Mapping[str, int | None]
    log: Sequence[LogLine]
    events: Sequence[Mapping[str, Any]] = ()
    spans: Sequence[Span] = ()
    version: str | None = None
    endpoint: Endpoint | None = None
    warmup: Sequence[WarmupStage] = ()
    # Whether the engine was forked from a parent that had done its imports.
    forked: bool = False
    # Whether it was restored from an image: all that it did before its first request is in that.
    restored: bool = False


# Where an engine listens unless its client is elsewhere.
OURS = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class LaunchContext:
    """What the harness decided for one launch before the engine is asked for its command.

    `args` and `env` come from the warm-up strategy and override the scenario's. `caches` is the launch's own folder for
    compile caches and the like; `spans_url` is where OpenTelemetry spans may be sent, or None. `block`, `position` and
    `seed` are the planned launch's. `host` is the one address at which the engine listens: another than this machine's
    own where the client is elsewhere.
    """

    port: int
    folder: Path
    checkpoint: Checkpoint
    caches: Path | None = None
    spans_url: str | None = None
    args: Mapping[str, Any] = field(default_factory=dict)
    env: Mapping[str, str] = field(default_factory=dict)
    block: int = 0
    position: int = 0
    seed: int = 0
    host: str = OURS


class Engine(Protocol):
    """What every engine gives. All three are pure; processes are the conductor's business.

    One that loads GGUF files says so by an attribute `form = "gguf"`.
    """

    name: str

    def command(self, variant: Variant, launch: LaunchContext) -> LaunchSpec:
        """How to start the variant; LaunchError(kind='bad_argument' or 'unsupported…') if that is known not to work."""
        ...

    def phases(self, trace: LaunchTrace) -> list[Phase]:
        """What the time before the first token was spent on, as far as this engine says; null phases carry a reason."""
        ...

    def facts(self, trace: LaunchTrace) -> dict[str, Any]:
        """What was really used (version, dtype, kernel, attention backend, KV-cache size), not what was asked for."""
        ...


def form(engine: type[Engine] | Engine) -> str:
    """In what form an engine loads weights: safetensors, unless it says otherwise."""
    return str(getattr(engine, "form", "safetensors"))
