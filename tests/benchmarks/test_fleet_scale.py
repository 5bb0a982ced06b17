"""On paper: five hundred boards and a million requests, with the controller's and the dealer's real code.

Boards answer by a script and their time is simulated; what the controller holds, writes and unpacks is not. What
Ansible takes is in no figure here: `bench fleet plan --boards 500` reckons it from a fleet run that was measured.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

BOARDS = 500
FLEET = """
import json, resource, sys
from pathlib import Path
from bench.fleet import ledger
from tests.fleet import test_campaign as script

class Shelf(script.Bench):
    # A board measures for nine looks, and all send the same results: one is made.
    def _answer(self, name, alias, variables):
        if name == "poll":
            told = self.polls[alias] = self.polls.get(alias, 0) + 1
            if told < 10:
                return script._alive(self.job)
        return super()._answer(name, alias, variables)

    def _parcel(self, alias):
        return super()._parcel("one")

def mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

root, boards = Path(sys.argv[1]), int(sys.argv[2])
root.mkdir()
setup = script.Setup(root, boards, script.FLEET + "serial: 50\\nquorum: 80%\\n")
bench = setup.bench = Shelf(setup.bench.folder, setup.digest)
bench.polls = {}
begin = bench.now
before = mib()
setup.run()
found = ledger.load(setup.folder)
results = [file for file in (setup.folder / "boards").rglob("*") if file.is_file()]
print(json.dumps({
    "finished": len(found.of("finished")),
    "repeated": sum(o.repeated or 0 for m in found.members for o in m.outcomes),
    "began": sorted(set(bench.began.values())),
    "minutes": (bench.now - begin) / 60, "cpu_s": resource.getrusage(resource.RUSAGE_SELF).ru_utime,
    "ledger_bytes": (setup.folder / "fleet.json").stat().st_size, "bytes": sum(file.stat().st_size for file in results),
    "idle_mib": before, "peak_mib": mib(), "looks": max(m.looks for m in found.members),
}))
"""
DEAL = """
import json, resource, sys, time
from dataclasses import replace
from bench.loadgen.generator import encoded
from bench.loadgen.job import packed, schedule
from bench.loadgen.parts import shares
from bench.scenario.model import Arrivals
from tests.loadgen.jobs import job

def mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

requests, hosts = int(sys.argv[1]), int(sys.argv[2])
whole = replace(job(1, requests), arrivals=Arrivals(poisson=10_000.0), seed=3)
asked = mib()
begin = time.process_time()
dealt = shares(whole, hosts)
dealt_s, dealt_mib = time.process_time() - begin, mib()
due = schedule(whole.arrivals, whole.requests, 3).offsets_ns
exact = all(share.plan.offsets_ns == due[share.number :: hosts] for share in dealt)
ids = sorted(one.request_id for share in dealt for one in share.job.requests)
head, payload = encoded(dealt[0].job, dealt[0].plan)
print(json.dumps({
    "exact": exact, "each_once": ids == list(range(requests)), "shares": sorted({len(s.job.requests) for s in dealt}),
    "asked_mib": asked, "dealt_mib": dealt_mib, "dealt_s": dealt_s, "peak_mib": mib(),
    "bytes_a_host": len(packed(head, payload)) + len(payload),
}))
"""


def measured(program: str, *words: object) -> dict[str, Any]:
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, words)], capture_output=True, text=True, cwd=root, check=False
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(found))
    return found


def test_five_hundred_boards_are_run_once_each_and_their_controller_stays_small(tmp_path: Path) -> None:
    few, many = measured(FLEET, tmp_path / "few", BOARDS // 10), measured(FLEET, tmp_path / "many", BOARDS)
    for found, boards in ((few, BOARDS // 10), (many, BOARDS)):
        assert (found["finished"], found["repeated"]) == (boards, 0)
        assert found["began"] == [1]
    # Fifty at a time, ten looks a minute apart, of which the last one finds them over.
    assert many["minutes"] == pytest.approx(10 * few["minutes"], rel=0.01)
    assert many["bytes"] == pytest.approx(10 * few["bytes"], rel=0.01)
    assert many["peak_mib"] - many["idle_mib"] < 100


def test_a_million_requests_are_dealt_to_sixteen_hosts_exactly_and_within_memory() -> None:
    found = measured(DEAL, 1_000_000, 16)
    assert found["exact"]
    assert found["each_once"]
    assert found["shares"] == [62_500]
    assert found["peak_mib"] < 2000
