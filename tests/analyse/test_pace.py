"""The pace of an answer after its first event, and why there is none where it could not be seen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bench.analyse import pace
from bench.analyse.durations import gaps_ms, with_durations
from bench.analyse.metrics import rates_of, samples_of
from bench.record.tables import arrow_schema
from tests.analyse.test_metrics import MS, T0, chunks, request, table


def paced(**changes: Any) -> tuple[Any, str | None]:
    """TPOT of an answer of 8 tokens in 8 events from 50 to 120 ms, and why there is none."""
    given = {"completion_tokens": 8, "chunks": 8, "first_share": 1 / 8, "last_token_ns": T0 + 120 * MS} | changes
    row = table(request(**given)).to_pylist()[0]
    return row["tpot_ms"], row["pace_reason"]


def test_token_by_token_the_first_event_is_one_token() -> None:
    assert paced() == (pytest.approx(10.0), None)
    assert paced(first_share=None) == (pytest.approx(10.0), None)


def test_the_tokens_of_the_first_event_are_taken_out_where_they_are_known() -> None:
    assert paced(first_tokens=5, chunks=4, first_share=5 / 8) == (pytest.approx(70 / 3), None)
    assert paced(first_tokens=101, completion_tokens=108) == (pytest.approx(10.0), None)


@pytest.mark.parametrize(
    "changes",
    [
        {"chunks": 1, "last_token_ns": T0 + 50 * MS},
        {"chunks": 8, "last_token_ns": T0 + 50 * MS},
        {"chunks": 8, "last_token_ns": T0 + 50 * MS + 600_000},
        {"chunks": 8, "first_token_ns": T0 + 200 * MS, "last_token_ns": T0 + 200 * MS + 7 * MS // 5},
        {"chunks": 2, "first_tokens": 8, "last_token_ns": T0 + 51 * MS},
        {"chunks": 8, "completion_tokens": None, "last_token_ns": T0 + 50 * MS},
    ],
)
def test_an_answer_in_one_piece_has_no_pace(changes: dict[str, Any]) -> None:
    assert paced(**changes) == (None, pace.ONE_PIECE)


def test_a_first_event_of_many_tokens_that_nobody_counts_leaves_no_pace() -> None:
    assert paced(chunks=4, first_share=5 / 8) == (None, pace.FIRST_EVENT)
    assert paced(chunks=2, first_share=7 / 8) == (None, pace.FIRST_EVENT)


def test_a_first_event_that_is_small_beside_the_answer_does() -> None:
    long = {"completion_tokens": 128, "chunks": 32, "first_share": 1 / 32, "last_token_ns": T0 + 50 * MS + 1270 * MS}
    assert paced(**long) == (pytest.approx(10.0), None)
    # A long first word among as many events as tokens, or one fewer for the end token, is one token all the same.
    assert paced(first_share=0.5) == (pytest.approx(10.0), None)
    assert paced(chunks=7, first_share=0.5) == (pytest.approx(10.0), None)


def test_why_there_is_no_pace_is_said_also_where_nothing_is_wrong() -> None:
    assert paced(completion_tokens=1, chunks=1, last_token_ns=T0 + 50 * MS) == (None, pace.ONE_TOKEN)
    assert paced(completion_tokens=None) == (None, pace.NO_COUNT)
    assert paced(first_token_ns=None, first_answer_ns=None, first_argument_ns=T0 + 60 * MS) == (None, pace.TOOL_CALL)


def test_every_reason_is_one_of_the_named() -> None:
    assert {paced(completion_tokens=n, chunks=k)[1] for n in (None, 0, 1, 2, 9) for k in (0, 1, 2, 9)} <= {
        None,
        pace.ONE_TOKEN,
        pace.ONE_PIECE,
        pace.NO_COUNT,
        pace.FIRST_EVENT,
    }


def test_no_requests_have_no_pace_and_no_reasons() -> None:
    empty = with_durations(table(request()).slice(0, 0).select(_recorded()))
    assert (empty["tpot_ms"].to_pylist(), empty["pace_reason"].to_pylist()) == ([], [])


def _recorded() -> list[str]:
    names: list[str] = arrow_schema("requests").names
    return names


def test_an_answer_in_one_piece_gives_no_gaps() -> None:
    whole = request(0, chunks=3, last_token_ns=T0 + 50 * MS)
    both = chunks([0, 0, 0, 1, 1], [50.0, 50.0, 50.0, 50.0, 60.0], [None] * 5)
    assert gaps_ms(both, table(whole, request(1))).tolist() == [10.0]


def test_pieces_of_a_tool_call_are_token_bearing() -> None:
    found = gaps_ms(chunks([0, 0, 0], [50.0, 60.0, 75.0], [None] * 3, ["content", "tool", "tool"]), table(request()))
    assert found.tolist() == [10.0, 15.0]


def test_the_first_argument_has_a_figure_of_its_own() -> None:
    rows = table(request(0, first_argument_ns=T0 + 66 * MS), request(1))
    assert samples_of(rows, np.empty(0))["ttfa"].tolist() == [66.0]


def test_a_pace_that_was_not_seen_is_not_one_that_met_its_limit() -> None:
    slow, whole = request(0), request(1, chunks=1, last_token_ns=T0 + 50 * MS)
    assert rates_of(table(slow), {"tpot": 50.0})["slo_attainment"] == 1.0
    assert rates_of(table(slow, whole), {"tpot": 50.0})["slo_attainment"] is None
    assert rates_of(table(slow, whole), {"ttft": 60.0})["slo_attainment"] == 1.0


def test_what_is_missing_is_counted_over_launches_with_its_commonest_reason() -> None:
    whole = {"chunks": 1, "last_token_ns": T0 + 50 * MS}
    gaps = pace.Gaps()
    gaps.add(table(request(0, **whole), request(1, **whole), request(2, measured=False, **whole)))
    gaps.add(table(request(0), request(1, completion_tokens=None, count_reason="the server counted 0"),
                   request(2, error_kind="closed", **whole)))  # fmt: skip
    assert (gaps.answers, gaps.pace) == (4, {pace.ONE_PIECE: 2, pace.NO_COUNT: 1})
    assert gaps.unpaced == "the answer came in one piece (3 of 4 answers)"
    assert gaps.uncounted == "the server counted 0 (1 of 4 answers)"
    assert pace.Gaps().unpaced is None
