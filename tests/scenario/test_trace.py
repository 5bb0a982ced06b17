"""Traces of recorded traffic: what is read from them, and what is said of a wrong one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.errors import UsageError
from bench.scenario.trace import Row, read

AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"


def written(folder: Path, text: str) -> Path:
    file = folder / "trace"
    file.write_text(text, encoding="utf-8")
    return file


def test_mooncakes_lines_give_times_in_seconds_from_the_first_and_blocks(tmp_path: Path) -> None:
    lines = [
        {"timestamp": 27_000, "input_length": 600, "output_length": 52, "hash_ids": [46, 47]},
        {"timestamp": 30_500, "input_length": 12, "output_length": 1},
    ]
    file = written(tmp_path, "\n".join(map(json.dumps, lines)) + "\n\n")
    assert read(file) == [Row(0.0, 600, 52, (46, 47)), Row(3.5, 12, 1)]
    assert read(file, limit=1) == [Row(0.0, 600, 52, (46, 47))]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("2023-11-16 18:17:03.9799600", "2023-11-16 18:17:05.4799600"),
        ("2024-05-10 00:00:00.000000+00:00", "2024-05-10 02:00:01.500000+02:00"),
    ],
)
def test_azures_table_gives_the_same_from_dates(tmp_path: Path, first: str, second: str) -> None:
    file = written(tmp_path, f"{AZURE}{first},4808,10\r\n{second},3180,8\r\n")
    assert [row.at_s for row in read(file)] == pytest.approx([0.0, 1.5])
    assert [(row.prompt_tokens, row.output_tokens) for row in read(file)] == [(4808, 10), (3180, 8)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r"trace: has no requests"),
        (
            "time,in,out\n1,2,3\n",
            r"trace:1: neither .*Mooncake.*Azure.*lacks TIMESTAMP, ContextTokens, GeneratedTokens",
        ),
        (AZURE + "yesterday,1,2\n", r"trace:2: TIMESTAMP 'yesterday' is not a date and time"),
        (AZURE + "2023-11-16 18:17:03,1\n", r"trace:2: 2 fields, the head has 3"),
        (AZURE + "2023-11-16 18:17:03,many,2\n", r"trace:2: ContextTokens 'many' is not a number of tokens"),
        (AZURE + "2023-11-16 18:17:03,5,0\n", r"trace:2: GeneratedTokens 0 is not a number of tokens, 1 or more"),
        (AZURE + "2023-11-16 18:17:03,5,1\n2023-11-16 18:17:02,5,1\n", r"trace:3: earlier than the line before"),
        ('{"timestamp": 0, "input_length": 5}\n', r"trace:1: lacks output_length"),
        ('{"timestamp": "0", "input_length": 5, "output_length": 1}\n', r"trace:1: timestamp '0' is not a number"),
        ('{"timestamp": 0, "input_length": true, "output_length": 1}\n', r"trace:1: input_length True is not"),
        ('{"timestamp": 0, "input_length": 5, "output_length": 1, "hash_ids": ["a"]}\n', r"trace:1: hash_ids is not"),
        ('{"timestamp": 0, "input_length": 513, "output_length": 1, "hash_ids": [1]}\n', r"1 hash_ids for 513 .* 2 in"),
        ('{"timestamp": 0, "input_length": 5, "output_length": 1}\n{\n', r"trace:2: not JSON"),
        ('{"timestamp": 0, "input_length": 5, "output_length": 1}\n[]\n', r"trace:2: not a JSON object"),
    ],
)
def test_a_wrong_trace_is_answered_with_the_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read(written(tmp_path, text))


def test_what_lies_behind_the_limit_is_not_read(tmp_path: Path) -> None:
    file = written(tmp_path, '{"timestamp": 0, "input_length": 5, "output_length": 1}\nnonsense\n')
    assert len(read(file, limit=1)) == 1
