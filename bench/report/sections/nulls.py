"""What could not be measured, and why: a null is explained, never shown as zero."""

from __future__ import annotations

from collections import Counter

import pyarrow as pa
import pyarrow.compute as pc

from bench.report.elements import Cell, Fold, Heading, Section, Table
from bench.report.numbers import count
from bench.report.view import View

WORDS = {
    "unsupported": "this machine or version does not have it",
    "no_permission": "it exists, but this user may not read it; `bench doctor` says what would allow it",
    "not_found": "it was looked for and was not there",
    "stale": "it had stopped being updated when it was read",
    "partial": "only part of it was there",
    "parse_failed": "it was there, in a form that could not be read",
}


def section(view: View) -> Section | None:
    """Sensor fields and phases that were null, by reason."""
    sensors, phases = _sensors(view), _phases(view)
    if not sensors and not phases:
        return None
    docs = {(info.probe, info.field): info.doc for launch in view.run.all for info in launch.record.fields}
    rows = [
        (
            Cell(f"{probe}.{name}", docs.get((probe, name), "")),
            Cell(reason.replace("_", " "), WORDS.get(reason, "")),
            Cell(share),
        )
        for (probe, name, reason), share in sensors.items()
    ] + [
        (Cell(f"phase {name}"), Cell(reason.replace("_", " "), WORDS.get(reason, "")), Cell(count(amount, "launch")))
        for (name, reason), amount in phases.most_common()
    ]
    table = Table((Heading("what"), Heading("why there is none"), Heading("how often")), tuple(rows))
    title = f"{count(len(rows), 'reading')} that could not be taken"
    return Section("nulls", "Not measured, and why", (Fold(title, (table,)),))


def _sensors(view: View) -> dict[tuple[str, str, str], str]:
    """Per field and reason how many of its readings were null."""
    nulls: Counter[tuple[str, str, str]] = Counter()
    total: Counter[tuple[str, str]] = Counter()
    for launch in view.run.all:
        samples = launch.table("samples", ("probe", "field", "value", "reason"))
        samples = samples.append_column("null", pc.cast(pc.is_null(samples["value"]), pa.int64()))
        counts = samples.group_by(["probe", "field", "reason"]).aggregate([("value", "count"), ("null", "sum")])
        names = (counts[name].to_pylist() for name in ("probe", "field", "reason", "value_count", "null_sum"))
        for probe, name, reason, values, missing in zip(*names, strict=True):
            total[probe, name] += values + missing
            if missing:
                nulls[probe, name, reason or "unknown"] += missing
    return {
        (probe, name, reason): "always"
        if amount == total[probe, name]
        else f"{amount} of {total[probe, name]} readings"
        for (probe, name, reason), amount in sorted(nulls.items())
    }


def _phases(view: View) -> Counter[tuple[str, str]]:
    phases = view.run.phases
    if phases.empty:
        return Counter()
    missing = phases[phases["start_ns"].isna() | phases["end_ns"].isna()]
    # pandas has a number for a missing text.
    reasons = (
        row if isinstance(row["reason"], str) else row | {"reason": "unknown"} for row in missing.to_dict("records")
    )
    return Counter((str(row["name"]), str(row["reason"])) for row in reasons)
