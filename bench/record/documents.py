"""manifest.json and launch.json: dataclasses to JSON and back, with the schema version checked first."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from bench.errors import RecordError
from bench.phrases import unread
from bench.record.launches import LaunchRecord
from bench.record.manifest import Manifest
from bench.record.schema import SCHEMA_VERSION

Document = TypeVar("Document", Manifest, LaunchRecord)
Parsed = TypeVar("Parsed")


def write_document(path: Path, document: Mapping[str, Any]) -> None:
    """Write JSON beside its final name, force it to the disk, rename."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with draft.open("w", encoding="utf-8") as file:
        json.dump(plain(document), file, ensure_ascii=False, indent=1, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)


def keep_document(path: Path, document: Mapping[str, Any]) -> Path:
    """The same for a document that is kept outside of runs: its folder is made where there is none; its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_document(path, document)
    return path


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a run's folder; RecordError if it is missing, damaged or of another version."""
    return _known(Manifest, _read(folder / "manifest.json", "a run's folder has one"), folder / "manifest.json")


def read_launch(folder: Path) -> LaunchRecord:
    """launch.json of a finished launch; RecordError if it is missing, damaged or of another version."""
    path = folder / "launch.json"
    document = _read(path, "the launch's folder is damaged: move it away and run with --resume")
    return _known(LaunchRecord, document, path)


def scenario_of(manifest: Manifest) -> Mapping[str, Any]:
    """The scenario file as it was when the run began, as plain mappings; empty if it cannot be read any more."""
    try:
        document = YAML(typ="safe").load(manifest.scenario_text)
    except YAMLError:
        return {}
    return document if isinstance(document, dict) else {}


def plain(value: Any) -> Any:
    """The same in what JSON has: numbers that are not finite become null, paths and foreign scalars plain values."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {str(key): plain(item) for key, item in value.items()}
        case list() | tuple() | set() | frozenset():
            return [plain(item) for item in value]
    # numpy scalars know how to become plain ones
    return plain(value.item()) if hasattr(value, "item") else str(value)


def _read(path: Path, hint: str) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise RecordError(f"{path} does not exist", hint=hint) from error
    except OSError as error:
        raise RecordError(unread(path, error)) from error
    except ValueError as error:
        raise RecordError(f"{path} is damaged: {error}", hint=hint) from error
    if not isinstance(document, dict):
        raise RecordError(f"{path} is damaged: it holds a {type(document).__name__}, not an object", hint=hint)
    version = document.get("schema_version")
    if version != SCHEMA_VERSION:
        raise RecordError(
            f"{path} has schema version {version}, this firsttoken reads {SCHEMA_VERSION}",
            hint="open it with the firsttoken that wrote it; `versions` in manifest.json says which",
        )
    return document


def _known(cls: type[Document], document: Mapping[str, Any], path: Path) -> Document:
    """The dataclass from its own keys, RecordError if one has another shape or is wanting."""
    try:
        return parsed(cls, document)
    except (TypeError, ValueError, AttributeError) as error:
        raise RecordError(f"{path} is damaged: {error}") from error


def keep_text(path: Path, text: str) -> Path:
    """Write a text in one go, so that nobody ever reads half of it; its folder is made if need be. The path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.partial")
    draft.write_text(text, encoding="utf-8")
    return draft.replace(path)


def parsed(cls: type[Parsed], document: Mapping[str, Any]) -> Parsed:
    """A dataclass of record.schema from plain data, with the dataclasses in it.

    Keys it does not know are a later writer's additions and are left aside; those that an earlier writer did not have
    get their defaults.
    """
    hints = _hints(cls)  # type: ignore[arg-type]  # a class can be hashed
    return cls(**{name: _value(hints[name], value) for name, value in document.items() if name in hints})


@cache
def _hints(cls: type[Any]) -> dict[str, Any]:
    known = {item.name for item in fields(cls)}
    return {name: hint for name, hint in get_type_hints(cls).items() if name in known}


def _value(hint: Any, value: Any) -> Any:
    """A value as its field's type has it: a dataclass, a list or a mapping of them, or as it is."""
    origin, inner = get_origin(hint), get_args(hint)
    if value is None:
        return None
    if is_dataclass(hint):
        return parsed(hint, value)  # type: ignore[arg-type]  # a class, as it stands in an annotation
    if origin in (Union, UnionType):
        return next((_value(one, value) for one in inner if _holds(one)), value)
    if origin is list and _holds(hint):
        return [parsed(inner[0], item) for item in value]
    if origin is Mapping and _holds(hint):
        return {key: parsed(inner[1], item) for key, item in value.items()}
    return value


def _holds(hint: Any) -> bool:
    """Whether it is a dataclass, or a list or mapping of them."""
    return is_dataclass(hint) or any(map(is_dataclass, get_args(hint)))
