"""What a variant answered to the quality questions, read from the record."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

if TYPE_CHECKING:
    from bench.analyse.run import Launch, Run

Floats = NDArray[np.float64]
_NAN = 65535
# Words, numbers, single Chinese characters, and whatever else stands between.
_WORDS = re.compile(r"[一-鿿]|[^\W一-鿿]+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Text:
    """An evaluation text as the server judged it.

    `ids` are its tokens where they were sent as such. `logprobs` has one value per token but the first. `tops` has the
    likeliest next tokens after each position, by name; `full` the log-probabilities of the whole vocabulary at
    `positions`, one row each.
    """

    name: str
    logprobs: Floats
    ids: tuple[int, ...] | None = None
    tops: tuple[Mapping[str, float], ...] = ()
    positions: tuple[int, ...] = ()
    full: NDArray[np.float32] | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """A greedy answer: its text, and its tokens where the server named them."""

    name: str
    label: str
    turn: int
    text: str
    tokens: tuple[str, ...] | None = None

    @property
    def words(self) -> tuple[str, ...]:
        """The text in words, or in single characters where it is Chinese."""
        return tuple(_WORDS.findall(self.text))


@dataclass(frozen=True, slots=True)
class Answers:
    """All that one variant answered. `launch` is None, and `reason` says why, where it was not asked or could not."""

    variant: str
    launch: str | None = None
    texts: Mapping[str, Text] = field(default_factory=dict)
    replies: Mapping[tuple[str, str, int], Reply] = field(default_factory=dict)
    reason: str | None = None


def of_variant(run: Run, variant: str) -> Answers:
    """The answers of a variant's first launch that gave any."""
    source = run.manifest.variant(variant).source
    if source.startswith("dummy:"):
        return Answers(variant, reason=f"the weights of {source} are random: its words mean nothing")
    launches = [launch for launch in run.all if launch.record.variant == variant]
    for launch in launches:
        if launch.record.status in ("ok", "invalid") and (found := of_launch(launch)):
            return found
    reasons = [launch.record.reason for launch in launches if launch.record.reason]
    if launches and not any(launch.record.status in ("ok", "invalid") for launch in launches):
        return Answers(variant, reason=f"no launch of it succeeded: {reasons[0] if reasons else 'no reason given'}")
    return Answers(variant, reason="it was not asked" if launches else "it was not launched")


def of_launch(launch: Launch) -> Answers | None:
    """The answers given in one launch; None if no quality questions were asked in it."""
    columns = ["request_id", "prompt_id", "stage", "label", "turn", "error", "text"]
    rows = [row for row in launch.table("requests", columns).to_pylist() if row["stage"] == "quality"]
    if not rows:
        return None
    documents = {document["request_id"]: document for document in launch.folder.logprobs(launch.id)}
    texts, replies, errors = {}, {}, []
    for row in rows:
        document = documents.get(row["request_id"], {})
        if row["label"] == "text":
            text = read_text(row["prompt_id"], document) if document else None
            if text is not None:
                texts[text.name] = text
            else:
                errors.append(row["error"] or "the server gives no log-probabilities of the prompt")
        elif row["text"] is not None and (row["error"] is None or row["text"]):
            tokens = tuple(map(str, document["tokens"])) if document.get("tokens") else None
            reply = Reply(row["prompt_id"], row["label"], row["turn"], row["text"], tokens)
            replies[reply.label, reply.name, reply.turn] = reply
    return Answers(launch.record.variant, launch.id, texts, replies, errors[0] if errors and not texts else None)


def read_text(name: str, document: Mapping[str, Any]) -> Text | None:
    """A text's log-probabilities in either of the two forms that servers have; None if it holds neither."""
    prompt = document.get("prompt")
    if isinstance(prompt, list) and document.get("prompt_logprobs"):
        return _by_ids(name, tuple(prompt), document["prompt_logprobs"], document.get("prompt_distributions"))
    values = document.get("token_logprobs") or []
    # The echoed prompt begins with a token before which nothing stood; the last value is of the one token answered.
    if len(values) > 2 and values[0] is None:
        tops = tuple(_numbers(top) for top in (document.get("top_logprobs") or [])[1:-1])
        return Text(name, _floats(values[1:-1]), tops=tops)
    return None


def _by_ids(name: str, ids: tuple[int, ...], entries: Sequence[Any], distributions: Any) -> Text | None:
    tops = tuple(
        {token: _number(entry["logprob"]) for token, entry in (position or {}).items()} for position in entries[1:]
    )
    if len(tops) != len(ids) - 1:
        return None
    values = np.array([top.get(str(token), np.nan) for top, token in zip(tops, ids[1:], strict=True)])
    positions, full = _distributions(distributions)
    return Text(name, values, ids, tops, positions, full)


def _distributions(given: Any) -> tuple[tuple[int, ...], NDArray[np.float32] | None]:
    """Rows of −ln p in steps, as the server packs them; 65535 is a NaN."""
    if not isinstance(given, dict):
        return (), None
    try:
        data = np.frombuffer(base64.b64decode(given["data"], validate=True), dtype="<u2")
        positions = tuple(int(at) for at in given["positions"])
        steps = data.reshape(len(positions), int(given["vocabulary"]))
        values = np.where(steps == _NAN, np.nan, -steps.astype(np.float32) / int(given["steps"]))
        return positions, values.astype(np.float32)
    except (KeyError, ValueError, TypeError, binascii.Error):
        return (), None


def _numbers(top: Any) -> dict[str, float]:
    return {str(token): _number(value) for token, value in (top or {}).items()}


def _floats(values: Sequence[Any]) -> Floats:
    return np.array([_number(value) for value in values], dtype=float)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else float("nan")


def seconds(launch: Launch) -> float | None:
    """How long the quality questions took, from first sending to last end; None if none was asked."""
    requests = launch.requests()
    asked = requests.filter(pc.equal(requests["stage"], "quality"))
    start, end = pc.min(asked["sent_ns"]).as_py(), pc.max(asked["end_ns"]).as_py()
    return None if start is None or end is None else (end - start) / 1e9
