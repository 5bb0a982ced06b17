"""A document as a model, with every mistake of type, key and value in words.

What is wrong is noted and taken out, so that the rest can still be checked for names and combinations.
"""

from __future__ import annotations

import copy
import types
import typing
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from bench.phrases import among, listed, shown
from bench.scenario.document import Document, Path
from bench.scenario.model import FACTORS, HOST_ALIAS, SCENARIO_NAME, SHA256, ScenarioModel

# Stand-ins for required parts that are missing or broken; only checks see them, nobody else.
_STAND_INS: dict[str, Any] = {
    "scenario": "unnamed",
    "engines": {"missing": {"engine": "simulated"}},
    "workload": {"prompts": {"kind": "random", "tokens": 1}},
}

_KINDS = {
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}

_PATTERNS = {
    SCENARIO_NAME: "made of a-z, 0-9, `.`, `_` and `-`, beginning with a letter or digit",
    HOST_ALIAS: "a name from ~/.ssh/config, made of letters, digits, `.`, `_` and `-`",
    SHA256: "64 hexadecimal digits in lower case",
}


def validate(document: Document) -> ScenarioModel:
    """The model; mistakes are noted in the document, and if there are any, the model is what was left without them."""
    if not isinstance(document.data, dict):
        if not document.problems:
            document.problem((), f"a scenario is a mapping (`scenario: name` …), not {shown(document.data)}")
        return ScenarioModel.model_validate(_STAND_INS)
    _take_as_written(document, _named_levels(document))
    errors = errors_of(ScenarioModel, document.data)
    _take_as_written(document, [_path(one, document.data) for one in errors if one["type"] == "string_type"])
    data = copy.deepcopy(document.data)
    errors = errors_of(ScenarioModel, data)
    describe(document, ScenarioModel, data, errors)
    for _ in range(20):
        if not errors:
            return ScenarioModel.model_validate(data)
        _take_out(errors, data)
        errors = errors_of(ScenarioModel, data)
    return ScenarioModel.model_validate(_STAND_INS)


def errors_of(model: type[BaseModel], data: Any) -> Sequence[Mapping[str, Any]]:
    """What a model finds wrong with data."""
    try:
        model.model_validate(data)
    except ValidationError as error:
        return typing.cast("Sequence[Mapping[str, Any]]", error.errors(include_url=False))
    return ()


def _path(error: Mapping[str, Any], data: Any) -> Path:
    """Where an error is in the file: pydantic's location without its marks for union members and keys."""
    path: list[str | int] = []
    for step in error["loc"]:
        if step in data if isinstance(data, dict) else isinstance(data, list) and isinstance(step, int):
            data = data[step]
        elif error["type"] != "missing" or step != error["loc"][-1]:
            continue
        path.append(step)
    if error["type"] == "union_tag_invalid":
        path.append(error["ctx"]["discriminator"].strip("'"))
    return tuple(path)


def _named_levels(document: Document) -> list[Path]:
    """Where include, exclude and the selectors give the level of a factor that is always text."""
    rows = [path for section in ("exclude", "include") for path, _ in document.entries("matrix", section)]
    rows += [("gate", "baseline"), ("quality", "against")]
    return [path for row in rows for path, _ in document.entries(*row) if path[-1] in FACTORS]


def _take_as_written(document: Document, paths: Sequence[Path]) -> None:
    """Where text is wanted and 3.10, 1e5 or true stands, take it as it looks."""
    for path in paths:
        if path in document.written and document.get(path) is not None:
            document.get(path[:-1])[path[-1]] = document.written[path]


def _take_out(errors: Sequence[Mapping[str, Any]], data: Any) -> None:
    paths = set()
    for error in errors:
        path = _path(error, data)
        paths.add(path[:-1] if error["type"] == "missing" else path)
        if error["type"] == "missing" and len(path) == 1:
            data.setdefault(path[0], copy.deepcopy(_STAND_INS[str(path[0])]))
    # From the back, so that list indexes stay right.
    for path in sorted(paths, key=lambda path: [str(step).zfill(9) for step in path], reverse=True):
        if not path:
            continue
        parent: Any = data
        try:
            for step in path[:-1]:
                parent = parent[step]
            del parent[path[-1]]
        except (KeyError, IndexError, TypeError):
            continue
        if len(path) == 1 and path[0] in _STAND_INS:
            data[path[0]] = copy.deepcopy(_STAND_INS[str(path[0])])


def describe(
    document: Document, root: type[BaseModel], data: Any, errors: Sequence[Mapping[str, Any]], prefix: Path = ()
) -> None:
    """Note a model's errors over `data`, which stands at `prefix` in the document.

    One problem a place: the members of a union complain each, and about the same thing.
    """
    found: dict[Path, list[Mapping[str, Any]]] = defaultdict(list)
    for error in errors:
        found[_path(error, data)].append(error)
    deeper = {path[:depth] for path in found for depth in range(len(path))}
    for path, group in found.items():
        if path in deeper and all(error["type"] in _KINDS for error in group):
            continue
        message, at_key = _words(group, path, root, data)
        document.problem((*prefix, *path), message, at_key=at_key)


def _words(group: Sequence[Mapping[str, Any]], path: Path, root: type[BaseModel], data: Any) -> tuple[str, bool]:
    # Of a union's members, the one that got furthest says most.
    error = next((one for one in group if one["type"] not in _KINDS), group[0])
    context, value = error.get("ctx", {}), shown(error["input"])
    _, info = resolve(root, path)
    about = f" ({info.description})" if info is not None and info.description else ""
    if all(one["type"] in _KINDS for one in group):
        kinds = listed(dict.fromkeys(_KINDS[one["type"]] for one in group), "or")
        if error["input"] is None:
            return f"is empty; write {kinds}{about}, or leave the key out", False
        if kinds == "a list" and not isinstance(error["input"], dict):
            return f"{value} is not a list{about}; write [{error['input']}]", False
        return f"{value} is not {kinds}{about}", False
    match error["type"]:
        case "extra_forbidden":
            known = _keys(root, path[:-1], data)
            return f"unknown key; {among(known, path[-1]) if known else 'nothing is allowed here'}", True
        case "missing":
            return f"is missing{about}", False
        case "literal_error":
            return f"{value} is not {among(_listed(context['expected']), error['input'])}", error["loc"][-1] == "[key]"
        case "union_tag_not_found":
            choices = [str(one) for model in resolve(root, path)[0] for one in _kinds(model)]
            return f"needs `kind`: {listed(choices, 'or')}", False
        case "union_tag_invalid":
            return f"{context['tag']!r} is not {among(_listed(context['expected_tags']), context['tag'])}", False
        case "greater_than":
            return f"{value} is not above {context['gt']:g}{about}", False
        case "greater_than_equal":
            return f"{value} is below {context['ge']:g}{about}", False
        case "less_than":
            return f"{value} is not below {context['lt']:g}{about}", False
        case "less_than_equal":
            return f"{value} is above {context['le']:g}{about}", False
        case "too_short":
            return f"is empty; at least {context['min_length']} is needed{about}", False
        case "string_pattern_mismatch":
            form = _PATTERNS.get(context["pattern"], f"of the form {context['pattern']}")
            return f"{value} is not {form}{about}", False
        case "value_error":
            return str(context["error"]), False
    return f"{value} is not allowed here{about}", False


def _listed(text: str) -> list[str]:
    return [name.strip("'") for name in text.replace(" or ", ", ").split(", ")]


def _keys(root: type[BaseModel], path: Path, data: Any) -> list[str]:
    """The keys allowed at a path; where `kind` decides, those of that kind."""
    models = [model for model in resolve(root, path)[0] if isinstance(model, type) and issubclass(model, BaseModel)]
    for step in path:
        data = data[step]
    chosen = [model for model in models if data.get("kind") in _kinds(model)] or models
    return list(dict.fromkeys(info.alias or name for model in chosen for name, info in model.model_fields.items()))


def _kinds(model: type[BaseModel]) -> tuple[Any, ...]:
    """What a model's `kind` may be, if it has one."""
    info = model.model_fields.get("kind")
    return typing.get_args(info.annotation) if info else ()


def resolve(root: type[BaseModel], path: Path) -> tuple[list[Any], FieldInfo | None]:
    """The types that a model has at a path, and the field that the path ends in, if it does."""
    found: list[Any] = [root]
    info: FieldInfo | None = None
    for step in path:
        here, found, info = found, [], None
        for kind in here:
            arguments = typing.get_args(kind)
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                fields = {field.alias or name: field for name, field in kind.model_fields.items()}
                if step in fields:
                    info = fields[str(step)]
                    found += arms(info.annotation)
            elif arguments:
                found += arms(arguments[-1])
    return found, info


def arms(annotation: Any) -> list[Any]:
    """The members of a union, or the one type."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return arms(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        return [arm for member in typing.get_args(annotation) for arm in arms(member)]
    return [annotation]
