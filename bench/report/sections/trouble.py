"""What went wrong, and what could not be measured: each with its reason, nothing dropped in silence."""

from __future__ import annotations

from collections import Counter

from bench.analyse.run import Launch
from bench.report.elements import Block, Cell, Fold, Heading, Printed, Section, Table
from bench.report.numbers import count
from bench.report.view import View

STATES = {
    "failed": "the engine did not start, or died",
    "stopped": "ended early: it could no longer be among the best",
    "unsupported": "this combination cannot run here",
    "invalid": "it ran, but a rule says that its figures must not be used",
    "interrupted": "it was stopped from outside",
}
# Logs shown in full; the rest is in the launches' folders.
LOGS = 12


def section(view: View) -> Section | None:
    """Launches that do not count, and requests that failed within those that do."""
    blocks: list[Block] = []
    if view.troubled:
        blocks.append(_launches(view.troubled))
        blocks += [_log(launch) for launch in view.troubled[:LOGS] if launch.record.log_tail]
    if failed := _requests(view):
        blocks.append(failed)
    return Section("trouble", "What does not count, and why", tuple(blocks)) if blocks else None


def _launches(launches: list[Launch]) -> Table:
    rows = []
    for launch in launches:
        record = launch.record
        checks = [f"{check.name}: {check.evidence}" for check in record.checks if check.status == "violated"]
        kind = (record.reason_kind or "").replace("_", " ")
        why = record.reason or "; ".join(checks) or "no reason was recorded"
        remedies = [check.remedy for check in record.checks if check.status == "violated" and check.remedy]
        rows.append(
            (
                Cell(launch.id),
                Cell(record.status, STATES.get(record.status, ""), "warn" if record.status == "invalid" else "bad"),
                Cell(kind or "–"),
                Cell(why, "; ".join(remedies)),
            )
        )
    head = (Heading("launch"), Heading("state"), Heading("kind"), Heading("reason", "and remedy"))
    return Table(head, tuple(rows), f"{count(len(launches), 'launch')} outside every figure above")


def _log(launch: Launch) -> Fold:
    return Fold(f"Last lines of {launch.id}", (Printed(tuple(launch.record.log_tail[-40:])),))


def _requests(view: View) -> Table | None:
    requests = view.run.requests
    if requests.empty or requests["ok"].all():
        return None
    failed = requests[~requests["ok"]]
    kinds = Counter(
        (str(row["variant"]), str(row["error_kind"]), row["error"] if isinstance(row["error"], str) else "–")
        for row in failed[["variant", "error_kind", "error"]].to_dict("records")
    )
    rows = [(*map(Cell, key), Cell(str(amount))) for key, amount in kinds.most_common(20)]
    head = (Heading("variant"), Heading("kind"), Heading("what the client saw"), Heading("requests", numeric=True))
    return Table(
        head, tuple(rows), f"{count(len(failed), 'failed request')}: out of all latencies, counted in SLO attainment"
    )
