"""Which token comes next, and how likely each was."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

STEPS, NAN = 2048, 65535


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; temperature 0 takes the likeliest."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int | None = None


@dataclass(frozen=True)
class Likelihood:
    """A token's log-probability under the whole vocabulary, its rank from 1, and the likeliest tokens with theirs."""

    token: int
    logprob: float
    rank: int
    top: tuple[tuple[int, float], ...]


def generator(sampling: Sampling, device: torch.device) -> torch.Generator | None:
    """The request's own source of randomness, if it draws at all."""
    if sampling.temperature <= 0:
        return None
    source = torch.Generator(device=device)
    if sampling.seed is None:
        source.seed()
    else:
        source.manual_seed(sampling.seed)
    return source


def pick(logits: torch.Tensor, sampling: Sampling, source: torch.Generator | None, forbidden: Sequence[int]) -> int:
    """One token from a row of float32 logits."""
    if forbidden:
        logits = logits.clone()
        logits[list(forbidden)] = -torch.inf
    if source is None:
        return int(logits.argmax())
    logits = logits / sampling.temperature
    if sampling.top_k and sampling.top_k < logits.numel():
        logits = logits.masked_fill(logits < torch.topk(logits, sampling.top_k).values[-1], -torch.inf)
    chances = logits.softmax(-1)
    if sampling.top_p < 1:
        ranked, order = chances.sort(descending=True)
        # A token stays while those before it have not yet reached top_p: the likeliest one always does.
        ranked = ranked.masked_fill(ranked.cumsum(-1) - ranked >= sampling.top_p, 0)
        return int(order[torch.multinomial(ranked, 1, generator=source)])
    return int(torch.multinomial(chances, 1, generator=source))


def likelihoods(logits: torch.Tensor, tokens: Sequence[int], top: int) -> list[Likelihood]:
    """For each row of logits the given token's likelihood, normalised over the whole vocabulary in float32."""
    found: list[Likelihood] = []
    # In slices: a row holds the whole vocabulary, and a document has hundreds of rows.
    for begin in range(0, len(tokens), 128):
        rows = logits[begin : begin + 128].float().log_softmax(-1)
        wanted = torch.tensor(tokens[begin : begin + 128], device=rows.device)
        chosen = rows.gather(-1, wanted[:, None])
        ranks = (rows > chosen).sum(-1) + 1
        best = rows.topk(min(top, rows.shape[-1]), dim=-1)
        found += [
            Likelihood(token, logprob, rank, tuple(zip(ids, values, strict=True)))
            for token, logprob, rank, ids, values in zip(
                wanted.tolist(),
                chosen[:, 0].tolist(),
                ranks.tolist(),
                best.indices.tolist(),
                best.values.tolist(),
                strict=True,
            )
        ]
    return found


def distributions(logits: torch.Tensor, positions: Sequence[int]) -> dict[str, Any]:
    """The log-probabilities of the whole vocabulary at some positions, a row each, in base64.

    −ln p times 2048 as little-endian uint16: equal steps down to e⁻³² keep a mean divergence of 10⁻⁴ right to
    a thousandth, which float16, coarser where most tokens lie, does not. 65535 is a NaN.
    """
    rows = logits[list(positions)].float().log_softmax(-1)
    steps = (-rows * STEPS).round().clamp(0, NAN - 1).masked_fill(rows.isnan(), NAN)
    data = base64.b64encode(steps.int().cpu().numpy().astype("<u2").tobytes()).decode()
    return {"positions": list(positions), "vocabulary": rows.shape[-1], "steps": STEPS, "data": data}
