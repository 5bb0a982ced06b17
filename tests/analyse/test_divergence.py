"""Divergence, perplexity and agreement agree with their definitions, and refuse what they cannot know."""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.analyse.answers import Answers, Reply, Text, read_text
from bench.analyse.divergence import bound, diverge, exact
from bench.analyse.estimate import ratio_of_sums

VOCABULARY = 50


def log_softmax(logits: Any) -> Any:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def text(name: str, seed: int, *, noise: float = 0.0, vocabulary: int = VOCABULARY, tops: int = VOCABULARY) -> Text:
    """A text of ten tokens under a random model, moved a little by noise."""
    drawn = np.random.default_rng(seed)
    ids = tuple(int(token) for token in drawn.integers(0, 40, 10))
    logits = drawn.normal(0, 3, (9, vocabulary))
    rows = log_softmax(logits + noise * np.random.default_rng(seed + 1000).normal(0, 1, logits.shape))
    values = np.array([row[token] for row, token in zip(rows, ids[1:], strict=True)])
    best = tuple({str(at): float(row[at]) for at in np.argsort(row)[::-1][:tops]} for row in rows)
    return Text(name, values, ids, best, tuple(range(9)), rows.astype(np.float32))


def answers(variant: str, texts: list[Text], replies: list[Reply] | None = None) -> Answers:
    return Answers(
        variant,
        f"000-00-{variant}",
        {one.name: one for one in texts},
        {(one.label, one.name, one.turn): one for one in replies or []},
    )


def side(variant: str, **how: Any) -> Answers:
    return answers(variant, [text(f"doc-{seed}", seed, **how) for seed in range(8)])


def test_a_variant_against_itself_has_no_divergence_and_a_ratio_of_one() -> None:
    same = diverge(side("a"), side("b"))
    assert same.kl.value == 0
    assert (same.kl.low, same.kl.high) == (0, 0)
    assert same.kl_kind == "exact"
    assert same.perplexity_ratio.value == 1
    assert same.top1.value == 1


def test_divergence_and_perplexity_are_what_their_definitions_say() -> None:
    reference, other = side("a"), side("b", noise=0.5)
    found = diverge(reference, other)
    wanted, nll = [], []
    for name, theirs in reference.texts.items():
        assert theirs.full is not None
        log_p = np.array([[row[str(at)] for at in range(VOCABULARY)] for row in theirs.tops])
        log_q = np.array([[row[str(at)] for at in range(VOCABULARY)] for row in other.texts[name].tops])
        wanted += list((np.exp(log_p) * (log_p - log_q)).sum(axis=1))
        nll += list(-other.texts[name].logprobs)
    assert found.kl.value == pytest.approx(np.mean(wanted), rel=1e-3)
    assert found.perplexity.value == pytest.approx(math.exp(np.mean(nll)), rel=1e-12)
    assert found.kl.low is not None
    assert found.kl.high is not None
    assert found.kl.low < np.mean(wanted) < found.kl.high
    assert (found.tokens, found.positions) == (72, 72)


def test_with_the_likeliest_tokens_only_the_divergence_is_bounded_from_below() -> None:
    whole = diverge(side("a"), side("b", noise=0.5))
    few = [
        answers(name, [Text(t.name, t.logprobs, t.ids, t.tops) for t in side(name, tops=5, **how).texts.values()])
        for name, how in (("a", {}), ("b", {"noise": 0.5}))
    ]
    bounded = diverge(*few)
    assert bounded.kl_kind == "lower bound"
    assert bounded.kl.value is not None
    assert whole.kl.value is not None
    assert 0 < bounded.kl.value <= whole.kl.value
    assert bounded.perplexity == whole.perplexity


@given(st.integers(0, 10_000), st.floats(0, 2), st.integers(1, VOCABULARY))
def test_the_bound_never_exceeds_the_truth(seed: int, noise: float, tops: int) -> None:
    p, q = text("x", seed), text("x", seed, noise=noise)
    few_p, few_q = text("x", seed, tops=tops), text("x", seed, noise=noise, tops=tops)
    log_p = np.array([[row[str(at)] for at in range(VOCABULARY)] for row in p.tops])
    log_q = np.array([[row[str(at)] for at in range(VOCABULARY)] for row in q.tops])
    truth = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
    assert (bound(few_p.tops, few_q.tops) <= truth + 1e-6).all()


@given(st.integers(0, 10_000), st.floats(0, 2))
def test_rounding_never_makes_a_divergence_negative_and_hardly_changes_it(seed: int, noise: float) -> None:
    p, q = text("x", seed), text("x", seed, noise=noise)
    assert p.full is not None
    assert q.full is not None
    rounded = exact(*(np.round(side * 2048).astype(np.float32) / np.float32(2048) for side in (p.full, q.full)))
    truth = exact(p.full, q.full)
    assert (rounded > -1e-12).all()
    # To first order the error is that of two log-probabilities, weighted by how far these are apart.
    assert (abs(rounded - truth) <= 5e-4 * np.sqrt(2 * abs(truth)) + 3e-7).all()


def test_another_tokenizer_is_refused() -> None:
    foreign = Text("doc-0", np.zeros(9) - 1, (1,) * 10, text("doc-0", 0).tops)
    found = diverge(side("a"), answers("b", [foreign]))
    assert found.kl.value is None
    assert found.perplexity_ratio.value is None
    assert "tokenizer" in (found.kl.reason or "")


def test_another_vocabulary_is_refused() -> None:
    narrow = diverge(side("a"), side("b", vocabulary=45, tops=45))
    assert "tokenizer" in (narrow.kl.reason or "")


@pytest.mark.parametrize("spoilt", ["reference", "variant"])
def test_log_probabilities_that_are_not_numbers_give_no_figure(spoilt: str) -> None:
    bad = text("doc-0", 0)
    bad.logprobs[3] = np.nan
    sides = [side("a"), side("b")]
    sides[spoilt == "variant"] = answers("ab"[spoilt == "variant"], [bad, text("doc-1", 1)])
    found = diverge(*sides)
    assert found.kl.value is None
    assert "1 of 2 texts" in (found.kl.reason or "")
    assert (found.perplexity.value is None) == (spoilt == "variant")


def test_a_distribution_that_is_not_a_number_gives_no_divergence_but_perplexity() -> None:
    bad = text("doc-0", 0)
    assert bad.full is not None
    bad.full[2, 5] = np.nan
    found = diverge(answers("a", [text("doc-0", 0)]), answers("b", [bad]))
    assert found.kl.value is None
    assert found.perplexity.value is not None


def test_a_server_without_log_probabilities_still_has_its_agreement() -> None:
    said = [
        Reply("doc-0", "greedy", 0, "one two three four", None),
        Reply("x", "founding:manual-zh", 0, "请先关闭电源", None),
    ]
    other = [
        Reply("doc-0", "greedy", 0, "one two trees four", None),
        Reply("x", "founding:manual-zh", 0, "请先关闭电源", None),
    ]
    mute = Answers("b", "000-01-b", {}, answers("b", [], other).replies, "the server gives no log-probabilities")
    found = diverge(answers("a", [text("doc-0", 0)], said), mute)
    assert found.kl.reason == "the server gives no log-probabilities"
    assert found.agreement is not None
    assert found.agreement.share.value == 0.5
    assert (found.agreement.median_until, found.agreement.units) == (2, "words")
    assert [pair.equal for pair in found.agreement.founding] == [True]


def test_agreement_counts_tokens_where_both_sides_name_them() -> None:
    a = [Reply("d", "greedy", 0, "abcd", ("ab", "c", "d"))]
    b = [Reply("d", "greedy", 0, "abxd", ("ab", "x", "d"))]
    found = diverge(answers("a", [text("d", 0)], a), answers("b", [text("d", 0)], b))
    assert found.agreement is not None
    assert (found.agreement.median_until, found.agreement.units) == (1, "tokens")


def test_an_interval_is_over_documents_and_covers_the_truth_as_often_as_it_says() -> None:
    drawn = np.random.default_rng(5)
    covered = 0
    for _ in range(400):
        weights = drawn.integers(50, 150, 18).astype(float)
        estimate = ratio_of_sums(list(weights * drawn.normal(2.0, 0.5, 18)), list(weights))
        assert estimate.low is not None
        assert estimate.high is not None
        covered += estimate.low <= 2.0 <= estimate.high
    assert 0.92 <= covered / 400 <= 0.98


def test_one_document_has_no_interval_and_none_has_no_value() -> None:
    assert (ratio_of_sums([2.0], [1.0]).value, ratio_of_sums([2.0], [1.0]).low) == (2.0, None)
    assert ratio_of_sums([], []).reason == "no documents"


def document(**changes: Any) -> dict[str, Any]:
    entries = [None, {"7": {"logprob": -0.5, "rank": 1}, "3": {"logprob": -2.0, "rank": 2}}, {"3": {"logprob": -1.5}}]
    return {"prompt": [1, 7, 3], "prompt_logprobs": entries, **changes}


def test_both_forms_of_prompt_log_probabilities_are_read() -> None:
    by_ids = read_text("d", document())
    assert by_ids is not None
    assert list(by_ids.logprobs) == [-0.5, -1.5]
    assert by_ids.tops[0] == {"7": -0.5, "3": -2.0}
    echoed = {
        "prompt": "a b c",
        "token_logprobs": [None, -0.5, -1.5, -9.0],
        "top_logprobs": [None, {" b": -0.5}, {" c": -1.5}, {"!": -9.0}],
    }
    by_text = read_text("d", echoed)
    assert by_text is not None
    assert list(by_text.logprobs) == [-0.5, -1.5]
    assert by_text.tops == ({" b": -0.5}, {" c": -1.5})
    assert read_text("d", {"prompt": "a b c", "token_logprobs": [-0.5]}) is None


def test_whole_distributions_are_unpacked_and_damaged_ones_left_aside() -> None:
    steps = np.array([[0, 2048, 4096], [65535, 1, 65534]], "<u2")
    good = {"positions": [0, 1], "vocabulary": 3, "steps": 2048, "data": base64.b64encode(steps.tobytes()).decode()}
    read = read_text("d", document(prompt_distributions=good))
    assert read is not None
    assert read.full is not None
    assert list(read.full[0]) == [0.0, -1.0, -2.0]
    assert np.isnan(read.full[1, 0])
    assert read.full[1, 2] == pytest.approx(-32, abs=0.001)
    for damage in ({"vocabulary": 4}, {"data": "%%"}, {"positions": None}):
        hurt = read_text("d", document(prompt_distributions=good | damage))
        assert hurt is not None
        assert hurt.full is None


def test_a_missing_or_null_token_is_not_a_number_rather_than_zero() -> None:
    entries = [None, {"9": {"logprob": -0.5}}, {"3": {"logprob": None}}]
    read = read_text("d", document(prompt_logprobs=entries))
    assert read is not None
    assert np.isnan(read.logprobs).all()
