"""How reading a run grows: 1,000 launches of 100 requests of 100 chunks in 1.5 GB, and time linear in the launches."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs import Behaviour, synthetic_run

LIMIT_MIB = 1500

MEASURE = """
import json, resource, sys, time
from pathlib import Path
from bench.analyse.run import Run
from bench.report import html
begin = time.process_time()
run = Run.open(sys.argv[1])
rows = len(run.summary())
summarised = time.process_time() - begin
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
page = html.write(run, Path(sys.argv[1]) / "page.html")
print(json.dumps({
    "launches": len(run.all), "rows": rows, "summary_s": summarised, "report_s": time.process_time() - begin,
    "summary_mib": peak, "report_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    "page_bytes": page.stat().st_size,
}))
"""


def multiplied(path: Path, launches: int) -> Path:
    """The run with its launches repeated; tables are linked, not copied, but read each time."""
    folder = path / "launches"
    originals = sorted(folder.iterdir())
    for number in range(len(originals), launches):
        original = originals[number % len(originals)]
        launch_id = f"{number // 2:04d}-{number % 2:02d}-{original.name[7:]}"
        copy = folder / launch_id
        copy.mkdir()
        for table in original.glob("*.parquet"):
            os.link(table, copy / table.name)
        record = json.loads((original / "launch.json").read_text())
        record |= {"launch_id": launch_id, "block": number // 2}
        (copy / "launch.json").write_text(json.dumps(record))
    return path


def measured(path: Path) -> dict[str, float]:
    done = subprocess.run([sys.executable, "-c", MEASURE, str(path)], capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    print(json.dumps(found))
    return found


def run_of(root: Path, launches: int) -> Path:
    variants = {"a": Behaviour(jitter=0.1, launch_sd=0.02), "b": Behaviour(ttft=140, jitter=0.1, launch_sd=0.02)}
    return multiplied(synthetic_run(root, variants, blocks=2, requests=99, tokens=100), launches)


@pytest.mark.slow
def test_a_thousand_launches_fit_into_memory(tmp_path: Path) -> None:
    found = measured(run_of(tmp_path, 1000))
    assert found["launches"] == 1000
    assert found["summary_mib"] < LIMIT_MIB
    assert found["report_mib"] < LIMIT_MIB
    assert found["page_bytes"] < 2_000_000


@pytest.mark.slow
def test_time_grows_no_faster_than_the_launches(tmp_path: Path) -> None:
    small, large = (measured(run_of(tmp_path / str(launches), launches)) for launches in (60, 360))
    # Linear means a ratio of at most 6 beside a fixed cost; a quadratic part would show as far more.
    assert large["summary_s"] / small["summary_s"] < 6 * 1.5
    assert large["report_s"] / small["report_s"] < 6 * 1.5
