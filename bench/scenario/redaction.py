"""What of a scenario must not be written down: the values of variables that are secret by their name.

A record is sent around and published, and a scenario may hold a key under `env:`. What is recorded has WITHHELD in its
place; the scenario's digest is of what was really asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

WITHHELD = "(secret)"
_SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)$", re.IGNORECASE)
# What is said to be a token and is no secret.
_HARMLESS = re.compile(r"PARALLELISM|MAX_|NUM_", re.IGNORECASE)


def secret(name: str) -> bool:
    """Whether a variable of that name holds something that must not be written down."""
    return bool(_SECRET.search(name)) and not _HARMLESS.search(name)


def redacted(text: str) -> str:
    """A scenario's text without its secrets, all else to the letter; what is no YAML stays as it is."""
    try:
        root = YAML(typ="safe", pure=True).compose(text)
    except (YAMLError, RecursionError):
        return text
    found = {node.start_mark.index: node for node in _secrets(root, under="")}
    for start, node in sorted(found.items(), reverse=True):
        whole = text[start : node.end_mark.index]
        anchor = f"&{node.anchor} " if node.anchor else ""
        # A block scalar ends where the next line begins.
        text = text[:start] + anchor + json.dumps(WITHHELD) + whole[len(whole.rstrip()) :] + text[node.end_mark.index :]
    return text


def withheld(env: Mapping[str, str]) -> dict[str, str]:
    """Variables with the values of the secret ones left out."""
    return {name: WITHHELD if secret(name) else value for name, value in env.items()}


def _secrets(node: Node | None, under: str) -> Iterator[ScalarNode]:
    """Scalars under a secret variable's name in an `env:`, and candidates for one, `env.NAME:`."""
    if isinstance(node, MappingNode):
        for key, value in node.value:
            name = str(key.value)
            if secret(name) and (under == "env" or name.startswith("env.")):
                yield from _scalars(value)
            else:
                yield from _secrets(value, name if name != "<<" else under)
    elif isinstance(node, SequenceNode):
        for one in node.value:
            yield from _secrets(one, under)


def _scalars(node: Any) -> Iterator[ScalarNode]:
    if isinstance(node, ScalarNode):
        yield node
    elif isinstance(node, SequenceNode):
        for one in node.value:
            yield from _scalars(one)
