"""The OpenAI API's answers: tokens turned into JSON, chunk by chunk or whole."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from .parsing import Ask
from .picking import Likelihood
from .runtime import Runtime


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
