"""What is asked: requests with prompts drawn or read, the same for every variant that runs with the same seed."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.data import FOUNDING
from bench.engines.engine import Checkpoint, Endpoint
from bench.errors import UnknownName, UsageError
from bench.loadgen.job import Request
from bench.loadgen.vocabulary import Vocabulary, vocabulary
from bench.record.schema import RequestStage
from bench.scenario import trace
from bench.scenario.model import (
    ConversationPrompts,
    RandomPrompts,
    SharedPrefix,
    TextPrompts,
    TracePrompts,
    Workload,
)

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Prompt:
    """One prompt: where it goes, the fields that carry it, and which turn of which conversation it is."""

    name: str
    path: str
    fields: Mapping[str, Any]
    bucket: int | None = None
    turn: int = 0
    output_tokens: int | None = None
    due_ns: int | None = None

    @property
    def id(self) -> str:
        """Its name with a digest of all it says."""
        said = json.dumps(self.fields, ensure_ascii=False).encode("utf-8", "replace")
        return f"{self.name}-{hashlib.sha256(said).hexdigest()[:10]}"


@dataclass(frozen=True, slots=True)
class Draw:
    """Random numbers that depend on the seed, the stage and the request's place in it, and on nothing else."""

    seed: int
    stage: RequestStage
    first: int
    unique: bool

    def at(self, index: int, what: str) -> random.Random:
        """Numbers for one request; without `unique` all requests for the same thing share them."""
        place = f"{self.stage}/{self.first + index}" if self.unique else what
        return random.Random(f"prompts/{self.seed}/{place}")

    def common(self, what: str) -> random.Random:
        """Numbers that all requests for the same thing share, the warm-up apart: it fills no cache for what follows."""
        return random.Random(f"prompts/{self.seed}/{'warmup/' * (self.stage == 'warmup')}{what}")


@dataclass(frozen=True, slots=True)
class Asked:
    """Who is asked for what: a workload's prompts, of a server that serves a checkpoint.

    `base` is the folder from which prompt files are named.
    """

    workload: Workload
    endpoint: Endpoint
    checkpoint: Checkpoint
    base: Path
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Batch:
    """`count` requests of a stage, numbered from `first_id`.

    `buckets` asks for random prompts of these lengths (tokens) instead of the workload's own. In `body`, as in the
    endpoint's, None takes a field away.
    """

    stage: RequestStage
    first_id: int
    count: int
    buckets: Sequence[int] | None = None
    output_tokens: int | None = None
    measured: bool = False
    label: str | None = None
    body: Mapping[str, Any] | None = None


def requests(asked: Asked, batch: Batch) -> list[Request]:
    """The batch's requests; fewer where the prompt file runs out and may not repeat."""
    workload, endpoint = asked.workload, asked.endpoint
    warmup = batch.stage == "warmup"
    # Batches of a warm-up follow each other under one name; the measured requests are the same however many there were.
    draw = Draw(asked.seed, batch.stage, batch.first_id if warmup else 0, workload.unique or warmup)
    made: list[Request] = []
    for prompt in _prompts(asked, batch, draw):
        number = batch.first_id + len(made)
        tokens = batch.output_tokens or prompt.output_tokens or workload.output_tokens
        common = _common(workload, endpoint, tokens, asked.seed)
        fields = common | dict(prompt.fields) | dict(endpoint.body) | dict(batch.body or {})
        made.append(
            Request(
                request_id=number,
                prompt_id=prompt.id,
                stage=batch.stage,
                path=endpoint.prefix + prompt.path,
                body={name: value for name, value in fields.items() if value is not None},
                label=batch.label,
                measured=batch.measured,
                bucket=prompt.bucket,
                turn=prompt.turn,
                after=number - 1 if prompt.turn else None,
                output_tokens=tokens,
                due_ns=prompt.due_ns,
            )
        )
    return made


def resolve(file: str, base: Path) -> Path:
    """The prompt file that a scenario names; founding:<name> is a shipped one. UsageError if there is none."""
    if file.startswith("founding:"):
        name = file.removeprefix("founding:")
        path = FOUNDING / f"{name}.jsonl"
        if not path.is_file():
            raise UnknownName("shipped prompt file", name, (known.stem for known in FOUNDING.glob("*.jsonl")))
        return path
    path = base / file
    if not path.is_file():
        raise UsageError(f"no prompt file {path}", hint="the path counts from the scenario file's own folder")
    return path


def check_file(source: TextPrompts | ConversationPrompts, base: Path) -> None:
    """UsageError with file and line for the first prompt that could not be sent."""
    keys = ("prompt",) if isinstance(source, TextPrompts) else ("turns", "prompt")
    _entries(resolve(source.file, base), keys)


def _common(workload: Workload, endpoint: Endpoint, tokens: int, seed: int) -> dict[str, Any]:
    return {
        "model": endpoint.model,
        "max_tokens": tokens,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": workload.temperature,
        "seed": seed if workload.temperature else None,
        "ignore_eos": workload.ignore_eos or None,
    }


@dataclass(frozen=True, slots=True)
class Written:
    """How random tokens are put into a request: as ids, where the form asks for them and the server takes them."""

    form: str
    token_ids: bool
    known: Vocabulary

    @classmethod
    def of(cls, form: str, asked: Asked) -> Written:
        """How this server, with this checkpoint's vocabulary, gets them."""
        endpoint = asked.endpoint
        return cls(form, endpoint.token_ids and endpoint.completions, vocabulary(asked.checkpoint))


def _prompts(asked: Asked, batch: Batch, draw: Draw) -> Iterator[Prompt]:
    made = _sources(asked, batch, draw)
    yield from made if asked.endpoint.completions else map(_as_chat, made)


def _as_chat(prompt: Prompt) -> Prompt:
    """A prompt as the one message of a chat, for a server that knows nothing else; its template adds to the length."""
    if prompt.path == CHAT:
        return prompt
    return Prompt(
        f"chat-{prompt.name}",
        CHAT,
        {"messages": [{"role": "user", "content": prompt.fields["prompt"]}]},
        prompt.bucket,
        prompt.turn,
    )


def _sources(asked: Asked, batch: Batch, draw: Draw) -> Iterator[Prompt]:
    source, base, count = asked.workload.prompts, asked.base, batch.count
    if batch.buckets:
        form = source.form if isinstance(source, RandomPrompts) else "ids"
        yield from _random(list(batch.buckets), draw, count, Written.of(form, asked))
    elif isinstance(source, RandomPrompts):
        lengths = [source.tokens] if isinstance(source.tokens, int) else source.tokens
        yield from _random(lengths, draw, count, Written.of(source.form, asked), source.shared_prefix)
    elif isinstance(source, TracePrompts):
        yield from _traced(source, draw, count, asked)
    elif isinstance(source, TextPrompts):
        yield from _texts(source, draw, count, base)
    else:
        yield from _conversations(source, draw, count, base)


def _random(
    lengths: list[int], draw: Draw, count: int, written: Written, shared: SharedPrefix | None = None
) -> Iterator[Prompt]:
    for index in range(count):
        length = lengths[index % len(lengths)]
        parts = [(length, draw.at(index, f"random/{length}"))]
        if shared is not None:
            parts = [
                (shared.tokens, draw.common(f"prefix/{index % shared.groups}")),
                (length - shared.tokens, parts[0][1]),
            ]
        yield _drawn(parts, written)


def _traced(source: TracePrompts, draw: Draw, count: int, asked: Asked) -> Iterator[Prompt]:
    """Prompts of a trace's lengths. Blocks that it says are equal are made so, unless each prompt is to be unique."""
    written, alike = Written.of(source.form, asked), not asked.workload.unique
    for index, row in enumerate(trace.read(resolve(source.file, asked.base), min(count, source.limit or count))):
        # Without blocks nothing says that two prompts were alike: each is drawn by itself.
        parts = [(row.prompt_tokens, replace(draw, unique=True).at(index, ""))]
        if alike and row.blocks:
            sizes = [trace.BLOCK_TOKENS] * (len(row.blocks) - 1)
            sizes.append(row.prompt_tokens - sum(sizes))
            parts = [(size, draw.common(f"block/{one}")) for size, one in zip(sizes, row.blocks, strict=True)]
        prompt = _drawn(parts, written)
        yield replace(prompt, bucket=None, output_tokens=row.output_tokens, due_ns=round(row.at_s * 1e9))


def _drawn(parts: Sequence[tuple[int, random.Random]], written: Written) -> Prompt:
    """A random prompt of so many tokens from each of the draws, one after the other."""
    length, known = sum(size for size, _ in parts), written.known
    if written.form == "ids" and written.token_ids:
        ids = [token for size, numbers in parts for token in known.ids(size, numbers)]
        return Prompt(f"ids-{length}", COMPLETIONS, {"prompt": ids}, bucket=length)
    # Without a tokenizer the length is a word count, which the name admits.
    name = f"text-{length}" if known.tokenizer is not None else f"words-about-{length}"
    text, so_far = "", 0
    for size, numbers in parts:
        so_far += size
        text = known.text(so_far, numbers, text)
    return Prompt(name, COMPLETIONS, {"prompt": text}, bucket=length)


@dataclass(frozen=True, slots=True)
class PromptEntry:
    """One line of a prompt file: a text, or the questions of a conversation."""

    turns: tuple[str, ...]
    system: str | None = None


def _texts(source: TextPrompts, draw: Draw, count: int, base: Path) -> Iterator[Prompt]:
    path = resolve(source.file, base)
    entries = _entries(path, ("prompt",))
    for index in range(count if source.repeat else min(count, len(entries))):
        entry = entries[index % len(entries)]
        text = _reference(draw, index) + entry.turns[0]
        name = f"{path.stem}-{index % len(entries)}"
        if source.chat:
            yield Prompt(name, CHAT, {"messages": _messages(entry, [text])})
        else:
            yield Prompt(name, COMPLETIONS, {"prompt": text})


def _conversations(source: ConversationPrompts, draw: Draw, count: int, base: Path) -> Iterator[Prompt]:
    path = resolve(source.file, base)
    entries = _entries(path, ("turns", "prompt"))
    sent = index = 0
    while sent < count and (source.repeat or index < len(entries)):
        entry = entries[index % len(entries)]
        asked: list[str] = []
        for turn, question in enumerate(entry.turns[: count - sent]):
            asked.append(question if turn else _reference(draw, index) + question)
            fields = {"messages": _messages(entry, asked)}
            yield Prompt(f"{path.stem}-{index % len(entries)}", CHAT, fields, turn=turn)
            sent += 1
        index += 1


def _messages(entry: PromptEntry, asked: Sequence[str]) -> list[dict[str, str]]:
    system = [{"role": "system", "content": entry.system}] if entry.system else []
    return [*system, *({"role": "user", "content": question} for question in asked)]


def _reference(draw: Draw, index: int) -> str:
    """A line that makes the prompt's very beginning unique, so that no prefix of it is in a cache."""
    return f"[{draw.at(index, 'reference').randrange(1 << 32):08x}]\n" if draw.unique else ""


def _entries(path: Path, keys: Sequence[str]) -> list[PromptEntry]:
    """A file's prompts: JSON lines with one of the keys, or plain lines where the name does not end in .jsonl."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from None
    structured = path.suffix == ".jsonl"
    made = [
        _entry(f"{path}:{number}", line, keys) if structured else PromptEntry((line,))
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not made:
        raise UsageError(f"{path}: has no prompts")
    return made


def _entry(where: str, line: str, keys: Sequence[str]) -> PromptEntry:
    try:
        content = json.loads(line)
    except ValueError as error:
        raise UsageError(f"{where}: not JSON: {error}") from None
    given = next((content[key] for key in keys if key in content), None) if isinstance(content, dict) else None
    turns = (given,) if isinstance(given, str) else tuple(given) if isinstance(given, list) else ()
    if not turns or not all(isinstance(turn, str) and turn for turn in turns):
        raise UsageError(f"{where}: needs {' or '.join(repr(key) for key in keys)}: text, or a list of texts")
    system = content.get("system")
    if system is not None and not isinstance(system, str):
        raise UsageError(f"{where}: 'system' must be text")
    return PromptEntry(turns, system)
