"""What a canary's stamps mean: the same as in a run, whose limits they are held against."""

from __future__ import annotations

from typing import Any

import pytest

from bench.service.canary import Outcome
from bench.service.detector import Detector

MS = 1_000_000


def outcome(**stamps: Any) -> Outcome:
    row = {"sent_ns": 1000 * MS, "sent_end_ns": 1001 * MS, "first_token_ns": 1040 * MS, "first_chunk_ns": 1030 * MS}
    return Outcome("warm", "ok", row | stamps, 10, 0.1)


def test_the_first_token_is_counted_from_the_sending_as_in_a_run() -> None:
    assert outcome().ttft_ms == 40.0
    assert outcome().since_sent_ms("first_chunk_ns") == 30.0
    assert outcome(first_token_ns=None).ttft_ms is None


def test_an_answer_that_came_before_a_slow_client_had_noted_its_sending_is_still_a_time() -> None:
    """A busy machine may take the processor away between the sending and its stamp."""
    late = outcome(sent_end_ns=1050 * MS)
    assert late.ttft_ms == 40.0
    detector = Detector(100.0)
    assert detector.take(late.ttft_ms or 0.0, 0.5) is False
    assert detector.seen == 1


def test_one_that_failed_has_no_first_token() -> None:
    failed = Outcome("warm", "closed", {"sent_ns": 0, "first_token_ns": 5 * MS}, 10, 0.1)
    assert failed.ttft_ms is None
    assert failed.since_sent_ms("first_token_ns") == pytest.approx(5.0)
