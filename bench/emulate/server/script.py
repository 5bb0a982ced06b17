"""What a simulated server is told to do, and when its tokens come: the script's times with noise on them.

Standard library only. Everything is drawn from the script's seed and the launch's name, in order of arrival.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field, fields, replace
from typing import Any

TRANSFERS = ("chunked", "length", "close")
FAULTS = (
    "http_429",
    "http_500",
    "not_http",
    "reset",
    "stall",
    "close_early",
    "bad_chunk_size",
    "malformed_sse",
    "malformed_json",
    "invalid_utf8",
    "error_event",
    "gigantic_line",
    "no_usage",
    "no_end",
    "zero_tokens",
)


@dataclass(frozen=True)
class Noise:
    """Where the times vary: by launch, over the session, by position in the block, by request; shares of the time."""

    launch_sd: float = 0.0
    drift_per_block: float = 0.0
    per_position: float = 0.0
    request_sd: float = 0.0
    spike_probability: float = 0.0
    spike_scale: float = 0.5
    seed: int = 0


@dataclass(frozen=True)
class Script:
    """What the server does. Times in ms; a request's own `simulate` object overrides any field for that request."""

    ttft_ms: float = 50.0
    itl_ms: float = 5.0
    # added per prompt token, and once to the first requests of a launch, fading by half with each request
    prefill_ms_per_token: float = 0.0
    cold_ms: float = 0.0
    # multiplies all response times: a known slowdown
    slowdown: float = 1.0
    jitter_ms: float = 0.0
    tokens_per_chunk: int = 1
    role_first: bool = False
    # how long before the first token the role comes
    role_lead_ms: float = 0.0
    reasoning_tokens: int = 0
    reasoning_field: str = "reasoning_content"
    sse_comments: int = 0
    crlf: bool = False
    headers_ms: float = 0.0
    headers_with_first: bool = False
    # chunked, length (Content-Length known beforehand) or close (the body ends with the connection)
    transfer: str = "chunked"
    # send everything in pieces of so many bytes, this far apart
    split_bytes: int = 0
    split_gap_ms: float = 0.0
    close_after: bool = False
    idle_close_ms: float = 0.0
    continuous_usage: bool = False
    prefix_cache: bool = False
    # tokens that the prefix cache keeps together
    prefix_block: int = 1
    server_ttft: bool = False
    text: str | None = None
    # how likely it holds its answer to be, in nats, where it is asked and does not stream
    logprob: float = -1.0
    fault: str | None = None
    fault_share: float = 1.0
    fault_after: int = 2
    never_ready: bool = False
    start_phases_ms: dict[str, float] = field(default_factory=dict)
    vocab_size: int = 32000
    noise: Noise = field(default_factory=Noise)


class BadScript(ValueError):
    """A script that says something unknown or impossible."""


def script(given: dict[str, Any], base: Script | None = None) -> Script:
    """A script from plain data; BadScript names the first thing wrong with it."""
    made: Script = _filled(base or Script(), given, "")
    if made.fault is not None and made.fault not in FAULTS:
        raise BadScript(f"fault must be one of {', '.join(FAULTS)}: {made.fault!r}")
    if made.transfer not in TRANSFERS:
        raise BadScript(f"transfer must be one of {', '.join(TRANSFERS)}: {made.transfer!r}")
    for name in ("tokens_per_chunk", "prefix_block"):
        if getattr(made, name) < 1:
            raise BadScript(f"{name} must be at least 1")
    return made


def _filled(base: Any, given: dict[str, Any], where: str) -> Any:
    """The dataclass with the given fields replaced, each checked against the kind of its default."""
    known = {one.name for one in fields(base)}
    if unknown := sorted(set(given) - known):
        raise BadScript(f"{where}unknown: {', '.join(unknown)}; there are {', '.join(sorted(known))}")
    # The defaults say what kind a field is; the base may hold a whole number where any will do.
    defaults, values = type(base)(), dict(given)
    for name, value in given.items():
        default = getattr(defaults, name)
        if isinstance(default, Noise) and isinstance(value, dict):
            values[name] = _filled(getattr(base, name), value, f"{name}.")
        else:
            _check(where + name, default, value)
    return replace(base, **values)


def _check(name: str, default: Any, value: Any) -> None:
    if isinstance(default, Noise):
        raise BadScript(f"{name} must be a mapping: {value!r}")
    if isinstance(default, dict):
        if not isinstance(value, dict) or not all(_number(one) for one in value.values()):
            raise BadScript(f"{name} must map names to numbers: {value!r}")
    elif isinstance(default, bool):
        if not isinstance(value, bool):
            raise BadScript(f"{name} must be true or false: {value!r}")
    elif isinstance(default, int):
        if not _number(value) or not isinstance(value, int):
            raise BadScript(f"{name} must be a whole number, not negative: {value!r}")
    elif isinstance(default, float):
        if not _number(value):
            raise BadScript(f"{name} must be a number, not negative: {value!r}")
    elif value is not None and not isinstance(value, str):
        raise BadScript(f"{name} must be text: {value!r}")


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


@dataclass(frozen=True)
class Pace:
    """One answer's times: to the first token, and from each token to the next, ms."""

    first_ms: float
    itl_ms: float
    jitter_ms: float
    draw: random.Random

    def gap_ms(self) -> float:
        """Time to the next token."""
        if not self.jitter_ms:
            return self.itl_ms
        return max(0.0, self.itl_ms + self.draw.uniform(-self.jitter_ms, self.jitter_ms))


class Timing:
    """The times of one launch. `block` and `position` place it in the session."""

    def __init__(self, noise: Noise, launch: str, block: int = 0, position: int = 0) -> None:
        self._noise = noise
        self._draw = random.Random(f"{noise.seed}/{launch}")
        drift = (1 + noise.drift_per_block * block) * (1 + noise.per_position * position)
        self._launch = math.exp(self._draw.gauss(0, noise.launch_sd)) * drift
        self._served = 0

    def pace(self, plan: Script, prompt_tokens: int) -> Pace:
        """The times of the next answer."""
        noise, draw = self._noise, random.Random(self._draw.random())
        factor = self._launch * plan.slowdown * math.exp(draw.gauss(0, noise.request_sd))
        if draw.random() < noise.spike_probability:
            factor *= 1 + draw.expovariate(1.0) * noise.spike_scale
        base = plan.ttft_ms + plan.prefill_ms_per_token * prompt_tokens
        cold = plan.cold_ms * 0.5**self._served
        self._served += 1
        jitter = draw.uniform(-plan.jitter_ms, plan.jitter_ms) if plan.jitter_ms else 0.0
        first = max(0.0, base * factor + cold + jitter)
        return Pace(first, plan.itl_ms * self._launch * plan.slowdown, plan.jitter_ms, draw)

    def faulty(self, plan: Script) -> bool:
        """Whether the next request meets the script's fault."""
        return plan.fault is not None and self._draw.random() < plan.fault_share
