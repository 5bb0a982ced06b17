"""The house rules that no linter knows: one noun for one thing, and nothing reached by climbing up a path."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

BENCH = Path(__file__).parents[1] / "bench"
MODULES = sorted(BENCH.rglob("*.py"))

# A command and a section of the report are named after what they do and show, so they share its noun.
NAMED_AFTER = ("cli", "report/sections")
# File names that stand twice elsewhere, each with what would have to go first. This list only shrinks.
TWICE: dict[str, str] = {}
# Public classes of one name in programs that run in other interpreters, where no reader of bench meets them.
ELSEWHERE = ("programs", "emulate/server")


def test_no_file_name_stands_twice() -> None:
    found: dict[str, list[str]] = defaultdict(list)
    for module in MODULES:
        where = module.relative_to(BENCH)
        if where.name not in ("__init__.py", "__main__.py") and not str(where).startswith(NAMED_AFTER):
            found[where.name].append(str(where))
    assert {name: places for name, places in found.items() if len(places) > 1 and name not in TWICE} == {}


def test_no_public_class_name_stands_twice() -> None:
    found: dict[str, list[str]] = defaultdict(list)
    for module in MODULES:
        where = str(module.relative_to(BENCH))
        if where.startswith(ELSEWHERE):
            continue
        for node in ast.parse(module.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                found[node.name].append(where)
    assert {name: places for name, places in found.items() if len(places) > 1} == {}


def test_nothing_is_reached_by_climbing_up_a_path() -> None:
    climbing = re.compile(r"__file__\)[^\n]*\.parents|__file__\)[^\n]*\.parent\.parent")
    assert [str(module) for module in MODULES if climbing.search(module.read_text(encoding="utf-8"))] == []


def test_no_function_takes_more_than_six_parameters() -> None:
    crowded = {}
    for module in MODULES:
        where = str(module.relative_to(BENCH))
        if where.startswith("cli"):
            continue  # A command's parameters are its options.
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                args = node.args
                names = [
                    one.arg
                    for one in (*args.posonlyargs, *args.args, *args.kwonlyargs)
                    if one.arg not in ("self", "cls")
                ]
                if len(names) > 6:
                    crowded[f"{where}:{node.name}"] = len(names)
    assert crowded == {}


def test_the_head_writes_no_file_but_through_one_door() -> None:
    writing = re.compile(r"\.write_text\(|\.write_bytes\(|\.open\(\"[wa]|\bopen\([^)]*\"[wa]b?\"|\.mkdir\(")
    found = [
        str(module.relative_to(BENCH))
        for package in ("analyse", "judge", "report", "formats")
        for module in sorted((BENCH / package).rglob("*.py"))
        if writing.search(module.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_no_test_waits_for_ever_for_a_process() -> None:
    """`with Popen` does, once an assertion fails inside it; tests.children.ended does not."""
    bare = re.compile(r"with\s+subprocess\.Popen\(")
    tests = Path(__file__).parent
    assert [str(file) for file in tests.rglob("*.py") if bare.search(file.read_text(encoding="utf-8"))] == []
