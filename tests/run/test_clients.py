"""A whole run whose load comes from other hosts, over real ssh, with the scripted engine here."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.analyse.run import Run
from bench.errors import BenchError, RecordError, UsageError
from bench.judge.validity import judge_folder
from bench.loadgen import outpost
from bench.record.launches import Check
from bench.run import clients
from bench.run.conductor import Rules, Setting, carry_out
from bench.scenario.load import Scenario
from bench.scenario.model import ClientPlace
from tests.hosts import Net, lan, missing
from tests.loadgen.test_remote import hasten, kill

hosts_needed = pytest.mark.skipif((why := missing()) is not None, reason=str(why))

SCENARIO = """
scenario: elsewhere
engines: {sim: {engine: simulated, args: {ttft_ms: 30, itl_ms: 1}}}
workload: {prompts: {kind: random, tokens: 16}, output_tokens: TOKENS, requests: 20, arrivals: {ARRIVALS}}
design: {blocks: 1, retries: RETRIES, max_contention: 1.0, max_steal: 1.0}
measure: [ttft]
"""


def scenario(arrivals: str = "closed: 1", *, tokens: int = 4, retries: int = 1) -> Scenario:
    text = SCENARIO.replace("ARRIVALS", arrivals).replace("TOKENS", str(tokens)).replace("RETRIES", str(retries))
    return Scenario.parse(text)


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with lan(2, clocks_s=(500,)) as one:
        yield one


def of(net: Net, results: Path, patch: pytest.MonkeyPatch) -> Setting:
    patch.setenv("PATH", net.environment["PATH"])
    hasten(patch)
    there = ClientPlace(hosts=["host1"], python=sys.executable)
    return Setting(results=results, rules=Rules(judge_folder), check_client=False, client=there)


@pytest.fixture
def setting(net: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setting:
    return of(net, tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def measured(net: Net, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose client was three milliseconds away."""
    net.hosts[0].link(delay_ms=3)
    with pytest.MonkeyPatch.context() as patch:
        # A launch on a busy machine is invalid, and repeated.
        folder = carry_out(scenario(retries=4), of(net, tmp_path_factory.mktemp("results"), patch))
    net.hosts[0].link(delay_ms=0)
    return folder


@hosts_needed
def test_a_run_says_what_the_way_took_and_no_address_of_anybody(net: Net, measured: Path) -> None:
    run = Run.open(measured)
    *_, launch = run.all
    found = {check.name: check for check in launch.record.checks}
    assert found["client_hosts"].status == "ok", found
    assert launch.record.status == "ok"
    assert run.manifest.fingerprint["clients"] == ["host1"]
    for file in [*run.path.rglob("*.json"), *run.path.glob("*.json")]:
        assert net.prefix not in file.read_text(encoding="utf-8"), file
    summary = run.summary().set_index("metric")["value"]
    assert 6 <= summary["round_trip.p50"] < 9
    assert summary["ttft_near.p50"] == pytest.approx(summary["ttft.p50"] - summary["round_trip.p50"], abs=0.01)
    assert summary["ttft_near.p50"] == pytest.approx(30, abs=2)
    # From the spawn here to a token there: the clock there is 500 s ahead, which nobody sees.
    assert 0 < summary["cold_ttft"] < 30


@contextmanager
def while_it_drives(net: Net, act: Callable[[], None]) -> Iterator[None]:
    """Do something once the load generator on the first host drives: it has real-time priority then."""
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            for pid, said in net.hosts[0].processes().items():
                stat = net.hosts[0].run("cat", f"/proc/{pid}/stat", check=False).stdout if "generator_p" in said else ""
                if stat.endswith("\n") and stat.rpartition(")")[2].split()[38] == "2":
                    act()
                    return
            time.sleep(0.02)

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield
    finally:
        over.set()
        watching.join()


def checks(run: Run) -> dict[str, Check]:
    (launch,) = run.all
    return {check.name: check for check in launch.record.checks}


@hosts_needed
def test_a_launch_whose_client_was_lost_is_invalid_and_repeated(net: Net, setting: Setting) -> None:
    with while_it_drives(net, lambda: kill(net.hosts[0], "bench.loadgen.generator_process")):
        run = Run.open(carry_out(scenario(), setting))
    states = [(launch.record.status, launch.record.reason_kind) for launch in run.all]
    assert states == [("invalid", "client_lost"), ("ok", None)]
    assert "'host1': the load generator's process there ended with status -9" in (run.all[0].record.reason or "")


@hosts_needed
def test_a_load_generator_that_was_stopped_there_makes_the_launch_invalid(net: Net, setting: Setting) -> None:
    def pause() -> None:
        (pid,) = [pid for pid, said in net.hosts[0].processes().items() if "generator_process" in said]
        net.hosts[0].run("sh", "-c", f"kill -STOP {pid}; sleep 0.2; kill -CONT {pid}")

    with while_it_drives(net, pause):
        run = Run.open(carry_out(scenario("closed: 1", retries=0), setting))
    found = checks(run)["client_hosts"]
    assert found.status == "violated"
    assert "host1: its load generator was stopped" in found.evidence


@hosts_needed
def test_a_link_that_cannot_carry_the_answers_makes_the_launch_invalid(net: Net, setting: Setting) -> None:
    """Eight streams of an event a millisecond are more than the 0.5 Mbit/s of this cable."""
    with while_it_drives(net, lambda: net.hosts[0].link(mbit=0.5)):
        run = Run.open(carry_out(scenario("closed: 8", tokens=100, retries=0), setting))
    net.hosts[0].link(mbit=None)
    found = checks(run)["link"]
    assert found.status == "violated", found
    assert "host1: round trip" in found.evidence
    assert run.all[0].record.status == "invalid"


@hosts_needed
def test_a_run_is_gone_on_with_from_the_same_hosts_only(measured: Path, tmp_path: Path) -> None:
    shutil.copytree(measured.parent, tmp_path / measured.parent.name)
    manifest = tmp_path / measured.parent.name / measured.name / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"complete"', '"interrupted"'))
    here = Setting(results=tmp_path, check_client=False, resume="always")
    with pytest.raises(RecordError, match="begun with the load from host1"):
        carry_out(scenario(retries=4), here)


@hosts_needed
def test_nothing_is_begun_where_a_host_cannot_do_it(net: Net, setting: Setting, tmp_path: Path) -> None:
    there = setting.client
    assert there is not None
    for wrong, words in (
        ({"hosts": ["nowhere.invalid"]}, "'nowhere.invalid': there is no such host"),
        ({"address": "127.0.0.1"}, "does not reach this machine at 127.0.0.1"),
        ({"address": "192.0.2.1"}, "no engine can listen at 192.0.2.1"),
    ):
        changed = there.model_copy(update=wrong)
        with pytest.raises(UsageError, match=words):
            carry_out(scenario(), Setting(results=tmp_path, check_client=False, client=changed))
    assert not list(tmp_path.glob("elsewhere/*"))


@pytest.mark.parametrize(
    ("hosts", "arrivals", "words"),
    [
        (["a", "a"], "closed: 4", "names a host twice"),
        (["a", "b"], "rate: 5, max_in_flight: 3", "max_in_flight caps an open load"),
        (["a", "b", "c"], "closed: 2", "3 hosts cannot share 2 closed streams"),
    ],
)
def test_what_several_hosts_cannot_do_is_refused(hosts: list[str], arrivals: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        clients.refuse(ClientPlace(hosts=hosts), scenario(arrivals))


def test_a_host_is_a_name_and_no_option_of_ssh() -> None:
    for name in ("-oProxyCommand=true", "me@there", "a b", ""):
        with pytest.raises(UsageError, match="hosts"):
            clients.asked(scenario(), [name], None, None)
    assert clients.asked(scenario(), [], None, None) is None
    found = clients.asked(scenario(), ["shelf-1.lab"], "~/venv/bin/python", None)
    assert found == ClientPlace(hosts=["shelf-1.lab"], python="~/venv/bin/python")


def test_without_ssh_it_is_said_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(BenchError, match="no ssh here"):
        outpost.Outpost("host", "python3")


@hosts_needed
def test_a_client_elsewhere_measures_its_own_error_there(net: Net, setting: Setting) -> None:
    found = clients.checked("host1", sys.executable, quick=True)
    assert [reading.load.name for reading in found.readings] == ["one stream", "64 streams"]
    assert all(reading.failed == 0 for reading in found.readings)
    with pytest.raises(UsageError, match="there is no such host"):
        clients.checked("nowhere.invalid", sys.executable, quick=True)
