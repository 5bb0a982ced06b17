"""Load generators on other hosts, over real ssh: the same figures, and every fault told."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import bench
from bench.analyse.way import doubt_ms, round_trip_ms
from bench.errors import LaunchError
from bench.loadgen import outpost, remote
from bench.loadgen.job import Driven, Job, schedule
from bench.loadgen.remote import Clients, RemoteLoad
from bench.loadgen.selfcheck import read_truth, server, true_ttft_ns
from bench.scenario.model import Arrivals
from tests import waiting
from tests.children import ended
from tests.hosts import Host, Net, lan, missing
from tests.loadgen.jobs import job

pytestmark = pytest.mark.skipif((why := missing()) is not None, reason=str(why))


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with lan(4, clocks_s=(1000, -200)) as one:
        yield one


@pytest.fixture(autouse=True)
def _by_their_names(net: Net, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PATH", net.environment["PATH"])
    hasten(monkeypatch)
    yield
    for host in net.hosts:
        host.link(delay_ms=0, cut=False)


def hasten(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way and the clocks are looked at as often, and sooner: what is tested is not how well they are known."""
    monkeypatch.setattr(remote, "_HANDSHAKES", 40)
    monkeypatch.setattr(outpost, "_BEAT_S", 0.05)


def clients(net: Net, *numbers: int, python: str = sys.executable) -> Clients:
    return Clients(tuple(net.hosts[n].alias for n in numbers), python, net.address)


def asked(net: Net, port: int, count: int, **how: Any) -> Job:
    return replace(job(port, count, **how), host=net.address)


def ttfts(driven: Driven) -> list[float]:
    return [(row["first_token_ns"] - row["sent_ns"]) / 1e6 for row in driven.requests]


def gone(host: Host) -> None:
    """Nothing of ours runs there any more."""
    waiting.until(lambda: not [said for said in host.processes().values() if "loadgen" in said])


@pytest.mark.parametrize("delay", [0.0, pytest.param(1.0, marks=pytest.mark.slow), 20.0])
def test_a_first_token_takes_longer_by_the_round_trip_that_was_measured(net: Net, tmp_path: Path, delay: float) -> None:
    """Against the server's own log. How exactly is a figure of tests/benchmarks; here a busy machine may disturb."""
    net.hosts[0].link(delay_ms=delay)
    truth = tmp_path / "truth"
    with server({"ttft_ms": 10}, truth=truth, host=net.address) as port, RemoteLoad(clients(net, 0)) as load:
        load.look(net.address, port)
        driven = load.drive(asked(net, port, 12))
        load.look(net.address, port)
        (there,) = load.account().remotes
    assert [row["error"] for row in driven.requests] == [None] * 12
    assert {row["stamp_source"] for row in driven.requests} == {"kernel"}
    trip = round_trip_ms(there)
    assert trip is not None
    assert 2 * delay <= trip < 2 * delay + 2
    logged = read_truth(truth)
    served = statistics.median(true_ttft_ns(logged[row["request_id"]]) / 1e6 for row in driven.requests)
    assert statistics.median(ttfts(driven)) == pytest.approx(served + trip, abs=1.0)


def test_stamps_of_a_host_whose_clock_is_another_are_put_on_ours(net: Net) -> None:
    with server({"ttft_ms": 5}, host=net.address) as port, RemoteLoad(clients(net, 0)) as load:
        before = time.monotonic_ns()
        driven = load.drive(asked(net, port, 3))
        after = time.monotonic_ns()
        (there,) = load.account().remotes
    doubt = doubt_ms(there)
    assert there.offset_ns is not None
    assert there.offset_ns / 1e9 == pytest.approx(1000, abs=5)
    assert doubt is not None
    assert 0 < doubt < 1000
    for row in driven.requests:
        assert before - doubt * 1e6 <= row["intended_ns"] <= row["sent_ns"] <= row["end_ns"] <= after + doubt * 1e6
        assert row["client"] == 0
    assert all(before - doubt * 1e6 <= stamp <= after + doubt * 1e6 for stamp in driven.chunks["user_ns"])


def test_a_second_job_goes_on_and_progress_is_told(net: Net) -> None:
    told: list[tuple[int, int]] = []
    with server({"ttft_ms": 60}, host=net.address) as port, RemoteLoad(clients(net, 0, 1)) as load:
        load.drive(asked(net, port, 1))
        load.drive(asked(net, port, 12, arrivals=Arrivals(closed=2)), lambda done, of: told.append((done, of)))
        account = load.account()
    assert told == sorted(told)
    assert told
    assert {of for _, of in told} == {12}
    assert account.events == 13 * 6
    assert account.cpu_s == pytest.approx(sum(one.cpu_s or 0.0 for one in account.remotes))


def test_the_first_token_is_told_from_afar_while_the_answer_goes_on(net: Net) -> None:
    told: list[int] = []
    with server({"itl_ms": 300}, host=net.address) as port, RemoteLoad(clients(net, 0, 1)) as load:
        driven = load.drive(asked(net, port, 4), first_token=lambda: told.append(time.monotonic_ns()))
    (at,) = told
    assert at < driven.requests[0]["end_ns"]


def test_four_hosts_ask_when_one_would(net: Net) -> None:
    """What they see is a figure of tests/benchmarks: there the p99 of four lies within the interval of one."""
    arrivals = Arrivals(poisson=160.0)
    parts = {}
    with server({"ttft_ms": 20, "jitter_ms": 10}, host=net.address) as port:
        whole = asked(net, port, 160, tokens=1, arrivals=arrivals, seed=11)
        for numbers in ((0,), (0, 1, 2, 3)):
            with RemoteLoad(clients(net, *numbers)) as load:
                parts[len(numbers)] = load.drive(whole)
    due = schedule(arrivals, whole.requests, 11).offsets_ns
    for driven in parts.values():
        assert [row["request_id"] for row in driven.requests] == list(range(160))
        assert not any(row["error"] for row in driven.requests)
        start = driven.requests[0]["intended_ns"] - due[0]
        assert tuple(row["intended_ns"] - start for row in driven.requests) == due
    assert {row["client"] for row in parts[4].requests} == {0, 1, 2, 3}


def drive_and(net: Net, fault: Any, match: str, *, python: str = sys.executable) -> None:
    """Have something happen while a job is under way, and see what is said."""
    happened: list[int] = []

    def once(*_: int) -> None:
        if not happened:
            happened.append(1)
            fault()

    with (
        server({"ttft_ms": 100}, host=net.address) as port,
        RemoteLoad(clients(net, 0, python=python)) as load,
        pytest.raises(LaunchError, match=match) as error,
    ):
        load.drive(asked(net, port, 50), once)
    assert happened
    assert error.value.kind == "client_lost"
    assert net.address not in error.value.message
    gone(net.hosts[0])


def kill(host: Host, name: str) -> None:
    (pid,) = [pid for pid, said in host.processes().items() if f" -m {name}" in said and not said.startswith("bash")]
    host.run("kill", "-9", str(pid))


def test_a_load_generator_that_is_killed_there_is_told(net: Net) -> None:
    fault = "bench.loadgen.generator_process"
    drive_and(
        net, lambda: kill(net.hosts[0], fault), r"'host1': the load generator's process there ended with status -9"
    )


def test_so_is_the_end_of_the_one_that_keeps_it(net: Net) -> None:
    drive_and(net, lambda: kill(net.hosts[0], "bench.loadgen.outpost_process"), r"'host1': the way to it ended")


def test_a_link_that_is_cut_is_told_and_leaves_nothing_on_either_side(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outpost, "_SILENCE_S", 1.0)
    drive_and(net, lambda: net.hosts[0].link(cut=True), r"'host1': it has been silent for 1 s: the link is cut")
    here = subprocess.run(["ps", "-wweo", "args="], capture_output=True, text=True, check=True).stdout
    assert not [said for said in here.splitlines() if said.startswith("ssh ") and str(net.folder) in said]


def test_an_interrupt_leaves_nothing_there(net: Net) -> None:
    def interrupt(*_: int) -> None:
        raise KeyboardInterrupt

    with server({"ttft_ms": 100}, host=net.address) as port, RemoteLoad(clients(net, 0)) as load:
        with pytest.raises(KeyboardInterrupt):
            load.drive(asked(net, port, 50), interrupt)
        gone(net.hosts[0])


def test_killing_the_harness_leaves_nothing_there(net: Net) -> None:
    script = f"""
        import time
        from bench.loadgen.remote import Clients, RemoteLoad
        with RemoteLoad(Clients(("host1",), {sys.executable!r}, {net.address!r})):
            print("there", flush=True)
            time.sleep(600)
    """
    argv = [sys.executable, "-c", textwrap.dedent(script)]
    with ended(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)) as harness:
        try:
            assert harness.stdout is not None
            assert harness.stdout.readline() == "there\n"
            assert [said for said in net.hosts[0].processes().values() if "generator_process" in said]
        finally:
            harness.kill()
    gone(net.hosts[0])


def refused(net: Net, match: str, *, host: str | None = None, python: str = sys.executable) -> None:
    with pytest.raises(LaunchError, match=match):
        outpost.Outpost(host or net.hosts[0].alias, python).close()
    gone(net.hosts[0])


def test_another_version_there_is_refused(net: Net, tmp_path: Path) -> None:
    shutil.copytree(Path(bench.__file__).parent, tmp_path / "bench", ignore=shutil.ignore_patterns("__pycache__"))
    changed = tmp_path / "bench" / "loadgen" / "wire.py"
    changed.write_text(changed.read_text() + "\n# one line more\n")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    refused(net, r"it has firsttoken .* and here it is .*: install the same one on both", python=str(python))


def test_what_is_missing_there_is_named(net: Net, tmp_path: Path) -> None:
    refused(net, r"/no/python is no Python ≥ 3\.11 there", python="/no/python")
    bare = tmp_path / "python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S "$@"\n')
    bare.chmod(0o755)
    refused(net, r"firsttoken is not installed for", python=str(bare))


def test_a_host_that_nobody_knows_is_refused(net: Net) -> None:
    refused(net, "there is no such host", host="nowhere.invalid")


def test_a_host_of_another_key_is_refused(net: Net) -> None:
    net.hosts[3].change_key()
    refused(net, "its host key has changed", host=net.hosts[3].alias)
    (net.folder / "known_hosts").write_text("")
    refused(net, "its host key is not known here", host=net.hosts[3].alias)
