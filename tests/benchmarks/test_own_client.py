"""The gate of our own client goes red where the client gets worse, and stays green where it does not."""

from __future__ import annotations

from bench.judge.decide import Verdict
from tests.benchmarks.own_client import judged

USUAL = [{"cost": 1.0 + 0.02 * (n % 5), "error_one": 0.5 + 0.05 * (n % 4)} for n in range(12)]


def test_a_usual_session_passes() -> None:
    found = judged({"cost": 1.03, "error_one": 0.55}, USUAL)
    assert {name: one.verdict for name, one in found.items()} == {"cost": Verdict.PASS, "error_one": Verdict.PASS}


def test_a_client_that_costs_half_as_much_again_fails() -> None:
    assert judged({"cost": 1.5}, USUAL)["cost"].verdict is Verdict.FAIL


def test_too_few_sessions_give_no_verdict() -> None:
    assert judged({"cost": 9.0}, USUAL[:9]) == {}
