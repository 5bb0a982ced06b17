"""Whether what a board sent is what was asked for: the scenario, and every planned launch exactly once."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from bench.errors import Exit
from bench.fleet.ledger import Fate
from bench.phrases import counted
from bench.record.store import RunFolder

MEANS = {
    Exit.PASS: "",
    Exit.INVALID: "no launch counts",
    Exit.USAGE: "`bench run` refused it",
    Exit.INTERNAL: "`bench run` failed",
}


def account(results: Path, outcome: Fate) -> Fate:
    """An outcome with its launches counted, from the record itself; `reason` says what is wrong with it.

    RecordError if there is no readable run. A planned launch that was carried out anew because it failed or was invalid
    has attempts, as `design.retries` has it; the same attempt twice would be a run carried out twice.
    """
    words = outcome.reason
    outcome = replace(outcome, reason=None)
    runs = sorted((results / outcome.scenario).glob("[!.]*/manifest.json"))
    if not runs or outcome.exit not in (Exit.PASS, Exit.INVALID):
        said = MEANS.get(Exit(outcome.exit), "") if outcome.exit in list(Exit) else "it was not run"
        return replace(outcome, reason=": ".join(part for part in (said or "it left no run", words) if part))
    folder = RunFolder.open(runs[-1].parent)
    manifest = folder.manifest
    attempts = Counter((one.block, one.variant, one.attempt) for one in folder.finished().values())
    done = {(block, variant) for block, variant, _ in attempts}
    planned = {(one.block, one.variant) for one in manifest.plan}
    outcome = replace(
        outcome,
        run=str(folder.path.relative_to(results)),
        planned=len(planned),
        recorded=len(planned & done),
        repeated=sum(count - 1 for count in attempts.values()) + (len(runs) - 1) * len(planned),
    )
    wrong = []
    if manifest.scenario_digest != outcome.digest:
        wrong.append("its run is of another scenario")
    if manifest.state != "complete":
        wrong.append(f"its run is {manifest.state}")
    if outcome.repeated:
        wrong.append(f"{counted(outcome.repeated, 'launch')} carried out twice")
    if (lost := len(planned - done)) and not manifest.notes:
        wrong.append(f"{counted(lost, 'launch')} of {len(planned)} lost")
    if outcome.exit == Exit.INVALID:
        wrong.append(MEANS[Exit.INVALID])
    return replace(outcome, reason="; ".join(wrong) or None)
