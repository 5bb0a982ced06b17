"""YAML 1.2 text as plain data, with the place of every key and value.

Only the core schema is read: `on` and `no` are text, and keys are text as written. A number stays a number, but its
spelling is kept in `written`, so that `3.10` can be taken as it looks where text is wanted.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.reader import ReaderError

from bench.errors import Problem

Path = tuple[str | int, ...]

MAX_BYTES = 256 * 1024
MAX_NODES = 50_000
_CORE = "tag:yaml.org,2002:"
_TEXT = {_CORE + "str", _CORE + "timestamp", _CORE + "value", _CORE + "merge"}


@dataclass(frozen=True, slots=True)
class Place:
    """Line and column, counted from 1."""

    line: int
    column: int


@dataclass(slots=True)
class Document:
    """What a file says, and where it says it; `problems` collects all that is wrong with it."""

    file: str
    data: Any = None
    values: dict[Path, Place] = field(default_factory=dict)
    keys: dict[Path, Place] = field(default_factory=dict)
    written: dict[Path, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def problem(self, path: Path, message: str, *, at_key: bool = False) -> None:
        """Note a mistake at a path, or at the key of its nearest parent if the file has no such path."""
        place = (self.keys if at_key else self.values).get(path)
        parent = path
        while place is None:
            place = self.keys.get(parent) or self.values.get(parent) or (None if parent else Place(1, 1))
            parent = parent[:-1]
        self.at(place, path, message)

    def at(self, place: Place, path: Path, message: str) -> None:
        """Note a mistake at a place."""
        self.problems.append(Problem(self.file, place.line, place.column, dotted(path), message))

    def get(self, path: Path) -> Any:
        """The value at a path; None if there is none."""
        value = self.data
        for step in path:
            try:
                value = value[step]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    def entries(self, *path: str | int) -> Iterator[tuple[Path, Any]]:
        """Paths and values directly under a mapping or list; nothing where there is neither."""
        value = self.get(path)
        if isinstance(value, dict):
            yield from (((*path, key), item) for key, item in value.items())
        elif isinstance(value, list):
            yield from (((*path, index), item) for index, item in enumerate(value))


def dotted(path: Path) -> str:
    """A path as people write it: matrix.quantization[1]."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def read(text: str, file: str) -> Document:
    """The document in a text. Syntax errors, duplicate keys and the like end up in its `problems`."""
    document = Document(file)
    if text.startswith("%YAML") and not text.startswith("%YAML 1.2"):
        document.problem((), "scenarios are YAML 1.2; remove the %YAML line")
        return document
    yaml = YAML(typ="safe", pure=True)
    try:
        with warnings.catch_warnings():
            # An anchor may be defined anew: YAML allows it, and a warning on stderr helps nobody.
            warnings.simplefilter("ignore")
            node = yaml.compose(text)
        if node is None:
            document.problem((), "the file is empty; a scenario needs at least scenario, engines, model and workload")
        else:
            document.data = _Reader(document, yaml.constructor).value(node, ())
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(mark.line + 1, mark.column + 1) if mark else Place(1, 1)
        document.at(place, (), _syntax(error))
    except ReaderError as error:
        before = text[: error.position] if isinstance(error.position, int) else ""
        place = Place(before.count("\n") + 1, len(before) - before.rfind("\n"))
        document.at(place, (), "a control character that YAML does not allow; remove it")
    except RecursionError:
        document.problem((), "nested too deeply to be a scenario")
    except YAMLError as error:
        document.problem((), f"not readable as YAML: {error}")
    return document


class _Reader:
    """Turns composed nodes into dicts, lists and scalars, noting places on the way."""

    def __init__(self, document: Document, constructor: Any) -> None:
        self.document = document
        self.constructor = constructor
        self.count = 0
        self.open: set[int] = set()

    def value(self, node: Node, path: Path) -> Any:
        # An empty value begins on some later line: its key is the place to look at.
        empty = isinstance(node, ScalarNode) and node.value == "" and node.style is None
        self.document.values[path] = self.document.keys.get(path, _place(node)) if empty else _place(node)
        self.count += 1
        if self.count == MAX_NODES:
            self.document.problem(path, f"more than {MAX_NODES} values once aliases are expanded; write less")
        if self.count >= MAX_NODES:
            return None
        if id(node) in self.open:
            self.document.problem(path, "an alias that contains itself")
            return None
        self.open.add(id(node))
        try:
            if isinstance(node, ScalarNode):
                return self.scalar(node, path)
            if str(node.tag) not in (_CORE + "map", _CORE + "seq"):
                self.document.problem(path, f"the tag {str(node.tag)[:40]} has no meaning here; remove it")
            if isinstance(node, SequenceNode):
                return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
            return self.mapping(node, path) if isinstance(node, MappingNode) else None
        finally:
            self.open.discard(id(node))

    def mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        inherited: dict[str, Any] = {}
        pairs = []
        for key, item in node.value:
            if isinstance(key, ScalarNode) and key.value == "<<" and key.style is None:
                inherited = self.merged(item, path) | inherited
            else:
                pairs.append((key, item))
        found: dict[str, Any] = {}
        for key, item in pairs:
            if not isinstance(key, ScalarNode) or not key.value:
                self.document.at(_place(key), path, "a key must be a word")
                continue
            below = (*path, key.value)
            if key.value in found:
                first = self.document.keys[below]
                self.document.at(_place(key), below, f"already set in line {first.line}; keep one of the two")
                continue
            self.document.keys[below] = _place(key)
            found[key.value] = self.value(item, below)
        return inherited | found

    def merged(self, node: Node, path: Path) -> dict[str, Any]:
        """The keys that `<<` brings in; of several mappings the first one wins."""
        found: dict[str, Any] = {}
        for source in node.value if isinstance(node, SequenceNode) else [node]:
            if isinstance(source, MappingNode) and id(source) not in self.open:
                self.open.add(id(source))
                found = self.mapping(source, path) | found
                self.open.discard(id(source))
            else:
                self.document.at(_place(source), path, "`<<` takes a mapping defined elsewhere, or a list of those")
        return found

    def scalar(self, node: ScalarNode, path: Path) -> Any:
        tag = str(node.tag)
        if tag in _TEXT:
            return node.value
        if node.style is None:
            self.document.written[path] = node.value
        try:
            if tag == _CORE + "null":
                return None
            if tag == _CORE + "bool":
                return self.constructor.construct_yaml_bool(node)
            if tag == _CORE + "int":
                return self.constructor.construct_yaml_int(node)
            if tag == _CORE + "float":
                return self.constructor.construct_yaml_float(node)
        except (ValueError, KeyError):
            self.document.problem(path, f"{node.value[:40]!r} cannot be read as {tag.removeprefix(_CORE)}")
            return None
        self.document.problem(path, f"the tag {tag.replace(_CORE, '!!')[:40]} has no meaning here; remove it")
        return node.value


def _place(node: Node) -> Place:
    return Place(node.start_mark.line + 1, node.start_mark.column + 1)


def _syntax(error: MarkedYAMLError) -> str:
    problem = str(error.problem or error.context or "not readable as YAML")
    if "'\\t'" in problem:
        return "a tab cannot be used for indentation; use spaces"
    if "undefined alias" in problem:
        return problem.replace("found undefined alias", "no anchor is called")
    for technical, plain in _PLAIN.items():
        if technical in problem or technical in str(error.context):
            return plain
    return f"not readable as YAML: {problem}"


_PLAIN = {
    "mapping values are not allowed": "a second `:` on the line, or indentation that does not fit; quote text with `:`",
    "could not find expected ':'": "a line without `:` where `key: value` was expected",
    "expected <block end>": "indentation that does not fit the lines above",
    "while parsing a flow": "a `[` or `{` that is not closed, or a missing comma",
    "while scanning a quoted": "a quote that is not closed",
    "expected a single document": "a second document (`---`); a file holds one scenario",
    "found duplicate anchor": "an anchor that is defined twice",
}
