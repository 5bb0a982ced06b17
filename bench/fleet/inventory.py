"""The boards, out of an Ansible inventory that people already have, as Ansible itself reads it.

A board has an alias, by which every record and page calls it; whose machine it is (name, address, user) stays in the
fleet's private folder. Host keys are checked, so an inventory that switches this off is refused.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.errors import EnvironmentFault, Problem, ScenarioError, UsageError
from bench.record.documents import keep_text

ALIAS = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
# Where a board keeps the fleet's files, unless its host variable `firsttoken_folder` says otherwise.
FOLDER = ".firsttoken-fleet"
READING_S = 60
# What switches the check of host keys off: variables, and words to ssh.
_OFF_VARIABLES = ("ansible_host_key_checking", "ansible_ssh_host_key_checking")
_OFF_WORDS = re.compile(
    r"StrictHostKeyChecking[= ]+[\"']?(?:no|off)\b|UserKnownHostsFile[= ]+[\"']?/dev/null", re.IGNORECASE
)
_PLACE = re.compile(r"^Origin: (?P<file>.+?):(?P<line>\d+):(?P<column>\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class FleetBoard:
    """One board: its alias, its name in the inventory (private), its folder, and the words that are never published."""

    alias: str
    name: str
    folder: str = FOLDER
    private: tuple[str, ...] = field(default=(), repr=False)


def read(ansible: Path, inventory: Path, group: str) -> dict[str, dict[str, Any]]:
    """The hosts of a group with their variables, in the inventory's order; ScenarioError with the place if Ansible
    cannot read it, UsageError if the group is empty. `ansible` is the environment's bin folder."""
    if not inventory.exists():
        raise UsageError(
            f"the inventory {inventory} does not exist", hint="`inventory:` starts from fleet.yaml's folder"
        )
    argv = [ansible / "ansible-inventory", "-i", inventory, "--list", "--limit", group]
    env = {"ANSIBLE_NOCOLOR": "1", "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "1", "LC_ALL": "C.UTF-8"}
    said = _said(argv, env)
    if said.returncode:
        raise ScenarioError([_problem(inventory, said.stderr)])
    document = json.loads(said.stdout)
    variables = document.get("_meta", {}).get("hostvars", {})
    names = list(dict.fromkeys(_hosts(document, "all", set())))
    if not names:
        groups = ", ".join(sorted(name for name in document if name not in ("_meta", "all"))) or "none"
        raise UsageError(f"{inventory} has no host in {group!r}", hint=f"its groups: {groups}")
    return {name: variables.get(name, {}) for name in names}


def boards(hosts: Mapping[str, Mapping[str, Any]], known: Mapping[str, str], inventory: Path) -> tuple[FleetBoard, ...]:
    """The hosts as boards. `known` is host → alias of earlier runs, which is kept; UsageError where a name cannot be.

    A host variable `firsttoken_alias` names a board; the others are board-1, board-2, … as they come.
    """
    taken: set[str] = set()
    found = []
    free = (f"board-{number}" for number in range(1, 1_000_000))
    used = set(known.values()) | {str(one["firsttoken_alias"]) for one in hosts.values() if "firsttoken_alias" in one}
    for name, variables in hosts.items():
        _checked(name, variables, inventory)
        alias = str(
            variables.get("firsttoken_alias") or known.get(name) or next(one for one in free if one not in used)
        )
        if not ALIAS.fullmatch(alias):
            raise UsageError(f"{inventory}: the alias {alias!r} of a host is not made of a-z, 0-9 and `-`")
        if alias in taken:
            raise UsageError(f"{inventory}: two hosts are called {alias!r}", hint="change `firsttoken_alias` of one")
        taken.add(alias)
        folder = str(variables.get("firsttoken_folder") or FOLDER)
        found.append(FleetBoard(alias, name, folder, tuple(_private(name, variables))))
    return tuple(found)


def keep(file: Path, names: Mapping[str, str]) -> None:
    """Keep alias → host where only this user reads it."""
    file.parent.mkdir(parents=True, exist_ok=True)
    keep_text(file, json.dumps(names, indent=1) + "\n").chmod(0o600)


def scrubbed(text: str, board: FleetBoard) -> str:
    """A board's own words without what says whose it is: its name, address, user, and home folders."""
    for word in sorted(board.private, key=len, reverse=True):
        text = re.sub(rf"(?<![\w-]){re.escape(word)}(?![\w-])", board.alias, text)
    return re.sub(r"/home/[^/\s:]+", "/home/user", text)


def _checked(name: str, variables: Mapping[str, Any], inventory: Path) -> None:
    """UsageError where a host's variables switch the check of host keys off."""
    words = " ".join(str(value) for key, value in variables.items() if re.match(r"ansible_(ssh|sftp|scp)_.*args", key))
    off = [key for key in _OFF_VARIABLES if str(variables.get(key, True)).lower() in ("false", "no", "off", "0")]
    if off or (found := _OFF_WORDS.search(words)):
        what = off[0] if off else found[0]  # type: ignore[index]  # one of the two is there
        place = _line(inventory, off[0] if off else what)
        raise UsageError(
            f"{place}{name} is reached without checking its host key ({what}): whoever answers could send any result",
            hint="remove it, and put the boards' keys into known_hosts: ssh-keyscan, and compare the fingerprints",
        )


def _line(inventory: Path, words: str) -> str:
    """`file:line:column: ` of words in an inventory's file, counted from 1; empty where they stand elsewhere."""
    if not inventory.is_file():
        return ""
    for number, line in enumerate(inventory.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        if (column := line.find(words)) >= 0:
            return f"{inventory}:{number}:{column + 1}: "
    return ""


def _private(name: str, variables: Mapping[str, Any]) -> Iterator[str]:
    yield name
    for key in ("ansible_host", "ansible_user", "ansible_ssh_user", "ansible_ssh_host", "ansible_become_user"):
        # `root` is nobody's name, and a word of many messages.
        if (value := str(variables.get(key) or "")) and value != "root":
            yield value


def _hosts(document: Mapping[str, Any], group: str, seen: set[str]) -> Iterator[str]:
    if group in seen:
        return
    seen.add(group)
    entry = document.get(group, {})
    yield from entry.get("hosts", ())
    for child in entry.get("children", ()):
        yield from _hosts(document, child, seen)


def _problem(inventory: Path, said: str) -> Problem:
    """What Ansible says of an inventory, with the place where it gives one."""
    place = _PLACE.search(said)
    told = [line for line in said.splitlines() if "Failed to parse inventory with" in line]
    # Each plugin complains in turn: the one whose format it is says most.
    wanted = "'yaml'" if inventory.suffix in (".yml", ".yaml") else "'ini'"
    line = next((one for one in told if wanted in one), told[0] if told else said.strip().splitlines()[-1])
    message = re.sub(r"^\[\w+\]: |Failed to parse inventory with '\w+' plugin: |Failed to parse inventory: ", "", line)
    message = re.sub(r"Failed to parse inventory: |<class '(?:[\w.]*_AnsibleTagged)?(\w+)'>", r"\1", message)
    if place and Path(place["file"]).name == inventory.name:
        return Problem(str(inventory), int(place["line"]), int(place["column"]), "", message)
    quoted = re.search(r"got: (\S.*)$", message)
    found = re.match(r".*:(\d+):(\d+): $", _line(inventory, quoted[1])) if quoted else None
    return Problem(str(inventory), int(found[1]) if found else 1, int(found[2]) if found else 1, "", message)


def _said(argv: Iterable[object], more: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [str(word) for word in argv],
            env={**os.environ, **more},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=READING_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentFault(
            f"the inventory could not be read: {error}", hint="bench engines install ansible --force"
        ) from error
