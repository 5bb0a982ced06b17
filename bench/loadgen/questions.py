"""The quality questions: what is asked of every variant so that its answers can be compared with another's.

Three kinds, told apart by their label. `text`: an evaluation text is only read, and the server says how likely each of
its tokens was. `greedy`: the beginning of such a text is continued without chance. `founding:<name>`: the use cases
that the product was founded on, answered in full, to be read side by side.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, count, zip_longest
from pathlib import Path
from typing import Any

from bench.data import EVALUATION
from bench.engines.engine import Checkpoint, Endpoint
from bench.errors import UsageError
from bench.loadgen.job import Request
from bench.loadgen.prompts import COMPLETIONS, Asked, Batch, requests
from bench.loadgen.vocabulary import vocabulary
from bench.scenario.model import ConversationPrompts, Quality, Workload

USE_CASES = {"fault-triage": 1, "manual-zh": 1, "two-turn": 2}
# Tokens read of each text, tokens continued from its beginning, and tokens of each use case's answer.
READ, BEGUN, CONTINUED, ANSWERED = 256, 40, 24, 64
# Positions per text at which the whole distribution is taken, where a server gives it: exact, and affordable.
DISTRIBUTIONS = 16
# Likeliest tokens per position, for a bound where it does not; the most that servers allow by default.
ALTERNATIVES = 20


def quality_requests(
    quality: Quality, *, first_id: int, endpoint: Endpoint, checkpoint: Checkpoint, base: Path
) -> list[Request]:
    """All questions, numbered from `first_id`; none for random weights, whose words mean nothing.

    `base` is the scenario's folder. UsageError if the corpus cannot be read.
    """
    if checkpoint.random_weights:
        return []
    texts = corpus(quality, base)
    numbers = count(first_id)
    # A server without /v1/completions can neither be asked how likely a text is nor to go on with one.
    asked = [*_texts(texts, endpoint, checkpoint, numbers)] if endpoint.completions else []
    for name, turns in USE_CASES.items():
        batch = Batch("quality", first_id + len(asked), turns, label=f"founding:{name}")
        asked += requests(Asked(_workload(name, turns), endpoint, checkpoint, base), batch)
    return asked


def corpus(quality: Quality, base: Path) -> dict[str, str]:
    """The evaluation texts by name, languages taking turns so that a smaller number keeps them all."""
    file = base / quality.corpus if quality.corpus else EVALUATION
    by_language: dict[str, dict[str, str]] = {}
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the evaluation texts {file} cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            text, name = entry["text"], str(entry.get("id", f"line-{number}"))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{file}:{number}: not a JSON object with `text`") from error
        if not isinstance(text, str) or not text:
            raise UsageError(f"{file}:{number}: `text` must be text")
        by_language.setdefault(str(entry.get("language", "")), {})[name] = text
    turns = chain.from_iterable(zip_longest(*(texts.items() for texts in by_language.values())))
    texts = dict([item for item in turns if item is not None][: quality.documents])
    if not texts:
        raise UsageError(f"{file} holds no texts")
    return texts


def positions(length: int) -> list[int]:
    """Where in a text of so many tokens distributions are taken: evenly spread, each with a token after it."""
    wanted = min(DISTRIBUTIONS, length - 1)
    return [(2 * index + 1) * (length - 1) // (2 * wanted) for index in range(wanted)]


def _texts(
    texts: Mapping[str, str], endpoint: Endpoint, checkpoint: Checkpoint, numbers: Iterator[int]
) -> Iterator[Request]:
    tokenizer = vocabulary(checkpoint).tokenizer if endpoint.token_ids else None
    for name, text in texts.items():
        if tokenizer is not None:
            ids: Sequence[int] = tokenizer.encode(text).ids[:READ]
            where = {"prompt_logprobs": ALTERNATIVES, "prompt_distributions": positions(len(ids))}
            yield _request(next(numbers), name, "text", endpoint, {"prompt": list(ids), "max_tokens": 1, **where})
            begun: Any = list(ids[:BEGUN])
        else:
            echo = {"prompt": text, "max_tokens": 1, "echo": True, "logprobs": 5}
            yield _request(next(numbers), name, "text", endpoint, echo)
            begun = text[: len(text) // 3]
        asked = {"prompt": begun, "max_tokens": CONTINUED, "ignore_eos": True, "logprobs": 1}
        # Half a Chinese character is no text: tokens are compared by their ids where the server knows to name those.
        asked["return_tokens_as_token_ids"] = True
        yield _request(next(numbers), name, "greedy", endpoint, asked)


def _request(number: int, name: str, label: str, endpoint: Endpoint, fields: Mapping[str, Any]) -> Request:
    """One question, not streamed: no server gives all that is asked for in a stream."""
    body = {"model": endpoint.model, "temperature": 0.0, **fields, **endpoint.body}
    return Request(
        request_id=number,
        prompt_id=name,
        stage="quality",
        path=endpoint.prefix + COMPLETIONS,
        body={key: value for key, value in body.items() if value is not None},
        label=label,
        output_tokens=int(fields["max_tokens"]),
    )


def _workload(name: str, turns: int) -> Workload:
    return Workload(
        prompts=ConversationPrompts(kind="conversation", file=f"founding:{name}"),
        output_tokens=ANSWERED,
        ignore_eos=False,
        temperature=0.0,
        requests=turns,
        unique=False,
    )
