"""Is a launch a measurement at all? Named rules over what was recorded: of load, machine, others and start.

`violated` makes a launch invalid: it is repeated within a budget, then reported, and never averaged in silence.
`warning` stands beside the figure; `unknown` says that a rule could not be applied, and why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from bench.analyse.durations import with_durations
from bench.analyse.series import Samples
from bench.judge import crowding, distance, rules, starts, traffic
from bench.judge.evidence import Evidence, Rule
from bench.record import tables
from bench.record.documents import read_launch, read_manifest, scenario_of
from bench.record.launches import Check, LaunchRecord

RULES = tuple(
    found
    for part in (traffic, distance, rules, crowding, starts)
    for found in vars(part).values()
    if isinstance(found, Rule)
)


def checks(
    record: LaunchRecord,
    requests: pa.Table,
    samples: pa.Table,
    *,
    scenario: Mapping[str, Any] | None = None,
    fingerprint: Mapping[str, Any] | None = None,
    others: Sequence[LaunchRecord] = (),
) -> list[Check]:
    """Every rule that concerns the launch, applied to its recorded tables; `others` are its run's other launches."""
    evidence = Evidence(
        record,
        with_durations(requests, record.client.remotes),
        Samples(samples),
        scenario or {},
        fingerprint or {},
        others,
    )
    return [check for one in RULES if (check := one.check(evidence)) is not None]


def judge_folder(folder: Path) -> list[Check]:
    """The checks of a launch on disk: the rule that a run is carried out by. RecordError if its folder is damaged."""
    record = read_launch(folder)
    manifest = read_manifest(folder.parent.parent)
    return checks(
        record,
        tables.read(folder / "requests.parquet", "requests"),
        tables.read(folder / "samples.parquet", "samples"),
        scenario=scenario_of(manifest),
        fingerprint=manifest.fingerprint,
        others=_others(folder) if record.start.forked else (),
    )


def _others(folder: Path) -> list[LaunchRecord]:
    """The launches beside this one; read where a rule looks at them, for they grow with the run."""
    return [read_launch(path.parent) for path in folder.parent.glob("[!.]*/launch.json") if path.parent != folder]
