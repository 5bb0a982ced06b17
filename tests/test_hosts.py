"""The hosts that other tests are run on are what they say."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.children import ended
from tests.hosts import Net, lan, missing

pytestmark = pytest.mark.skipif((why := missing()) is not None, reason=str(why))


@pytest.fixture(scope="module")
def net() -> Iterator[Net]:
    with lan(2, clocks_s=(1000,)) as one:
        yield one


def _round_trip_ms(net: Net) -> float:
    """The quickest of a few connections to the first host."""
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        with socket.create_connection((net.hosts[0].address, 22)):
            times.append(time.perf_counter() - begun)
    return 1000 * min(times)


def test_a_host_has_a_name_a_clock_and_processes_of_its_own(net: Net) -> None:
    first, second = net.hosts
    assert net.ssh(first, "hostname").stdout == "host1\n"
    asked = f"{sys.executable} -c 'import time; print(time.monotonic())'"
    assert float(net.ssh(first, asked).stdout) - time.monotonic() == pytest.approx(1000, abs=5)
    assert float(net.ssh(second, asked).stdout) - time.monotonic() == pytest.approx(0, abs=5)
    with ended(subprocess.Popen([*first.inside(), "sleep", "600"])) as sleeper:
        assert [said for said in first.processes().values() if "sleep" in said] == ["sleep 600"]
        assert not second.processes()
        sleeper.kill()


def test_the_way_to_a_host_is_as_slow_as_it_is_asked_to_be(net: Net) -> None:
    for delay in (0.0, 5.0):
        net.hosts[0].link(delay_ms=delay)
        assert 2 * delay <= _round_trip_ms(net) < 2 * delay + 5
    net.hosts[0].link(delay_ms=0)


def test_hosts_reach_one_another_and_a_cut_cable_is_mended_again(net: Net) -> None:
    first, second = net.hosts
    asked = ("timeout", "1", "bash", "-c", f"exec 3<>/dev/tcp/{second.address}/22")
    assert first.run(*asked, check=False).returncode == 0
    second.link(cut=True)
    assert first.run(*asked, check=False).returncode == 124
    second.link(cut=False)
    assert first.run(*asked, check=False).returncode == 0


def test_a_disk_of_a_hosts_own_can_be_full(net: Net, tmp_path: Path) -> None:
    first, second = net.hosts
    first.mount(tmp_path, "1m")
    asked = ("dd", "if=/dev/zero", f"of={tmp_path / 'file'}", "bs=64k", "count=32")
    assert "No space left" in first.run(*asked, check=False).stderr
    assert second.run(*asked).returncode == 0


def test_a_host_that_was_killed_boots_again_and_one_with_a_new_key_is_not_trusted(net: Net) -> None:
    host = net.hosts[1]
    host.kill()
    assert "onnect" in net.ssh(host, "-o", "ConnectTimeout=1", "true", check=False).stderr
    host.start()
    assert net.ssh(host, "hostname").stdout == "host2\n"
    host.change_key()
    refused = net.ssh(host, "true", check=False)
    assert refused.returncode == 255
    assert "REMOTE HOST IDENTIFICATION HAS CHANGED" in refused.stderr
