"""A launch that is handed over: recorded whole, and whatever breaks off in between leaves nothing behind."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import bench
from bench.judge.validity import judge_folder
from bench.record.documents import read_launch
from bench.record.launches import HandOverAccount, LaunchRecord, MemoryState, OracleAnswer, RequestsPassed
from bench.run.conductor import Rules, Setting, carry_out
from bench.run.progress import Silent
from bench.run.succession import Peak, hand_over_checks
from bench.scenario.load import Scenario
from tests.waiting import until

FIRST = {"ttft_ms": 20, "itl_ms": 4, "start_phases_ms": None}


def write(folder: Path, first: dict[str, Any] | None = None, **second: Any) -> Scenario:
    """One variant: a second engine that takes its time to start, behind a first one that is slower per token."""
    weights = folder / "weights"
    weights.mkdir(exist_ok=True)
    (weights / "config.json").write_text('{"model_type": "llama", "vocab_size": 1000}')
    (weights / "model.safetensors").write_bytes(bytes(64))
    args = {"ttft_ms": 5, "itl_ms": 1, "start_phases_ms": {"weights": 300}} | second
    step = {"strategy": "hand-over", "args": FIRST} | (first or {})
    path = folder / "small.yaml"
    path.write_text(
        f"""
scenario: small
model: {{source: "path:{weights}"}}
engines: {{s: {{engine: simulated, args: {json.dumps(args)}}}}}
warmups: {{handed: [{json.dumps(step)}, {{strategy: requests, n: 2}}]}}
matrix: {{warmup: [handed]}}
workload: {{prompts: {{kind: random, tokens: [8, 16]}}, output_tokens: 6, requests: 6}}
design: {{blocks: 1, retries: 0, max_steal: 1, max_contention: 1}}
"""
    )
    return Scenario.load(path)


@dataclasses.dataclass(frozen=True)
class Doing(Silent):
    """Something done when a phase of the launch begins."""

    at: str
    what: Callable[[], None]

    def phase(self, name: str) -> None:
        if name == self.at:
            self.what()


def run(scenario: Scenario, progress: Silent | None = None) -> Path:
    where = Setting(
        results=scenario.base / "results",
        check_client=False,
        progress=progress or Silent(),
        rules=Rules(judge=judge_folder),
    )
    return carry_out(scenario, where)


def record_of(path: Path) -> LaunchRecord:
    (file,) = path.glob("launches/*/launch.json")
    return read_launch(file.parent)


def engines(folder: Path) -> list[psutil.Process]:
    """Emulated engines whose log goes below this folder."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = " ".join(process.info["cmdline"] or ())
        if "emulate.server.program" in words and str(folder) in words:
            found.append(process)
    return found


def left_behind(folder: Path) -> list[str]:
    below = psutil.Process().children(recursive=True)
    proxies = [one for one in below if any("front_process" in word for word in one.cmdline())]
    return [" ".join(one.cmdline()) for one in [*proxies, *engines(folder)]]


def test_a_handed_over_launch_is_cold_by_the_first_engine_and_steady_by_the_second(tmp_path: Path) -> None:
    path = run(write(tmp_path))
    record, opened = record_of(path), bench.Run.open(path)
    assert (record.status, record.reason) == ("ok", None)
    told = record.hand_over
    assert told is not None
    assert [one.name for one in told.states if one.name != "draining"] == ["quick", "both", "compiled"]
    assert {one.name: one.engine for one in told.states if one.name != "draining"} == {
        "quick": "first",
        "both": "first",
        "compiled": "second",
    }
    spawn, first_token = record.stamps["spawn"], record.stamps["first_token"]
    order = [
        spawn,
        first_token,
        told.second_spawn_ns,
        told.second_health_ns,
        told.second_warm_ns,
        told.over_ns,
        told.first_gone_ns,
        record.stamps["second_token"],
        record.stamps["exit"],
    ]
    assert None not in order
    assert order == sorted(order, key=lambda at: at or 0)
    requests = opened.requests
    assert sorted(requests["request_id"]) == list(range(len(requests)))
    paces = requests.groupby(requests["stage"].where(requests["stage"] != "warmup", requests["label"]))[
        "tpot_ms"
    ].median()
    # The script's own times: 4 ms a token by the first engine, 1 ms by the second.
    assert paces["hand-over"] > 2.5 > paces["measured"] > 0.5
    through = requests[~requests["label"].fillna("").str.startswith("second/")]
    assert sum(one.answered for one in told.requests.values()) == len(through), told.requests
    assert all((one.died, one.left) == (0, 0) for one in told.requests.values())
    checks = {check.name: check for check in record.checks}
    assert checks["hand_over.state"].status == "ok"
    over = ((told.over_ns or 0) - (spawn or 0)) / 1e9
    assert f"went over {over:.1f} s after the spawn" in checks["hand_over.state"].evidence
    assert checks["hand_over.oracle"].status == "ok"
    assert checks["warmup.hand-over"].status == "ok"
    assert told.first_mib is not None
    assert told.peak_mib is not None
    assert told.peak_mib > told.first_mib > 1
    assert left_behind(tmp_path) == []


def test_a_first_engine_may_be_forked_and_is_judged_by_its_own_oracle(tmp_path: Path) -> None:
    record = record_of(run(write(tmp_path, {"start": "forked"})))
    assert (record.status, record.reason) == ("ok", None)
    assert record.start.forked
    checks = {check.name: check.status for check in record.checks}
    assert (checks["start.state"], checks["oracle.state"]) == ("ok", "ok")
    assert left_behind(tmp_path) == []


def test_a_second_engine_that_never_gets_warm_is_a_failed_launch_with_its_reason(tmp_path: Path) -> None:
    record = record_of(run(write(tmp_path, {"args": FIRST | {"fault": None}}, fault="http_500")))
    assert record.status == "failed"
    assert "scripted failure" in (record.reason or "") or "500" in (record.reason or "")
    assert record.hand_over is not None
    assert record.hand_over.reason == record.reason
    # The first one lost nothing by it.
    assert record.hand_over.requests["first"].died == 0
    assert {check.name: check.status for check in record.checks}["hand_over.state"] == "violated"
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("which", ["first", "second"])
def test_an_engine_that_is_killed_while_the_second_warms_ends_the_launch_with_that_reason(
    tmp_path: Path, which: str
) -> None:
    def kill() -> None:
        def when_it_is_there() -> None:
            wanted = 1 if which == "first" else 2
            until(lambda: len(engines(tmp_path)) == wanted)
            max(engines(tmp_path), key=lambda process: process.create_time()).kill()

        # The second engine is not there yet when its phase begins; the first is.
        threading.Thread(target=when_it_is_there).start() if which == "second" else when_it_is_there()

    record = record_of(run(write(tmp_path), Doing("starting the second engine", kill)))
    assert record.hand_over is not None
    if which == "second":
        assert record.status == "failed"
        assert "killed from outside" in (record.reason or "")
    else:
        # The second goes on and takes over, but requests found nobody meanwhile.
        assert record.status == "failed"
        assert {check.name: check.status for check in record.checks}["hand_over.requests"] == "violated"
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize(
    "phase", ["measuring", "starting the second engine", "warming up: requests", "warming up: proof", "handing over"]
)
def test_a_ctrl_c_in_any_phase_leaves_no_process(tmp_path: Path, phase: str) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(write(tmp_path), Doing(phase, interrupt))
    assert left_behind(tmp_path) == []


def test_a_second_engine_that_does_not_fit_is_refused_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.run.succession.memory", lambda roots: MemoryState("unified", 8192, 700))
    record = record_of(run(write(tmp_path)))
    assert (record.status, record.reason_kind) == ("failed", "out_of_memory")
    assert "needs about 1024 MiB, and 700 MiB are available" in (record.reason or "")
    assert record.hand_over is not None
    assert record.hand_over.second_spawn_ns is None
    assert record.hand_over.available_mib == 700
    assert record.hand_over.needed_mib == pytest.approx(1024, abs=1)


def test_the_first_engine_may_serve_another_model_and_the_change_is_a_swap(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text('{"model_type": "llama", "vocab_size": 100}')
    (other / "model.safetensors").write_bytes(bytes(32))
    path = run(write(tmp_path, {"model": f"path:{other}"}))
    record = record_of(path)
    assert (record.status, record.reason) == ("ok", None)
    assert record.hand_over is not None
    assert record.hand_over.model_before == f"path:{other}"
    checks = {check.name: check for check in record.checks}
    assert checks["hand_over.oracle"].status == "unknown"
    assert f"another model, path:{other}" in checks["hand_over.oracle"].evidence
    assert checks["hand_over.requests"].status == checks["warmup.hand-over"].status == "ok"
    assert record.command is not None
    assert record.hand_over.command is not None
    assert (record.command.places["model"], record.hand_over.command.places["model"]) == (
        str(other),
        str(tmp_path / "weights"),
    )


def test_the_peak_is_the_most_that_was_held() -> None:
    ballast = []
    with Peak(lambda: [psutil.Process().pid]) as peak:
        until(lambda: peak.mib is not None)
        small = peak.mib
        assert small is not None
        ballast.append(bytearray(b"x" * (64 << 20)))
        until(lambda: peak.mib is not None and peak.mib > small + 50)
    assert ballast


def statuses(told: HandOverAccount, first: OracleAnswer | None = None) -> dict[str, str]:
    return {check.name: check.status for check in hand_over_checks(told, first, 0)}


def test_the_checks_say_what_happened_what_was_lost_and_whether_both_answer_alike() -> None:
    done = HandOverAccount(second_spawn_ns=1, over_ns=2, first_gone_ns=3, oracle=OracleAnswer("7", -0.5))
    assert statuses(done, OracleAnswer("7", -0.51)) == {
        "hand_over.state": "ok",
        "hand_over.requests": "ok",
        "hand_over.oracle": "ok",
    }
    # Another token, or the same one held much likelier: told, and no reason to throw the launch away.
    assert statuses(done, OracleAnswer("8", -0.5))["hand_over.oracle"] == "warning"
    assert statuses(done, OracleAnswer("7", -0.6))["hand_over.oracle"] == "warning"
    assert statuses(done, OracleAnswer(reason="gives none"))["hand_over.oracle"] == "unknown"
    lost = dataclasses.replace(done, requests={"first": RequestsPassed(begun=3, answered=2, died=1)})
    assert statuses(lost)["hand_over.requests"] == "violated"
    assert statuses(dataclasses.replace(done, unserved=1))["hand_over.requests"] == "violated"
    cut = dataclasses.replace(lost, overdue=1)
    (told, *_) = hand_over_checks(cut, None, 0)
    assert "1 answers that still ran at the first then were cut" in told.evidence
    failed = HandOverAccount(reason="no memory")
    assert statuses(failed)["hand_over.state"] == "violated"
