"""What launches so far say of the settings that were never launched: a Gaussian process over levers.

Two settings are alike by the levers that stand equally in both, alone and in pairs:

    k(x, y) = scale² · (s + PAIRS · s(s-1)/2 + OWN · [x = y]) + BLOCK² · [same block] + noise² · [same launch]

with s the number of equal levers. So an effect of one lever is learned from every launch that turns it, one of two
together from fewer, and what is a setting's own from its own launches. Values are logarithms. Scale and noise are those
under which the values seen are likeliest (Rasmussen and Williams 2006, chapter 5.4.1), of a few.

A launch that was stopped says only that its value is above a bound. It stands in with the larger of the bound and what
the others predict for it (Hutter, Hoos, Leyton-Brown 2013: imputation), and never with the bound as if measured.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bench.tune.levers import Place

PAIRS, OWN, BLOCK = 0.25, 0.25, 0.03
SCALES, NOISES = (0.05, 0.15, 0.4, 1.0), (0.01, 0.03, 0.1)


@dataclass(frozen=True, slots=True)
class Sight:
    """One launch: where the levers stood, in which block, and the logarithm of what was measured.

    `above`: it was stopped, or failed; the value is only a bound from below.
    """

    place: Place
    block: int
    value: float
    above: bool = False


@dataclass(frozen=True, slots=True)
class Belief:
    """What is believed of some settings, in order: mean and standard deviation of their logarithm."""

    mean: np.ndarray
    sd: np.ndarray


def believe(seen: Sequence[Sight], places: Sequence[Place]) -> Belief:
    """What the launches seen say of these settings; without any that was measured, nothing (mean 0)."""
    known = [one for one in seen if not one.above]
    if known:
        bounds = [one for one in seen if one.above]
        if bounds:
            guess = _posterior(known, [one.place for one in bounds]).mean
            known += [
                Sight(one.place, one.block, max(one.value, float(mean)))
                for one, mean in zip(bounds, guess, strict=True)
            ]
        return _posterior(known, places)
    return _posterior([], places)


def spread(places: Sequence[Place], wanted: int, begun: Sequence[Place]) -> list[Place]:
    """So many of these settings that say most about the rest: each next one is the least known after those before."""
    chosen: list[Place] = []
    while len(chosen) < min(wanted, len(places)):
        sights = [Sight(place, 0, 0.0) for place in (*begun, *chosen)]
        unknown = _posterior(sights, places, fixed=(0.4, 0.03)).sd
        for place in chosen:
            unknown[places.index(place)] = -math.inf
        chosen.append(places[int(np.argmax(np.round(unknown, 9)))])
    return chosen


def _posterior(seen: Sequence[Sight], places: Sequence[Place], fixed: tuple[float, float] | None = None) -> Belief:
    asked = np.array(places).reshape(len(places), -1)
    if not seen:
        unknown = SCALES[-1] * math.sqrt(_alike(asked[:1], asked[:1])[0, 0])
        return Belief(np.zeros(len(places)), np.full(len(places), unknown))
    at = np.array([one.place for one in seen])
    blocks = np.array([one.block for one in seen])
    values = np.array([one.value for one in seen])
    middle = values.mean()
    shape = _alike(at, at)
    same = BLOCK**2 * (blocks[:, None] == blocks[None, :])
    best: tuple[float, float, np.ndarray, np.ndarray] | None = None
    for scale, noise in [fixed] if fixed else itertools.product(SCALES, NOISES):
        factor = np.linalg.cholesky(scale**2 * shape + same + noise**2 * np.eye(len(seen)))
        weights = np.linalg.solve(factor.T, np.linalg.solve(factor, values - middle))
        likely = -0.5 * float((values - middle) @ weights) - float(np.log(np.diag(factor)).sum())
        if best is None or likely > best[0]:
            best = (likely, scale, factor, weights)
    assert best is not None
    _, scale, factor, weights = best
    cross = scale**2 * _alike(asked, at)
    inner = np.linalg.solve(factor, cross.T)
    own = scale**2 * np.diag(_alike(asked[:1], asked[:1]))[0]
    return Belief(middle + cross @ weights, np.sqrt(np.maximum(own - (inner**2).sum(axis=0), 1e-12)))


def _alike(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    equal = (a[:, None, :] == b[None, :, :]).sum(axis=2).astype(float)
    result: np.ndarray = equal + PAIRS * equal * (equal - 1) / 2 + OWN * (equal == a.shape[1])
    return result
