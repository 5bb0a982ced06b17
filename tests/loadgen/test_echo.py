"""What is known of another host's clock is never wrong by more than is said."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bench.loadgen.echo import DRIFT, Echo, best

times = st.integers(0, 10**9)


@given(offset=st.integers(-(10**12), 10**12), there=times, back=times, took=times)
def test_the_offset_is_within_its_doubt_however_the_way_is_divided(
    offset: int, there: int, back: int, took: int
) -> None:
    asked = 10**15
    received = asked + there + offset
    echo = Echo(asked, received, received + took, received + took - offset + back)
    assert echo.way_ns == there + back
    assert abs(echo.offset_ns - offset) <= echo.doubt_ns(echo.heard) + 1


def test_a_way_that_is_as_long_there_as_back_gives_the_offset_itself() -> None:
    assert Echo(0, 1_500, 1_600, 1_100).offset_ns == 1_000


def test_an_old_answer_says_less_than_a_slower_one_of_now() -> None:
    quick, slow = Echo(0, 0, 0, 1_000_000), Echo(10**11, 10**11, 10**11, 10**11 + 4_000_000)
    assert best([quick, slow], 2_000_000) is quick
    now = 10**11 + 4_000_000
    assert best([quick, slow], now) is slow
    assert quick.doubt_ns(now) == 500_000 + round(DRIFT * (now - 1_000_000))
