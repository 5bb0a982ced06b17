"""Text of a growing sequence, with a byte-level tokenizer made here: no torch is needed for it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from bench.programs.transformers_server.detokenizer import Detokenizer, Stops

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())
BYTES = Tokenizer(models.BPE(vocab={token: index for index, token in enumerate(ALPHABET)}, merges=[]))
BYTES.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
BYTES.decoder = decoders.ByteLevel()


def decode(ids: Sequence[int]) -> str:
    text: str = BYTES.decode(list(ids))
    return text


def encode(text: str) -> list[int]:
    ids: list[int] = BYTES.encode(text).ids
    return ids


def stream(ids: Sequence[int], prompt: str = "prompt") -> list[str]:
    text = Detokenizer(decode, encode(prompt))
    return [*(text.push(token) for token in ids), text.flush()]


def test_ascii_comes_a_token_at_a_time() -> None:
    assert stream(encode("abc")) == ["a", "b", "c", ""]


def test_a_character_comes_when_its_last_byte_does() -> None:
    assert stream(encode("é你🙂")) == ["", "é", "", "", "你", "", "", "", "🙂", ""]


def test_a_prompt_that_ends_inside_a_character_spoils_nothing() -> None:
    text = Detokenizer(decode, encode("你")[:2])
    assert [text.push(token) for token in encode("ok")] == ["o", "k"]


def test_a_character_that_stays_broken_is_shown_as_such_at_the_end() -> None:
    assert stream(encode("a你")[:3]) == ["a", "", "", "\ufffd"]


def test_bytes_that_never_become_a_character_are_not_held_for_ever() -> None:
    broken = encode("é")[1:] * 12
    pieces = stream(broken)
    assert "".join(pieces).count("\ufffd") == 12
    assert max(len(piece) for piece in pieces) <= 4


@given(st.text(max_size=40))
def test_the_pieces_are_the_text(text: str) -> None:
    assert "".join(stream(encode(text))) == text


@given(st.lists(st.integers(min_value=0, max_value=255), max_size=40))
def test_any_bytes_at_all_give_text_and_no_error(ids: list[int]) -> None:
    pieces = stream(ids)
    assert all(isinstance(piece, str) for piece in pieces)


def cut(stops: list[str], pieces: list[str]) -> tuple[str, bool]:
    cutter = Stops(stops)
    shown = ""
    for number, piece in enumerate(pieces, start=1):
        text, stopped = cutter.push(piece, last=number == len(pieces))
        shown += text
        if stopped:
            return shown, True
    return shown, False


@pytest.mark.parametrize(
    ("stops", "pieces", "expected"),
    [
        (["END"], ["abc", "END", "more"], ("abc", True)),
        (["END"], ["abE", "N", "D and more"], ("ab", True)),
        (["END"], ["abE", "N", "x"], ("abENx", False)),
        (["END"], ["abE"], ("abE", False)),
        (["later", "b"], ["abc later"], ("a", True)),
        ([], ["any", "thing"], ("anything", False)),
        ([""], ["any", "thing"], ("anything", False)),
    ],
)
def test_text_ends_at_the_first_stop_string(stops: list[str], pieces: list[str], expected: tuple[str, bool]) -> None:
    assert cut(stops, pieces) == expected


@given(st.text(alphabet="ab", max_size=30), st.text(alphabet="ab", min_size=1, max_size=4), st.data())
def test_a_stop_string_is_found_however_the_text_is_cut(text: str, stop: str, data: st.DataObject) -> None:
    places = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=5)))
    pieces = [text[a:b] for a, b in zip([0, *places], [*places, len(text)], strict=True)]
    assert cut([stop], pieces) == (text.partition(stop)[0], stop in text)


def test_nothing_that_could_be_a_stop_string_is_shown_early() -> None:
    cutter = Stops(["<end>"])
    assert cutter.push("a<e") == ("a", False)
    assert cutter.push("nd") == ("", False)
    assert cutter.push(">b") == ("", True)
