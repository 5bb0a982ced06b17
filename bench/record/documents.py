"""manifest.json and launch.json: dataclasses to JSON and back, with the schema version checked first."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar

from bench.errors import RecordError
from bench.record.schema import SCHEMA_VERSION, Check, FieldInfo, LaunchRecord, Manifest, Stop

Document = TypeVar("Document", Manifest, LaunchRecord, Check, FieldInfo, Stop)


def write_document(path: Path, document: Mapping[str, Any]) -> None:
    """Write JSON beside its final name, force it to the disk, rename."""
    draft = path.with_name(f".{path.name}.partial")
    with draft.open("w", encoding="utf-8") as file:
        json.dump(plain(document), file, ensure_ascii=False, indent=1, allow_nan=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    draft.rename(path)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a run's folder; RecordError if it is missing, damaged or of another version."""
    return _known(Manifest, _read(folder / "manifest.json", "a run's folder has one"), folder / "manifest.json")


def read_launch(folder: Path) -> LaunchRecord:
    """launch.json of a finished launch; RecordError if it is missing, damaged or of another version."""
    path = folder / "launch.json"
    document = _read(path, "the launch's folder is damaged: move it away and run with --resume")
    try:
        document["checks"] = [_known(Check, check, path) for check in document.get("checks", ())]
        document["fields"] = [_known(FieldInfo, info, path) for info in document.get("fields", ())]
        if document.get("stops") is not None:
            document["stops"] = [_known(Stop, stop, path) for stop in document["stops"]]
    except TypeError as error:
        raise RecordError(f"{path} is damaged: {error}") from error
    return _known(LaunchRecord, document, path)


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
        raise RecordError(f"{path} cannot be read: {error.strerror}") from error
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
    """The dataclass from its own keys; keys it does not know are a later writer's additions and are left aside."""
    names = {item.name for item in fields(cls)}
    try:
        return cls(**{key: value for key, value in document.items() if key in names})
    except TypeError as error:
        raise RecordError(f"{path} is damaged: {error}") from error


def keep_text(path: Path, text: str) -> Path:
    """Write a text in one go, so that nobody ever reads half of it; its folder is made if need be. The path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.partial")
    draft.write_text(text, encoding="utf-8")
    return draft.replace(path)
