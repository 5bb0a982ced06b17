"""How far one variant's answers are from another's: perplexity, Kullback-Leibler divergence, greedy agreement.

Everything is computed from what was recorded on the served endpoint. The divergence is D(reference ‖ variant) in nats
per token. Where the server gave the whole distribution it is exact; where it gave the likeliest tokens only, those
that both sides named are compared one by one and all others as one lump, which can only lower it: a lower bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bench.analyse.answers import Answers, Reply, Text
from bench.analyse.estimate import Estimate, ratio_of_sums

Kind = Literal["exact", "lower bound"]


@dataclass(frozen=True, slots=True)
class AnswerPair:
    """Two answers to one question. `agreed` counts equal units from the start; `units` is tokens or words."""

    label: str
    name: str
    turn: int
    reference: str
    answer: str
    agreed: int
    length: int
    units: str

    @property
    def equal(self) -> bool:
        """Whether the answers are the same to their ends."""
        return self.reference == self.answer


@dataclass(frozen=True, slots=True)
class Agreement:
    """Greedy answers compared: `share` of equal ones, and units until the first difference over those that differ."""

    pairs: tuple[AnswerPair, ...]
    share: Estimate
    median_until: float | None
    units: str

    @property
    def founding(self) -> tuple[AnswerPair, ...]:
        """The founding use cases, in the order asked."""
        return tuple(pair for pair in self.pairs if pair.label.startswith("founding:"))


@dataclass(frozen=True, slots=True)
class Divergence:
    """One variant against the reference; `perplexity_ratio` is its perplexity over the reference's."""

    variant: str
    against: str
    perplexity: Estimate
    perplexity_ratio: Estimate
    kl: Estimate
    kl_kind: Kind | None
    top1: Estimate
    agreement: Agreement | None
    agreement_reason: str | None = None
    tokens: int = 0
    positions: int = 0


def diverge(reference: Answers, other: Answers) -> Divergence:
    """One variant's answers against the reference's. Null with a reason where something is missing or no number."""
    reason = _unfit(reference, other)
    agreement = _agreement(reference, other)
    lacking = None if agreement else other.reason or reference.reason or "no greedy answers on both sides"
    if reason:
        null = Estimate.null(reason)
        alone = null if _spoilt(other) or other.reason or not other.texts else perplexity(other)
        return Divergence(other.variant, reference.variant, alone, null, null, None, null, agreement, lacking)
    names = [name for name in reference.texts if name in other.texts]
    pairs = [(reference.texts[name], other.texts[name]) for name in names]
    counts = [len(theirs.logprobs) for theirs, _ in pairs]
    excess = [float(theirs.logprobs.sum() - ours.logprobs.sum()) for theirs, ours in pairs]
    kl, kind, positions = divergence(pairs)
    return Divergence(
        other.variant,
        reference.variant,
        perplexity(other),
        ratio_of_sums(excess, counts).exp(),
        kl,
        kind,
        _top1(pairs),
        agreement,
        lacking,
        sum(counts),
        positions,
    )


def perplexity(answers: Answers) -> Estimate:
    """exp of the mean negative log-probability per token, with its interval over documents."""
    texts = answers.texts.values()
    return ratio_of_sums([-float(text.logprobs.sum()) for text in texts], [len(text.logprobs) for text in texts]).exp()


def divergence(pairs: list[tuple[Text, Text]]) -> tuple[Estimate, Kind | None, int]:
    """D(reference ‖ other), whether exact, and at how many positions it was taken."""
    if pairs and all(_same_grid(*pair) for pair in pairs):
        rows = [
            exact(theirs.full, ours.full) for theirs, ours in pairs if theirs.full is not None and ours.full is not None
        ]
        kind: Kind = "exact"
    else:
        if not all(theirs.tops and ours.tops for theirs, ours in pairs):
            return Estimate.null("the server names no alternatives to the prompt's tokens"), None, 0
        rows = [bound(theirs.tops, ours.tops) for theirs, ours in pairs]
        kind = "lower bound"
    if not all(np.isfinite(row).all() for row in rows):
        return (
            Estimate.null("a log-probability is not a number, or a token that the reference allows is impossible"),
            None,
            0,
        )
    count = sum(len(row) for row in rows)
    return ratio_of_sums([float(row.sum()) for row in rows], [len(row) for row in rows]), kind, count


def exact(reference: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float64]:
    """Divergence at each position from rows of log-probabilities over the whole vocabulary.

    Σ p·(ln p − ln q) − p + q: the last two sum to zero for true distributions; for rounded ones they keep the result
    from being negative, and its error of second order in the rounding.
    """
    log_p, log_q = reference.astype(float), other.astype(float)
    p, q = np.exp(log_p), np.exp(log_q)
    with np.errstate(invalid="ignore"):
        terms = np.where(p > 0, p * (log_p - log_q), 0.0) - p + q
    # A NaN on the reference's side would vanish in the comparison above.
    terms = np.where(np.isnan(log_p), np.nan, terms)
    result: NDArray[np.float64] = terms.sum(axis=1)
    return result


def bound(reference: tuple[Mapping[str, float], ...], other: tuple[Mapping[str, float], ...]) -> NDArray[np.float64]:
    """A lower bound at each position from the likeliest tokens of both sides.

    Lumping outcomes together never raises a divergence (the log-sum inequality: Cover and Thomas, 2.7.1).
    """
    found = []
    for ours, theirs in zip(reference, other, strict=True):
        shared = [token for token in ours if token in theirs]
        log_p = np.array([ours[token] for token in shared], float)
        log_q = np.array([theirs[token] for token in shared], float)
        p, q = np.exp(log_p), np.exp(log_q)
        rest_p, rest_q = max(0.0, 1 - p.sum()), max(0.0, 1 - q.sum())
        total = float((p * (log_p - log_q)).sum())
        # Below what rounding leaves of a sum of twenty, the lump says nothing.
        if rest_p > 1e-6 and rest_q > 1e-6:
            total += rest_p * float(np.log(rest_p / rest_q))
        found.append(max(0.0, total) if np.isfinite(total) else total)
    return np.array(found)


def _same_grid(theirs: Text, ours: Text) -> bool:
    return theirs.full is not None and ours.full is not None and theirs.positions == ours.positions


def _top1(pairs: list[tuple[Text, Text]]) -> Estimate:
    """Share of positions at which both sides find the same token likeliest."""
    if not all(theirs.tops and ours.tops for theirs, ours in pairs):
        return Estimate.null("the server names no alternatives to the prompt's tokens")
    best = [
        [max(a, key=a.__getitem__) == max(b, key=b.__getitem__) for a, b in zip(theirs.tops, ours.tops, strict=True)]
        for theirs, ours in pairs
    ]
    return ratio_of_sums([float(sum(row)) for row in best], [len(row) for row in best])


def _unfit(reference: Answers, other: Answers) -> str | None:
    """Why the log-probabilities of two variants cannot be compared."""
    for side, name in ((other, "it"), (reference, f"the reference {reference.variant}")):
        if side.launch is None or not side.texts:
            said = side.reason or "no text was read"
            return said if name == "it" else f"{name}: {said}"
        if spoilt := _spoilt(side):
            return spoilt if name == "it" else f"{name}: {spoilt}"
    for name, theirs in reference.texts.items():
        ours = other.texts.get(name)
        if ours is None:
            continue
        sizes = [None if text.full is None else text.full.shape[1] for text in (theirs, ours)]
        if (
            theirs.ids != ours.ids
            or len(theirs.logprobs) != len(ours.logprobs)
            or (None not in sizes and sizes[0] != sizes[1])
        ):
            return f"its tokenizer is not the reference's ({name} reads differently): the numbers would lie"
    if not set(reference.texts) & set(other.texts):
        return "it and the reference were asked different questions"
    return None


def _spoilt(answers: Answers) -> str | None:
    bad = sum(not np.isfinite(text.logprobs).all() for text in answers.texts.values())
    return f"log-probabilities that are not numbers in {bad} of {len(answers.texts)} texts" if bad else None


def _agreement(reference: Answers, other: Answers) -> Agreement | None:
    pairs = tuple(
        _pair(theirs, other.replies[key]) for key, theirs in reference.replies.items() if key in other.replies
    )
    if not pairs:
        return None
    until = [pair.agreed for pair in pairs if not pair.equal]
    share = ratio_of_sums([float(pair.equal) for pair in pairs], [1.0] * len(pairs))
    if share.low is not None and share.high is not None:
        share = Estimate(share.value, max(0.0, share.low), min(1.0, share.high), share.n)
    units = "tokens" if all(pair.units == "tokens" for pair in pairs if pair.label == "greedy") else "words"
    return Agreement(pairs, share, float(np.median(until)) if until else None, units)


def _pair(theirs: Reply, ours: Reply) -> AnswerPair:
    by_token = theirs.tokens is not None and ours.tokens is not None
    a, b = (theirs.tokens or (), ours.tokens or ()) if by_token else (theirs.words, ours.words)
    agreed = next((at for at, (one, two) in enumerate(zip(a, b, strict=False)) if one != two), min(len(a), len(b)))
    units = "tokens" if by_token else "words"
    return AnswerPair(theirs.label, theirs.name, theirs.turn, theirs.text, ours.text, agreed, len(a), units)
