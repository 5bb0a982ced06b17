"""The OpenAI API's requests: their JSON checked, and turned into an Ask."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .picking import Sampling
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
