"""Where and with what: the machine, the versions, the client's own error, and the scenario as it was run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from bench.report.elements import Block, Facts, Fold, Printed, Section
from bench.report.numbers import number
from bench.report.view import View
from bench.scenario.redaction import redacted


def section(view: View) -> Section:
    """Everything that a figure's reader must know to trust or repeat it."""
    manifest = view.run.manifest
    blocks: list[Block] = list(_fingerprint(manifest.fingerprint))
    versions = tuple((name, str(version)) for name, version in manifest.versions.items())
    used = tuple(_used(view))
    blocks += [Fold("Versions", (Facts(versions),))] if versions else []
    blocks += [Fold("What each engine says it used", used)] if used else []
    blocks += [Fold("The scenario, as it was run", (Printed(tuple(redacted(manifest.scenario_text).splitlines())),))]
    run = (
        ("run", manifest.run_id),
        ("begun", manifest.created or "–"),
        ("ended", manifest.finished or manifest.state),
        ("seed", str(manifest.seed)),
        ("scenario digest", manifest.scenario_digest),
    )
    return Section("machine", "Machine and versions", (*blocks, Fold("The run", (Facts(run),))))


def _fingerprint(fingerprint: Mapping[str, Any]) -> Iterator[Facts]:
    """What is said of the machine as a whole, then part by part. The client's own part is shown with its error."""
    parts = {key: value for key, value in fingerprint.items() if key != "client"}
    whole = {key: value for key, value in parts.items() if not isinstance(value, Mapping | list)}
    if pairs := tuple(flat(whole)):
        yield Facts(pairs)
    for key, value in parts.items():
        entries = [value] if isinstance(value, Mapping) else value if isinstance(value, list) else []
        for entry in entries:
            pairs = tuple(flat(entry)) if isinstance(entry, Mapping) else ((key, str(entry)),)
            if pairs:
                yield Facts(pairs, key.replace("_", " "))


def flat(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested plain data as `name part`: value; what is not known is left to the dash."""
    for key, value in document.items():
        name = f"{prefix}{key}".replace("_", " ")
        match value:
            case Mapping() if value:
                yield from flat(value, f"{name} ")
            case list() if value and all(isinstance(item, Mapping) for item in value):
                for index, item in enumerate(value):
                    yield from flat(item, f"{name} {index} " if len(value) > 1 else f"{name} ")
            case None | [] | {}:
                continue
            case bool():
                yield name, "yes" if value else "no"
            case list():
                yield name, ", ".join(map(str, value))
            case float():
                yield name, number(value)
            case _:
                yield name, str(value)


def _used(view: View) -> Iterator[Block]:
    for variant in view.measured:
        facts = view.valid(variant)[0].record.facts
        if facts:
            yield Fold(variant, (Facts(tuple(flat(facts))),))
