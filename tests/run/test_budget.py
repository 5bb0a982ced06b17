from __future__ import annotations

from pathlib import Path

from bench.record.store import RunFolder
from tests.run.test_conductor import run, write


def test_a_run_ends_before_a_block_that_its_budget_cannot_hold(tmp_path: Path) -> None:
    scenario = write(tmp_path, design="{blocks: 500, budget_minutes: 0.05}")
    folder = RunFolder.open(run(scenario))
    done = len(folder.finished())
    assert 2 <= done < 200
    assert done % 2 == 0, "a block is whole or not there"
    (note,) = folder.manifest.notes
    assert note == (
        f"stopped before block {done // 2 + 1}: another block would not end within the budget of 0.05 minutes"
    )
