"""Phrases: what a slip of the keyboard meant, lists and amounts in words, text that Markdown leaves alone."""

from __future__ import annotations

import pytest

from bench.cli import COMMANDS
from bench.phrases import among, counted, escaped, listed, nearest

QUANTIZATIONS = ("fp32", "fp16", "bf16", "awq", "gptq", "int8", "gguf-q4")


@pytest.mark.parametrize(
    ("wrong", "known", "meant"),
    [
        ("chek", COMMANDS, "check"),
        ("rnu", COMMANDS, "run"),
        ("Report", COMMANDS, "report"),
        ("self-check", COMMANDS, "selfcheck"),
        ("awk", QUANTIZATIONS, "awq"),
        ("bf_16", QUANTIZATIONS, "bf16"),
        ("GGUF_Q4", QUANTIZATIONS, "gguf-q4"),
        ("gguf", QUANTIZATIONS, "gguf-q4"),
        ("max_modle_len", ("max_model_len", "max_num_seqs"), "max_model_len"),
    ],
)
def test_a_slip_is_answered_with_what_was_meant(wrong: str, known: tuple[str, ...], meant: str) -> None:
    assert nearest(wrong, known) == meant


@pytest.mark.parametrize(
    ("wrong", "known"),
    [
        ("scan", COMMANDS),
        ("same", COMMANDS),
        ("launch", COMMANDS),
        ("benchmark", COMMANDS),
        ("scenario", COMMANDS),
        ("fp4", ("awq", "gptq", "int8")),
        ("", COMMANDS),
    ],
)
def test_what_is_far_from_every_name_is_near_none(wrong: str, known: tuple[str, ...]) -> None:
    assert nearest(wrong, known) is None


def test_of_several_that_begin_alike_none_is_meant() -> None:
    assert nearest("orin", ("orin-nx", "orin-nano")) is None


def test_the_names_that_exist_stand_in_their_order_with_the_nearest_one() -> None:
    assert among(["b", "a"], "zzz") == "one of b, a"
    assert among(QUANTIZATIONS[:3], "fp61") == "one of fp32, fp16, bf16 (did you mean fp16?)"
    assert among([], "x") == "known: there are none"


def test_a_list_and_an_amount_are_read_as_words() -> None:
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert listed(["a", "b"], "or") == "a or b"
    assert listed(["a"]) == "a"
    assert listed([]) == ""
    assert [counted(1, "launch"), counted(0, "launch"), counted(2, "block")] == ["1 launch", "0 launches", "2 blocks"]


def test_markdown_and_html_give_an_engine_s_words_no_meaning() -> None:
    assert escaped("a|b\n# <b> *x* `y` [z] & _w_ \\") == r"a\|b \# \<b\> \*x\* \`y\` \[z\] &amp; \_w\_ \\"
