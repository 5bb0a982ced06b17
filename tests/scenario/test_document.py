from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.scenario.document import Document, Place, read


def one_problem(text: str) -> str:
    document = read(text, "x.yaml")
    assert len(document.problems) == 1, document.problems
    return str(document.problems[0])


def test_yaml_1_2_means_what_it_looks_like() -> None:
    text = "a: on\nb: no\nc: yes\nd: 1:30\ne: 2026-01-01\nf: true\ng: 0o17\nh: 010\ni: ~\nj: 'x'\non: k"
    assert read(text, "x").data == {
        "a": "on",
        "b": "no",
        "c": "yes",
        "d": "1:30",
        "e": "2026-01-01",
        "f": True,
        "g": 15,
        "h": 10,
        "i": None,
        "j": "x",
        "on": "k",
    }


def test_a_number_keeps_its_spelling() -> None:
    document = read("version: 3.10\nquoted: '3.10'\n", "x")
    assert document.data == {"version": 3.1, "quoted": "3.10"}
    assert document.written == {("version",): "3.10"}


def test_every_key_and_value_has_its_place() -> None:
    document = read("a:\n  - b: [1, 22]\n", "x")
    assert document.keys["a", 0, "b"] == Place(2, 5)
    assert document.values["a", 0, "b", 1] == Place(2, 12)


def test_an_empty_value_is_found_at_its_key() -> None:
    document = read("a: 1\nb:\n\nc: 2\n", "x")
    assert document.values["b",] == Place(2, 1)


def test_columns_count_characters_and_not_bytes() -> None:
    assert read("{说明: 手册, b: 1}", "x").keys["b",] == Place(1, 10)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "x.yaml:1:1  the file is empty; a scenario needs at least scenario, engines, model and workload"),
        ("# only a comment\n", "x.yaml:1:1  the file is empty; a scenario needs at least scenario, engines, model"),
        ("a: 1\na: 2\n", "x.yaml:2:1  a: already set in line 1; keep one of the two"),
        ("a:\n\tb: 1\n", "x.yaml:2:1  a tab cannot be used for indentation; use spaces"),
        ("a: [1, 2\n", "x.yaml:2:1  a `[` or `{` that is not closed, or a missing comma"),
        ("a: 'x\n", "x.yaml:2:1  a quote that is not closed"),
        ("a: b: c\n", "x.yaml:1:5  a second `:` on the line, or indentation that does not fit; quote text with `:`"),
        ("a: *b\n", "x.yaml:1:4  no anchor is called 'b'"),
        ("---\na: 1\n---\nb: 1\n", "x.yaml:3:1  a second document (`---`); a file holds one scenario"),
        ("a: b\x01\n", "x.yaml:1:5  a control character that YAML does not allow; remove it"),
        ("a: !!python/name:os.system x\n", "x.yaml:1:4  a: the tag !!python/name:os.system has no meaning here"),
        ("a: !mine [1]\n", "x.yaml:1:4  a: the tag !mine has no meaning here; remove it"),
        ("? [a, b]\n: 1\n", "x.yaml:1:3  a key must be a word"),
        (": 1\n", "x.yaml:1:1  a key must be a word"),
        ("a: &a [*a]\n", "x.yaml:1:4  a[0]: an alias that contains itself"),
        ("a: &a {<<: *a}\n", "x.yaml:1:4  a: `<<` takes a mapping defined elsewhere, or a list of those"),
        ("%YAML 1.1\n---\na: on\n", "x.yaml:1:1  scenarios are YAML 1.2; remove the %YAML line"),
        ("a: !!int x\n", "x.yaml:1:4  a: 'x' cannot be read as int"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, expected: str) -> None:
    assert one_problem(text).startswith(expected)


def test_all_duplicate_keys_are_reported() -> None:
    assert [one.line for one in read("a: 1\na: 2\nb: {c: 1, c: 2}\nb: 3\n", "x").problems] == [2, 3, 4]


def test_anchors_and_merges_are_resolved() -> None:
    text = "base: &base {x: 1, y: 2}\none: {<<: *base, y: 3}\ntwo: {<<: [{x: 5}, *base]}\ncopy: *base\n"
    document = read(text, "x")
    assert not document.problems
    assert document.data == {
        "base": {"x": 1, "y": 2},
        "one": {"x": 1, "y": 3},
        "two": {"x": 5, "y": 2},
        "copy": {"x": 1, "y": 2},
    }


def test_an_expanding_alias_bomb_is_stopped() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    assert "50000 values once aliases are expanded" in one_problem("\n".join(lines))


def test_deep_nesting_is_stopped() -> None:
    assert one_problem("[" * 3_000).endswith("nested too deeply to be a scenario")


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=80))
def test_no_text_makes_the_reader_stumble(text: str) -> None:
    document = read(text, "x")
    assert isinstance(document, Document)
    for problem in document.problems:
        assert problem.line >= 1
        assert problem.column >= 1
        assert "\n" not in problem.message


@given(st.text(alphabet="ab:-[]{},*&#'\"\n \t!|>?%<", max_size=60))
def test_no_punctuation_makes_the_reader_stumble(text: str) -> None:
    read(text, "x")
