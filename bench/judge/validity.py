"""Is a launch a measurement at all? Named rules over what was recorded: see analyse.rules for the table.

`violated` makes a launch invalid: it is repeated within a budget, then reported, and never averaged in silence.
`warning` stands beside the figure; `unknown` says that a rule could not be applied, and why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from bench.analyse.durations import with_durations
from bench.analyse.series import Samples
from bench.judge.evidence import Evidence
from bench.judge.rules import RULES
from bench.record import tables
from bench.record.documents import read_launch, read_manifest
from bench.record.schema import Check, LaunchRecord


def judge(
    record: LaunchRecord,
    requests: pa.Table,
    samples: pa.Table,
    *,
    scenario: Mapping[str, Any] | None = None,
    fingerprint: Mapping[str, Any] | None = None,
) -> list[Check]:
    """Every rule that concerns the launch, applied to its recorded tables."""
    evidence = Evidence(record, with_durations(requests), Samples(samples), scenario or {}, fingerprint or {})
    return [check for rule in RULES if (check := rule.check(evidence)) is not None]


def rule() -> Callable[[Path], list[Check]]:
    """The rule that the conductor is handed: a finished launch's folder in, checks out."""
    return judge_folder


def judge_folder(folder: Path) -> list[Check]:
    """The checks of a launch on disk. RecordError if its folder is damaged."""
    record = read_launch(folder)
    manifest = read_manifest(folder.parent.parent)
    return judge(
        record,
        tables.read(folder / "requests.parquet", "requests"),
        tables.read(folder / "samples.parquet", "samples"),
        scenario=_scenario(manifest.scenario_text),
        fingerprint=manifest.fingerprint,
    )


def _scenario(text: str) -> Mapping[str, Any]:
    try:
        document = YAML(typ="safe").load(text)
    except YAMLError:
        return {}
    return document if isinstance(document, dict) else {}
