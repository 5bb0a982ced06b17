"""Several hosts on this machine, each with sshd, and a network between them that can be slow, lossy or cut.

    with lan(2, delay_ms=1) as net:
        net.hosts[0].run("hostname")          # in the host, without ssh
        net.ssh(net.hosts[0], "hostname")     # the same by ssh, as a user would
        net.hosts[1].link(cut=True)

A host is a network, process, mount, host-name and (if asked for) time namespace: it has its own /proc, its own
127.0.0.1 and its own clock, and all that runs on it ends when it is killed. Files are this machine's, but for /run and
what is mounted on it. This machine takes part as `net.address`. Nothing is left behind, also after kill -9.

`net.environment` is for programs that call ssh by its name: there `ssh`, `scp` and `sftp` are this net's, with its keys
and its known hosts. `net.config` is the same as a file for `ssh -F`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests import waiting

_TOOLS = {
    "sshd": "openssh-server",
    "ssh": "openssh-client",
    "ip": "iproute2",
    "unshare": "util-linux",
    "setpriv": "util-linux",
}
_WHERE = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
_ORDERLY = ["setpriv", "--pdeathsig", "KILL"]


def missing() -> str | None:
    """Why there can be no hosts here, for a skip; None if there can."""
    if os.geteuid() != 0:
        return "namespaces with networks between them are root's: run the tests as root"
    if lacking := sorted({package for tool, package in _TOOLS.items() if not shutil.which(tool, path=_WHERE)}):
        return f"needs {', '.join(lacking)}: apt-get install {' '.join(lacking)}"
    if not Path("/dev/net/tun").exists():
        return "needs /dev/net/tun: modprobe tun"
    tried = subprocess.run([*_unshared(None), "true"], capture_output=True, text=True, check=False)
    return f"namespaces cannot be made here: {tried.stderr.strip()}" if tried.returncode else None


@dataclass
class Host:
    """One host: its alias (as ssh knows it), its address, and the process that is its first."""

    alias: str
    address: str
    number: int
    key: Path
    orders: Net = field(repr=False)
    _shell: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its first process, as seen from outside; it ends the others with it."""
        assert self._shell is not None
        children = Path(f"/proc/{self._shell.pid}/task/{self._shell.pid}/children")
        waiting.until(lambda: children.read_text().split())
        return int(children.read_text().split()[0])

    def run(self, *argv: str, check: bool = True, **how: Any) -> subprocess.CompletedProcess[str]:
        """Run a program in the host, without ssh."""
        return subprocess.run([*self.inside(), *argv], capture_output=True, text=True, check=check, **how)

    def inside(self) -> list[str]:
        """What to put before an argv to have it run in the host."""
        return ["nsenter", "--target", str(self.pid), "--net", "--mount", "--pid", "--uts", "--time"]

    def processes(self) -> dict[int, str]:
        """Command lines by process id in the host, its own sshd left out."""
        # Twice `w`: whole lines, also where COLUMNS is set.
        listed = self.run("ps", "-wweo", "pid=,args=").stdout.splitlines()
        found = {int(line.split()[0]): line.split(None, 1)[1] for line in listed}
        return {pid: said for pid, said in found.items() if "sshd" not in said and not said.startswith("ps -wweo")}

    def mount(self, folder: Path, size: str) -> None:
        """Give the host a disk of its own at a folder, of so many bytes (`8m`)."""
        self.run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))

    def link(self, **how: float | bool | None) -> None:
        """Change its cable: `delay_ms` each way, `loss` (a share), `mbit`, `cut`."""
        self.orders.order({"host": self.number, **how})

    def change_key(self) -> None:
        """Be another machine at the same address, as far as ssh can tell."""
        self.key.unlink()
        _new_key(self.key)
        self.kill()
        self.start()

    def kill(self) -> None:
        """End the host and all that runs on it, as if its plug were pulled: nobody on it says good-bye."""
        if self._shell is not None:
            self.link(cut=True)
            self._shell.kill()
            self._shell.wait()
            self._shell = None

    def start(self, clock_s: int = 0) -> None:
        """Boot; its CLOCK_MONOTONIC is `clock_s` ahead of this machine's."""
        folder = self.key.parent
        said = (folder / f"{self.alias}.log").open("ab")
        boot = (
            f"mount -t tmpfs tmpfs /run && mkdir /run/sshd && hostname {self.alias} && "
            f"exec {_tool('sshd')} -D -e -f {folder / self.alias}.conf"
        )
        with said:
            self._shell = subprocess.Popen(
                [*_unshared(clock_s or None), "sh", "-c", boot], stdin=subprocess.DEVNULL, stdout=said, stderr=said
            )
        self.orders.attach(self)
        self.link(cut=False)


@dataclass
class Net:
    """The network and its hosts."""

    folder: Path
    prefix: str
    names: Sequence[str]
    switch: subprocess.Popen[str]
    hosts: list[Host] = field(default_factory=list)

    @property
    def address(self) -> str:
        """This machine's, as the hosts see it."""
        return f"{self.prefix}.1"

    @property
    def config(self) -> Path:
        """The file for `ssh -F`."""
        return self.folder / "config"

    @property
    def environment(self) -> Mapping[str, str]:
        """This process's environment, in which `ssh` is this net's."""
        return {**os.environ, "PATH": f"{self.folder / 'bin'}{os.pathsep}{os.environ['PATH']}"}

    def ssh(self, host: Host, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command by ssh."""
        argv = ["ssh", "-F", str(self.config), host.alias, *command]
        return subprocess.run(argv, capture_output=True, text=True, check=check)

    def order(self, order: Mapping[str, Any]) -> None:
        """Have the cable changed, and return when it is."""
        stdin, stdout = _pipes(self.switch)
        stdin.write(json.dumps(order) + "\n")
        stdin.flush()
        assert stdout.readline() == "done\n"

    def attach(self, host: Host) -> None:
        """Plug the host in: its device is made anew if the last one went with the host."""
        name = self.names[host.number]
        self.order({"host": host.number, "name": name})
        _ip("link", "set", name, "netns", str(host.pid))
        for words in ("addr add {}/24 dev {}", "link set {1} up", "link set lo up"):
            host.run(_tool("ip"), *words.format(f"{host.address}", name).split())


@contextmanager
def lan(count: int, *, delay_ms: float = 0.0, clocks_s: Sequence[int] = ()) -> Iterator[Net]:
    """So many hosts while the block runs, called host1, host2, …; `clocks_s` says how far their clocks are ahead."""
    with ExitStack() as around:
        folder = Path(around.enter_context(tempfile.TemporaryDirectory(prefix="firsttoken-lan-")))
        prefix = _free_prefix()
        names = [f"ft{os.getpid()}x{number}" for number in range(count + 1)]
        argv = [*_ORDERLY, sys.executable, str(Path(__file__).with_name("lan.py")), prefix, *names]
        switch = around.enter_context(subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        around.callback(switch.kill)
        assert _pipes(switch)[1].readline() == "ready\n"
        _ip("addr", "add", f"{prefix}.1/24", "dev", names[0])
        _ip("link", "set", names[0], "up")
        net = Net(folder, prefix, names, switch)
        _new_key(folder / "user")
        for number in range(1, count + 1):
            host = Host(f"host{number}", f"{prefix}.{number + 1}", number, folder / f"host{number}.key", net)
            net.hosts.append(host)
            _new_key(host.key)
        _write_configuration(net)
        for host, clock in zip(net.hosts, [*clocks_s, *([0] * (count - len(clocks_s)))], strict=True):
            host.start(clock)
            around.callback(host.kill)
        for host in net.hosts:
            waiting.until(lambda host=host: net.ssh(host, "true", check=False).returncode == 0)  # type: ignore[misc]
            host.link(delay_ms=delay_ms)
        yield net


def _write_configuration(net: Net) -> None:
    folder = net.folder
    for host in net.hosts:
        (folder / f"{host.alias}.conf").write_text(
            f"HostKey {host.key}\nAuthorizedKeysFile {folder / 'user.pub'}\nListenAddress 0.0.0.0:22\nPidFile none\n"
            "UsePAM no\nStrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
            "PermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\nPrintMotd no\n"
        )
    known = folder / "known_hosts"
    known.write_text("".join(f"{host.address} {host.key.with_suffix('.key.pub').read_text()}" for host in net.hosts))
    net.config.write_text(
        "".join(f"Host {host.alias}\n  HostName {host.address}\n" for host in net.hosts)
        + f"Host *\n  User root\n  IdentityFile {folder / 'user'}\n  IdentitiesOnly yes\n  IdentityAgent none\n"
        f"  UserKnownHostsFile {known}\n  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking yes\n"
        "  UpdateHostKeys no\n"
    )
    (folder / "bin").mkdir()
    for tool in ("ssh", "scp", "sftp"):
        script = folder / "bin" / tool
        script.write_text(f'#!/bin/sh\nexec {shutil.which(tool)} -F {net.config} "$@"\n')
        script.chmod(0o755)


def _free_prefix() -> str:
    """A net of ours alone: the place of this process among all, unless something is there already."""
    taken = subprocess.run([_tool("ip"), "-o", "addr"], capture_output=True, text=True, check=True).stdout
    start = os.getpid() % 65_536
    for step in range(65_536):
        one = (start + step) % 65_536
        # 10.64.0.0/10: seldom a home's or an office's.
        prefix = f"10.{64 + one // 256 % 64}.{one % 256}"
        if f" {prefix}." not in taken:
            return prefix
    raise AssertionError("no net is free")


def _unshared(clock_s: int | None) -> list[str]:
    time = [] if clock_s is None else ["--time", f"--monotonic={clock_s}", f"--boottime={clock_s}"]
    return [*_ORDERLY, "unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", *time]


def _new_key(file: Path) -> None:
    file.with_name(f"{file.name}.pub").unlink(missing_ok=True)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(file)], check=True)


def _pipes(process: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert process.stdin is not None
    assert process.stdout is not None
    return process.stdin, process.stdout


def _ip(*words: str) -> None:
    subprocess.run([_tool("ip"), *words], check=True)


def _tool(name: str) -> str:
    found = shutil.which(name, path=_WHERE)
    assert found is not None
    return found
