"""What a server counted: token figures out of its events, and which of them cannot be true beside what was seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# Keys under which servers count and time.
KEYS = frozenset({"usage", "metrics", "timings", "x_groq"})
# A parser in the server may make two events of one token now and then; an answer has no tenth more events than tokens.
_EXTRA, _EXTRA_SHARE = 1, 0.05


@dataclass(slots=True)
class Counts:
    """Token counts as the server gave them; null where it gave none, or (with `reason`) one that cannot be true."""

    prompt: int | None = None
    completion: int | None = None
    cached: int | None = None
    # Tokens of reasoning that are part of `completion`.
    reasoning: int | None = None
    server_ttft_ms: float | None = None
    server_tpot_ms: float | None = None
    reason: str | None = None
    _most: int = 0

    def take(self, content: dict[str, Any]) -> None:
        """Counts and times of one event. A zero never overwrites a count."""
        groq = content.get("x_groq")
        self.usage(content.get("usage") or (groq.get("usage") if isinstance(groq, dict) else None))
        # vLLM with per-request metrics, and llama.cpp, which counts from the start of the prompt's processing.
        for key, name in (("metrics", "time_to_first_token_ms"), ("timings", "prompt_ms")):
            given = content.get(key)
            if isinstance(given, dict) and (value := number(given.get(name))) is not None:
                self.server_ttft_ms = value
        timings = content.get("timings")
        if isinstance(timings, dict):
            self.cached = _later(self.cached, timings.get("cache_n"))
            self.server_tpot_ms = _tpot(timings) or self.server_tpot_ms
            # llama.cpp counts here where nobody asked for usage.
            if self.completion is None:
                self.completion = _later(None, timings.get("predicted_n"))

    def usage(self, usage: Any) -> None:
        """One object `usage`, wherever it stood."""
        if not isinstance(usage, dict):
            return
        self.prompt = _later(self.prompt, usage.get("prompt_tokens"))
        self.completion = _later(self.completion, usage.get("completion_tokens"))
        self._most = max(self._most, self.completion or 0)
        self.reasoning = _later(self.reasoning, usage.get("reasoning_tokens"))
        if isinstance(details := usage.get("prompt_tokens_details"), dict):
            self.cached = _later(self.cached, details.get("cached_tokens"))
        if isinstance(details := usage.get("completion_tokens_details"), dict):
            self.reasoning = _later(self.reasoning, details.get("reasoning_tokens"))

    def settle(self, events: int, carried: int) -> None:
        """Once all is read: drop what contradicts `events` of output, or the `carried` tokens that they listed."""
        said: list[str] = []
        n, prompt = self.completion, self.prompt
        if n is not None and (why := self._untrue(n, events, carried)):
            self.completion = None
            said.append(why)
        if prompt == 0:
            self.prompt = None
            said.append("the server counted 0 prompt tokens")
        elif prompt is not None and self.cached is not None and self.cached > prompt:
            said.append(f"the server counted {self.cached} cached of {prompt} prompt tokens")
            self.cached = None
        self.reason = "; ".join(said) or None

    def _untrue(self, n: int, events: int, carried: int) -> str | None:
        if n == 0 and events:
            return f"the server counted 0 output tokens beside {events} event{'s' * (events != 1)} of output"
        if n < self._most:
            return f"the server counted {self._most} output tokens and later {n}"
        # An answer that echoes its prompt lists the prompt's tokens too.
        if carried > n and carried != n + (self.prompt or 0):
            return f"the server counted {n} output tokens while its events list {carried}"
        if events > n + _EXTRA + _EXTRA_SHARE * n:
            return f"the server counted {n} output tokens beside {events} events of output"
        return None


def number(value: Any) -> float | None:
    """A figure within reason, or None."""
    return float(value) if isinstance(value, int | float) and abs(value) < 1e15 else None


def _later(before: int | None, value: Any) -> int | None:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 62:
        return before
    return before if value == 0 and before else value


def _tpot(timings: dict[str, Any]) -> float | None:
    """llama.cpp's time of generation over the tokens after the first, which it counts to the prompt's processing."""
    count, spent = _later(None, timings.get("predicted_n")), number(timings.get("predicted_ms"))
    return spent / (count - 1) if count is not None and count > 1 and spent is not None else None
