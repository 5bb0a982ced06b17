from hypothesis import given
from hypothesis import strategies as st

from bench.loadgen.body import Event, Events
from tests.loadgen.responses import cut

LINES = st.sampled_from(
    [
        b"data: {}",
        b"data:",
        b"data:x",
        b": ping",
        b"event: error",
        b"id: 7",
        b"nonsense",
        b"",
        b"data: \xff",
        b"\xef\xbb\xbf",
    ]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
STREAMS = st.lists(st.tuples(LINES, ENDS)).map(lambda parts: b"".join(line + end for line, end in parts))


def events(pieces: list[bytes]) -> list[Event]:
    reader = Events()
    found = [event for piece in pieces for event in reader.feed(piece)]
    return found + reader.end()


def test_each_kind_of_line_ending_ends_an_event() -> None:
    for end in (b"\n", b"\r\n", b"\r"):
        assert events([b"data: a" + end + end + b"data: b" + end + end]) == [Event(b"a"), Event(b"b")]


def test_data_lines_of_one_event_are_joined_and_one_space_is_taken_off() -> None:
    assert events([b"data: a\ndata:  b\ndata:c\n\n"]) == [Event(b"a\n b\nc")]


def test_a_comment_is_an_event_without_data() -> None:
    assert events([b": ping\n\n"]) == [Event(None)]


def test_the_name_of_an_event_is_kept() -> None:
    assert events([b'event: error\ndata: {"a": 1}\n\n']) == [Event(b'{"a": 1}', "error")]


def test_a_line_that_is_no_field_is_shown() -> None:
    assert events([b"oops\ndata: a\n\n"]) == [Event(b"a", None, b"oops")]


def test_a_byte_order_mark_at_the_start_is_no_part_of_the_first_line() -> None:
    assert events([b"\xef\xbb", b"\xbfdata: a\n\n"]) == [Event(b"a")]


def test_an_event_counts_only_once_its_blank_line_is_there() -> None:
    reader = Events()
    assert reader.feed(b"data: a\n") == []
    assert reader.feed(b"\n") == [Event(b"a")]


def test_a_stream_that_stops_short_of_its_last_blank_line_still_gives_the_event() -> None:
    assert events([b"data: [DONE]\n"]) == [Event(b"[DONE]")]
    assert events([b"data: [DONE]"]) == [Event(b"[DONE]")]


def test_a_gigantic_line_in_many_pieces_takes_time_in_proportion_to_its_length() -> None:
    reader = Events()
    for _ in range(2000):
        reader.feed(b"x" * 5000)
    assert reader.feed(b"\n\n") == [Event(None, None, b"x" * 10_000_000)]


@given(STREAMS, st.lists(st.integers(0, 200)))
def test_it_does_not_matter_where_the_bytes_were_split(data: bytes, at: list[int]) -> None:
    assert events(cut(data, at)) == events([data])


@given(st.binary(max_size=300), st.lists(st.integers(0, 300)))
def test_any_bytes_are_read_without_complaint(data: bytes, at: list[int]) -> None:
    assert events(cut(data, at)) == events([data])
