"""How launches scatter: one hierarchical model, drawn for many repetitions at once.

A request's time is the launch's level × log-normal noise, and 3 % of requests carry an exponential spike. A launch's
level is the truth × launch noise × what the session does to both arms of a block (a random walk) × what its position in
the block does to it. Everything in log units but the spikes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

Array = np.ndarray


@dataclass(frozen=True, slots=True)
class Noise:
    """Standard deviations in log units; `drift` is the whole session's, `position` what coming second costs."""

    launch_sd: float = 0.02
    drift: float = 0.0
    position: float = 0.0
    contaminated: float = 0.0
    heavy: bool = False
    request_sd: float = 0.06
    spike_share: float = 0.03
    spike_scale: float = 0.5


def medians(
    noise: Noise, repetitions: int, blocks: int, requests: int, ratio: float, seed: int, q: float = 0.5
) -> Array:
    """Log quantiles of both arms, shape (repetitions, blocks, 2); the second arm is slower by `ratio`."""
    draw = np.random.default_rng(seed)
    shape = (repetitions, blocks, 2)
    level = launch_noise(noise, draw, shape)
    if noise.drift:
        steps = draw.normal(0, noise.drift / np.sqrt(blocks), (repetitions, blocks, 1))
        level = level + steps.cumsum(axis=1)
    if noise.position:
        level = level + noise.position * second(draw, repetitions, blocks)
    level[..., 1] += np.log(ratio)
    found = np.empty(shape)
    # In slices: all requests of all repetitions at once would not fit.
    for start in range(0, repetitions, 500):
        part = slice(start, start + 500)
        here = (*level[part].shape, requests)
        times = np.exp(draw.normal(0, noise.request_sd, here))
        times += noise.spike_scale * draw.exponential(1, here) * (draw.random(here) < noise.spike_share)
        found[part] = level[part] + np.log(np.quantile(times, q, axis=-1))
    return found


def launch_noise(noise: Noise, draw: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Normal; or Student t with 3 degrees of freedom of the same spread; a share of launches 10 % slower."""
    level: Array
    if noise.heavy:
        level = draw.standard_t(3, shape) / np.sqrt(3) * noise.launch_sd
    else:
        level = draw.normal(0, noise.launch_sd, shape)
    if noise.contaminated:
        level += np.log(1.1) * (draw.random(shape) < noise.contaminated)
    return level


def second(draw: np.random.Generator, repetitions: int, blocks: int) -> Array:
    """Which arm comes second, as the plan draws it: balanced over pairs of blocks, the order within a pair drawn."""
    first = draw.random((repetitions, (blocks + 1) // 2)) < 0.5
    order = np.stack([first, ~first], axis=-1).reshape(repetitions, -1)[:, :blocks]
    found: np.ndarray[tuple[int, ...], np.dtype[np.bool_]] = np.stack([order, ~order], axis=-1)
    return found.astype(np.float64)
