"""A stand-in for `systemd-run`, where no systemd is: transient services as systemd-run(1) and systemd.exec(5) say.

    systemd_run.py --quiet --collect --unit NAME --working-directory DIR -p StandardOutput=append:FILE … PROGRAM ARG…

A service has none of its caller's environment, session or standard streams; its parent is the manager; when its main
process ends, what that left behind is ended too. A unit's name can be in use once. Options and properties that it does
not know are refused. Beside that it keeps an account of each unit in /run/units/NAME.json: argv, environment, main
process, and its exit status.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

UNITS = Path("/run/units")
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
_SUBREAPER = 36


def refused(words: str) -> None:
    print(words, file=sys.stderr)
    sys.exit(1)


def asked() -> tuple[argparse.Namespace, dict[str, str]]:
    parser = argparse.ArgumentParser(prog="systemd-run", allow_abbrev=False, exit_on_error=True)
    parser.add_argument("-q", "--quiet", action="store_true")
    parser.add_argument("-G", "--collect", action="store_true")
    parser.add_argument("-u", "--unit", required=True)
    parser.add_argument("--working-directory", required=True)
    parser.add_argument("-p", "--property", action="append", default=[])
    parser.add_argument("argv", nargs=argparse.REMAINDER)
    told = parser.parse_args()
    properties = dict(one.split("=", 1) for one in told.property)
    for name, value in properties.items():
        kind, _, file = value.partition(":")
        if name not in ("StandardOutput", "StandardError") or kind != "append" or not file.startswith("/"):
            refused(f"Unknown assignment: {name}={value}")
    if not Path("/run/systemd/system").is_dir():
        refused("System has not been booted with systemd as init system (PID 1). Can't operate.")
    if not os.access(told.argv[0], os.X_OK) or not told.argv[0].startswith("/"):
        refused(f"Failed to find executable {told.argv[0]}: No such file or directory")
    return told, properties


def main() -> None:
    told, properties = asked()
    UNITS.mkdir(exist_ok=True)
    account = UNITS / f"{told.unit}.json"
    with suppress(OSError, ValueError):
        known = json.loads(account.read_text())
        if known["status"] is None and Path(f"/proc/{known['pid']}").exists():
            refused(f"Failed to start transient service unit: Unit {told.unit}.service was already loaded.")
    ready, say = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.close(ready)
            manage(told, properties, account, say)
        os._exit(0)
    os.close(say)
    os.wait()
    # A simple service counts as started once its main process is there.
    sys.exit(0 if os.read(ready, 1) else 1)


def manage(told: argparse.Namespace, properties: dict[str, str], account: Path, say: int) -> None:
    """The manager's part, an orphan of the host's first process."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    files = {name: Path(value.partition(":")[2]).open("ab") for name, value in properties.items()}  # noqa: SIM115
    environment = {"PATH": _PATH, "LANG": "C.UTF-8", "INVOCATION_ID": os.urandom(16).hex()}
    process = subprocess.Popen(
        told.argv,
        cwd=told.working_directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=files.get("StandardOutput", subprocess.DEVNULL),
        stderr=files.get("StandardError", subprocess.DEVNULL),
    )
    known = {"argv": told.argv, "environment": environment, "pid": process.pid, "status": None}
    account.write_text(json.dumps(known))
    os.write(say, b"x")
    os.close(say)
    status = process.wait()
    left = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    for pid in left:
        os.kill(int(pid), signal.SIGKILL)
    account.write_text(json.dumps(known | {"status": status, "left": len(left)}))
    os._exit(0)


if __name__ == "__main__":
    main()
