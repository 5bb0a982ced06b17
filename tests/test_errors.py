"""The nearest name: what a slip of the keyboard meant, and nothing for what is far away."""

from __future__ import annotations

import pytest

from bench.cli import COMMANDS
from bench.errors import nearest

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
