"""When a simulated server's tokens come: the script's times with a launch's, a session's and a request's noise on them.

Standard library only. Everything is drawn from the script's seed and the launch's name, in order of arrival.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

from bench.emulate.server.script import Noise, Script


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
