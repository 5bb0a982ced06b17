"""The trade says what was gained and lost, how sure that is, and why a variant is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bench.analyse import answers
from bench.errors import UsageError
from bench.judge.decide import Verdict
from bench.judge.gate import Judgement, limits
from bench.judge.trade import Change, Trade, reference, trades
from bench.report.claims import of_awq
from tests.judge.recorded import DOCUMENTS, distributions, recorded

MB = 1_000_000
REFERENCE = {"ttft": 100, "noise": 0.0, "weights": 600 * MB}


def test_a_slower_smaller_and_slightly_worse_variant_is_told_as_such(tmp_path: Path) -> None:
    run = recorded(tmp_path, {"bf16": REFERENCE, "awq": {"ttft": 150, "noise": 0.3, "weights": 280 * MB}})
    (trade,) = trades(run)
    assert reference(run) == "bf16"
    assert trade.sentence.startswith("awq: TTFT 50 % slower, sure; ")
    assert "weights on disk −53 %" in trade.sentence
    p, q = (np.concatenate([distributions(at, noise) for at in range(DOCUMENTS)]) for noise in (0.0, 0.3))
    truth = float((np.exp(p) * (p - q)).sum(axis=1).mean())
    assert trade.quality.kl.value == pytest.approx(truth, rel=1e-3)
    told = {finding.claim.split(" ")[0]: finding.holds for finding in of_awq(run, trade)}
    assert told["weights"] == "holds"
    assert [finding.holds for finding in of_awq(run, trade)][1] == "does not hold"


def test_the_same_thing_twice_shows_no_difference_and_no_divergence(tmp_path: Path) -> None:
    run = recorded(tmp_path, {"bf16": REFERENCE, "fp32": REFERENCE})
    (trade,) = trades(run)
    assert trade.quality.kl.value == 0
    assert trade.quality.agreement is not None
    assert trade.quality.agreement.share.value == 1
    perplexity = trade["perplexity"]
    assert perplexity is not None
    assert perplexity.ratio == 1
    assert "TTFT no difference found" in trade.sentence or "sure" in trade.sentence


def test_a_variant_that_cannot_run_stays_in_the_table_with_its_reason(tmp_path: Path) -> None:
    broken = {"status": "unsupported", "kind": "unsupported_quantization", "reason": "no 4-bit kernel here"}
    run = recorded(tmp_path, {"bf16": REFERENCE, "awq": broken})
    (trade,) = trades(run)
    assert trade.sentence == "awq: unsupported: no 4-bit kernel here"
    assert of_awq(run, trade) == ()
    assert "no 4-bit kernel here" in (trade.quality.kl.reason or "")


def test_random_weights_get_no_quality_and_the_reason_why(tmp_path: Path) -> None:
    run = recorded(tmp_path, {"bf16": REFERENCE, "awq": REFERENCE}, source="dummy:ernie-4.5-0.3b")
    found = trades(run)[0].quality
    assert found.kl.value is None
    assert "random" in (found.kl.reason or "")


def test_a_variant_that_was_never_asked_says_so(tmp_path: Path) -> None:
    run = recorded(tmp_path, {"bf16": REFERENCE, "awq": {"ttft": 90, "weights": MB}})
    assert answers.of_variant(run, "awq").reason == "it was not asked"
    assert trades(run)[0].quality.kl.reason == "it was not asked"


def test_one_block_tells_no_speed_but_quality(tmp_path: Path) -> None:
    run = recorded(tmp_path, {"bf16": REFERENCE, "awq": {"ttft": 150, "noise": 0.3}}, blocks=1)
    (trade,) = trades(run)
    assert trade.quality.kl.value is not None
    assert ", sure" not in trade.sentence.partition("; perplexity")[0]


@pytest.mark.parametrize(("most", "verdict"), [(10.0, Verdict.PASS), (0.0001, Verdict.FAIL)], ids=["within", "beyond"])
def test_the_limit_on_divergence_is_judged_and_moves_the_gate(tmp_path: Path, most: float, verdict: Verdict) -> None:
    run = recorded(tmp_path, {"bf16": REFERENCE, "awq": REFERENCE | {"noise": 0.3}}, quality={"max_kl": most})
    (limit,) = limits(run)
    assert limit.verdict is verdict
    assert "is allowed" in limit.reason
    assert Judgement("trade", "run", "host", (), quality=(limit,)).verdict is verdict


def test_a_lower_bound_never_passes_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.judge import recorded as made

    monkeypatch.setattr(made, "documents", lambda noise, whole=True, real=made.documents: real(noise, whole=False))
    run = recorded(tmp_path, {"bf16": REFERENCE, "awq": REFERENCE | {"noise": 0.3}}, quality={"max_kl": 10.0})
    (limit,) = limits(run)
    assert limit.verdict is Verdict.INCONCLUSIVE
    assert "lower bound" in limit.reason


def test_without_a_limit_nothing_is_judged_and_without_quality_the_user_is_told(tmp_path: Path) -> None:
    run = recorded(tmp_path, {"bf16": REFERENCE, "awq": REFERENCE})
    assert limits(run) == ()
    run.__dict__["scenario"] = {"scenario": "trade"}
    with pytest.raises(UsageError, match="asks for no quality"):
        trades(run)


def test_a_trade_without_interval_is_not_shown_to_hold(tmp_path: Path) -> None:
    run = recorded(tmp_path, {"bf16": REFERENCE, "awq": REFERENCE}, blocks=1)
    trade: Trade = trades(run)[0]
    assert [finding.holds for finding in of_awq(run, trade)][1] == "not shown"


@pytest.mark.parametrize(
    ("ratio", "words"),
    [
        (1.12, "tokens/s 12 % more, sure"),
        (1.004, "tokens/s 0.4 % more, sure"),
        (0.993, "tokens/s 0.7 % fewer, sure"),
        (1.0001, "tokens/s the same"),
    ],
)
def test_a_small_change_is_told_with_the_digits_that_it_needs(ratio: float, words: str) -> None:
    change = Change("output_throughput", "tok/s", 10.0, 10 * ratio, ratio, ratio * 0.9999, ratio * 1.0001, "sure")
    assert change.words == words
