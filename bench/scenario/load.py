"""A scenario: a file, read strictly, with its variants.

Whatever is wrong with it is reported at once, each mistake with its place.
"""

from __future__ import annotations

import hashlib
import json
import stat
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.errors import Problem, ScenarioError, UnknownName
from bench.phrases import why
from bench.scenario import document, matrix, shipped
from bench.scenario.combinations import check_combinations
from bench.scenario.model import ScenarioModel
from bench.scenario.names import FOUNDING, check_names
from bench.scenario.validate import validate
from bench.scenario.variant import Variant


@dataclass(frozen=True)
class Scenario:
    """What to measure. `text` is the file as it was read; everything else follows from it."""

    path: Path
    text: str
    model: ScenarioModel

    @classmethod
    def load(cls, path: str | Path) -> Scenario:
        """Read a scenario file; ScenarioError carries every problem found in it.

        `scenarios/…` that is not here means the shipped scenario of that name.
        """
        found = shipped.resolve(Path(path))
        return cls.parse(_text(found), path if found == Path(path) else found)

    @classmethod
    def parse(cls, text: str, path: str | Path = "scenario.yaml") -> Scenario:
        """Read a scenario's text as if it stood in a file at `path`; ScenarioError carries every problem found."""
        read = document.read(text, str(path))
        if read.data is not None or not read.problems:
            model = validate(read)
            if isinstance(read.data, dict):
                check_names(read, Path(path).parent)
                check_combinations(read, model)
        if read.problems:
            raise ScenarioError(sorted(set(read.problems), key=lambda one: (one.line, one.column, one.path)))
        return cls(Path(path), text, model)

    @property
    def name(self) -> str:
        """The scenario's name."""
        return self.model.scenario

    @property
    def base(self) -> Path:
        """The folder that relative paths in the scenario start from."""
        return self.path.parent

    @cached_property
    def digest(self) -> str:
        """sha256 of what is asked for: content and prompts, neither layout nor comments nor description."""
        content: dict[str, Any] = self.model.model_dump(mode="json", by_alias=True, exclude_unset=True)
        content.pop("description", None)
        file = getattr(self.model.workload.prompts, "file", None)
        if file is not None and not file.startswith(FOUNDING):
            content["prompts_sha256"] = hashlib.sha256((self.base / file).read_bytes()).hexdigest()
        return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    @cached_property
    def variants(self) -> tuple[Variant, ...]:
        """Every variant, in the order of the matrix."""
        return matrix.variants(self.model)

    def variant(self, name: str) -> Variant:
        """The variant of that id; UnknownName says which there are."""
        for one in self.variants:
            if one.id == name:
                return one
        raise UnknownName("variant", name, (one.id for one in self.variants))


def _text(path: Path) -> str:
    """A file's text; whatever keeps it from being read is a problem in its first line."""
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise _refused(path, "is a directory; name a scenario file in it")
        if not stat.S_ISREG(mode):
            raise _refused(path, "is not a regular file")
        with path.open("rb") as file:
            data = file.read(document.MAX_BYTES + 1)
    except OSError as error:
        raise _refused(path, f"cannot be read: {why(error).lower()}") from error
    if len(data) > document.MAX_BYTES:
        raise _refused(path, f"is larger than {document.MAX_BYTES // 1024} KiB; that is no scenario")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace")
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        message = f"byte 0x{data[error.start]:02x} is not UTF-8; save the file as UTF-8"
        raise ScenarioError([Problem(str(path), line, column, "", message)]) from error


def _refused(path: Path, message: str) -> ScenarioError:
    return ScenarioError([Problem(str(path), 1, 1, "", message)])
