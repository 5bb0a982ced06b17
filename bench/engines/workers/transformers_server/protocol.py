"""The OpenAI API's JSON: requests checked and turned into an Ask, tokens turned into chunks and answers."""

from __future__ import annotations

import json
import math
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .picking import Likelihood, Sampling
from .runtime import Runtime

# Fields that would change the answer and that this server does not have; their neutral values are accepted.
_LACKING: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "best_of": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "min_p": (0,),
    "logit_bias": ({},),
    "tools": ([],),
    "response_format": ({"type": "text"},),
    "guided_json": (),
    "structured_outputs": (),
    "suffix": ("",),
    "use_beam_search": (False,),
}


class BadRequest(Exception):
    """A request that cannot be served, with its HTTP status."""

    def __init__(self, message: str, param: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.param = param
        self.status = status


@dataclass(frozen=True)
class Ask:
    """A request, checked. `logprobs` and `prompt_logprobs` count alternatives per token; None asks for none.

    `distributions` are positions of the prompt at which the whole vocabulary's log-probabilities are wanted.
    """

    chat: bool
    ids: tuple[int, ...]
    sampling: Sampling
    max_tokens: int
    min_tokens: int = 0
    ignore_eos: bool = False
    stops: tuple[str, ...] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    distributions: tuple[int, ...] = ()
    echo: bool = False
    stream: bool = False
    include_usage: bool = False
    continuous_usage: bool = False
    token_ids: bool = False
    as_token_ids: bool = False


def parse(body: Mapping[str, Any], chat: bool, runtime: Runtime, served: str) -> Ask:
    """Check a request's body; BadRequest names the first thing that is wrong with it."""
    if body.get("model") not in (None, served):
        raise BadRequest(f"the model {body['model']!r} does not exist; this server has {served!r}", "model", 404)
    for name, neutral in _LACKING.items():
        if body.get(name) is not None and body[name] not in neutral:
            raise BadRequest(f"{name}={body[name]!r} is not supported", name)
    options = body.get("stream_options") or {}
    if not isinstance(options, dict):
        raise BadRequest("stream_options must be an object", "stream_options")
    ids = _prompt(body, chat, runtime)
    echo = bool(body.get("echo")) and not chat
    logprobs = _alternatives(body, chat, runtime.vocab_size)
    prompt_logprobs = _whole(body, "prompt_logprobs", None, 0, runtime.vocab_size)
    if echo and logprobs is not None:
        prompt_logprobs = logprobs
    room = runtime.max_tokens - len(ids)
    asked = "max_completion_tokens" if body.get("max_completion_tokens") is not None else "max_tokens"
    least = 0 if prompt_logprobs is not None or echo else 1
    wanted = _whole(body, asked, max(room, 1) if chat else 16, least) or 0
    if wanted > room:
        raise BadRequest(
            f"this model's maximum context length is {runtime.max_tokens} tokens, and {len(ids)} in the prompt"
            f" and {wanted} for the answer were asked for",
            asked,
        )
    stop = body.get("stop") or []
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, list) or not all(isinstance(string, str) for string in stops):
        raise BadRequest("stop must be a string or a list of strings", "stop")
    return Ask(
        chat=chat,
        ids=tuple(ids),
        sampling=_sampling(body),
        max_tokens=wanted,
        min_tokens=_whole(body, "min_tokens", 0, 0, wanted) or 0,
        ignore_eos=bool(body.get("ignore_eos")),
        stops=tuple(stops),
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
        distributions=_positions(body, len(ids)),
        echo=echo,
        stream=bool(body.get("stream")),
        include_usage=bool(options.get("include_usage")),
        continuous_usage=bool(options.get("continuous_usage_stats")),
        token_ids=bool(body.get("return_token_ids")),
        as_token_ids=bool(body.get("return_tokens_as_token_ids")),
    )


class Writer:
    """The JSON of one answer, chunk by chunk or whole."""

    def __init__(self, ask: Ask, runtime: Runtime, served: str) -> None:
        self._ask = ask
        self._runtime = runtime
        self._offset = 0
        kind = "chat.completion" if ask.chat else "text_completion"
        self._object = f"{kind}.chunk" if ask.chat and ask.stream else kind
        name = f"{'chatcmpl' if ask.chat else 'cmpl'}-{uuid.uuid4().hex}"
        self._head = {"id": name, "object": self._object, "created": int(time.time()), "model": served}

    def opening(self, prompt: Sequence[Likelihood | None]) -> dict[str, Any] | None:
        """What comes before the first token: a chat's role, or the prompt that was to be echoed."""
        if self._ask.chat:
            extra = {"prompt_logprobs": self._of_prompt(prompt)} if prompt else {}
            return self._document([self._choice({"delta": {"role": "assistant", "content": ""}})], **extra)
        if self._ask.echo or prompt:
            return self._document([self._choice(self._echo(prompt))])
        return None

    def chunk(
        self, piece: str, token: int, likelihood: Likelihood | None, finish: str | None, count: int
    ) -> dict[str, Any]:
        """One token."""
        part: dict[str, Any] = {"delta": {"content": piece}} if self._ask.chat else {"text": piece}
        if likelihood is not None:
            part["logprobs"] = self._logprobs([likelihood], [piece])
        if self._ask.token_ids:
            part["token_ids"] = [token]
        extra = {"usage": self.usage(count)} if self._ask.continuous_usage else {}
        return self._document([self._choice(part, finish)], **extra)

    def closing(self, count: int) -> dict[str, Any] | None:
        """The usage chunk, if it was asked for."""
        return self._document([], usage=self.usage(count)) if self._ask.include_usage else None

    def whole(
        self,
        pieces: Sequence[str],
        tokens: Sequence[int],
        found: Sequence[Likelihood],
        finish: str | None,
        prompt: Sequence[Likelihood | None],
        distributions: Mapping[str, Any] | None,
    ) -> dict[str, Any]:
        """The answer in one document."""
        text = "".join(pieces)
        extra: dict[str, Any] = {"usage": self.usage(len(tokens))}
        if self._ask.chat:
            part: dict[str, Any] = {"message": {"role": "assistant", "content": text}}
            if prompt:
                extra["prompt_logprobs"] = self._of_prompt(prompt)
        else:
            part = self._echo(prompt)
            part["text"] += text
        if self._ask.logprobs is not None:
            mine = self._logprobs(found, pieces)
            before = part.get("logprobs")
            part["logprobs"] = {name: before[name] + mine[name] for name in mine} if before else mine
        if self._ask.token_ids:
            part["token_ids"] = list(tokens)
        if distributions:
            part["prompt_distributions"] = dict(distributions)
        return self._document([self._choice(part, finish)], **extra)

    def usage(self, count: int) -> dict[str, int]:
        """Tokens in and out."""
        asked = len(self._ask.ids)
        return {"prompt_tokens": asked, "completion_tokens": count, "total_tokens": asked + count}

    def _document(self, choices: list[dict[str, Any]], **extra: Any) -> dict[str, Any]:
        return {**self._head, "choices": choices, **extra}

    def _choice(self, part: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {"index": 0, **part, "logprobs": part.get("logprobs"), "finish_reason": finish}

    def _echo(self, prompt: Sequence[Likelihood | None]) -> dict[str, Any]:
        part: dict[str, Any] = {"text": ""}
        if self._ask.echo:
            pieces = [self._piece(token) for token in self._ask.ids]
            part["text"] = self._runtime.decode(self._ask.ids)
            if prompt:
                part["logprobs"] = self._logprobs(prompt, pieces)
        if prompt:
            part["prompt_logprobs"] = self._of_prompt(prompt)
        return part

    def _logprobs(self, found: Sequence[Likelihood | None], pieces: Sequence[str]) -> dict[str, Any]:
        if self._ask.chat:
            return {"content": [self._chat_logprob(one) for one in found if one is not None]}
        offsets = []
        for piece in pieces:
            offsets.append(self._offset)
            self._offset += len(piece)
        names = [self._name(one.token) if one else self._name(self._ask.ids[0]) for one in found]
        tops = [
            {self._name(token): value for token, value in (*one.top, (one.token, one.logprob))} if one else None
            for one in found
        ]
        values = [one.logprob if one else None for one in found]
        return {"tokens": names, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets[: len(found)]}

    def _chat_logprob(self, one: Likelihood) -> dict[str, Any]:
        def entry(token: int, value: float) -> dict[str, Any]:
            name = self._name(token)
            return {"token": name, "logprob": value, "bytes": list(self._piece(token).encode())}

        return {**entry(one.token, one.logprob), "top_logprobs": [entry(token, value) for token, value in one.top]}

    def _of_prompt(self, prompt: Sequence[Likelihood | None]) -> list[dict[str, Any] | None]:
        """vLLM's form: the token itself and the likeliest ones by id; nothing stands before the first token."""
        documents: list[dict[str, Any] | None] = []
        for one in prompt:
            if one is None:
                documents.append(None)
                continue
            ranked = {token: (rank, value) for rank, (token, value) in enumerate(one.top, start=1)}
            ranked.setdefault(one.token, (one.rank, one.logprob))
            documents.append({str(token): {"logprob": value, "rank": rank} for token, (rank, value) in ranked.items()})
        return documents

    def _name(self, token: int) -> str:
        return f"token_id:{token}" if self._ask.as_token_ids else self._piece(token)

    def _piece(self, token: int) -> str:
        text: str = self._runtime.tokenizer.decode([token])
        return text


def encode(document: Any) -> bytes:
    """JSON as bytes, characters as they are."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def failure(
    message: str, kind: str = "invalid_request_error", param: str | None = None, code: int = 400
) -> dict[str, Any]:
    """The API's error document."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def conversation(body: Mapping[str, Any], runtime: Runtime) -> list[int]:
    """The tokens of a request's messages, in the words of the model's chat template."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages must be a list with at least one message", "messages")
    if not all(isinstance(message, dict) and isinstance(message.get("role"), str) for message in messages):
        raise BadRequest("each message must be an object with a role", "messages")
    try:
        return runtime.template(messages)
    except Exception as error:  # a template is a program of the model's author and may refuse in its own way
        raise BadRequest(f"the chat template refuses these messages: {error}", "messages") from error


def known(tokens: list[int], name: str, runtime: Runtime) -> list[int]:
    """The same token ids, if the vocabulary has them all."""
    wrong = next((token for token in tokens if not 0 <= token < runtime.vocab_size), None)
    if wrong is not None:
        raise BadRequest(f"token id {wrong} is not in the vocabulary of {runtime.vocab_size}", name)
    return tokens


def _prompt(body: Mapping[str, Any], chat: bool, runtime: Runtime) -> list[int]:
    if chat:
        return conversation(body, runtime)
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], (str, list)):
        prompt = prompt[0]
    if isinstance(prompt, str):
        ids = runtime.encode(prompt)
    elif isinstance(prompt, list) and all(type(token) is int for token in prompt):
        ids = known(prompt, "prompt", runtime)
    else:
        raise BadRequest("prompt must be a string or a list of token ids, and only one per request", "prompt")
    if not ids:
        raise BadRequest("the prompt is empty", "prompt")
    return ids


def _positions(body: Mapping[str, Any], length: int) -> tuple[int, ...]:
    """Ours alone: positions of the prompt whose next token's whole distribution is wanted, in a whole answer only."""
    positions = body.get("prompt_distributions")
    if positions is None:
        return ()
    if not isinstance(positions, list) or not all(type(at) is int and 0 <= at < length for at in positions):
        raise BadRequest(f"prompt_distributions must be a list of positions below {length}", "prompt_distributions")
    if body.get("stream"):
        raise BadRequest("prompt_distributions do not go with stream", "prompt_distributions")
    return tuple(positions)


def _alternatives(body: Mapping[str, Any], chat: bool, vocabulary: int) -> int | None:
    if not chat:
        return _whole(body, "logprobs", None, 0, vocabulary)
    return _whole(body, "top_logprobs", 0, 0, vocabulary) if body.get("logprobs") else None


def _sampling(body: Mapping[str, Any]) -> Sampling:
    return Sampling(
        temperature=_number(body, "temperature", 1.0, 0),
        top_p=_number(body, "top_p", 1.0, 0, 1),
        top_k=max(_whole(body, "top_k", 0, -1) or 0, 0),
        seed=_whole(body, "seed", None),
    )


def _whole(
    body: Mapping[str, Any], name: str, default: int | None, least: float = -math.inf, most: float = math.inf
) -> int | None:
    if body.get(name) is None:
        return default
    value = _number(body, name, 0, least, most)
    if value != int(value):
        raise BadRequest(f"{name} must be a whole number, not {value!r}", name)
    return int(value)


def _number(
    body: Mapping[str, Any], name: str, default: float, least: float = -math.inf, most: float = math.inf
) -> float:
    value: Any = body.get(name)
    if value is None:
        return default
    # A bool is an int to Python and a mistake to the user; NaN compares with nothing.
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise BadRequest(f"{name} must be a number, not {value!r}", name)
    if not least <= value <= most:
        limits = f"at least {least}" if most == math.inf else f"between {least} and {most}"
        raise BadRequest(f"{name} must be {limits}, not {value!r}", name)
    return value
