"""What of criu's command line an image needs, without what only the kernel can do: memory is not kept.

`dump` writes down what the process was executed as and ends it; `restore` executes that again, as a child of whoever
called, with the inherited streams, and says its pid. A file `fault` beside this one has it fail: `dump` or `restore`.
"""

import ctypes
import itertools
import json
import os
import signal
import sys
import time
from pathlib import Path

HERE = Path(sys.argv[0]).parent


def fail(log: Path, words: str) -> None:
    """As criu ends: the cause, then what follows from it."""
    log.write_text(f"(00.1) Error (criu/image.c:1): {words}\n(00.2) Error (criu/cr.c:2): It failed.\n")
    sys.exit(1)


def main(action: str, words: list[str]) -> None:
    """Do as criu does."""
    if action == "--version":
        print("Version: 4.2")
        return
    if action == "check":
        print("Looks good.")
        return
    value = dict(itertools.pairwise(words))
    place, log = Path(value["-D"]), Path(value["-o"])
    fault = (HERE / "fault").read_text() if (HERE / "fault").exists() else ""
    if action == "dump":
        pid = int(value["-t"])
        (place / "core.img").write_bytes(b"\0" * 4096)
        if fault == "dump":
            fail(log, "Can't write pages: No space left on device")
        told = {name: Path(f"/proc/{pid}/{name}").read_text().split("\0")[:-1] for name in ("cmdline", "environ")}
        (place / "told.json").write_text(json.dumps({**told, "cwd": str(Path(f"/proc/{pid}/cwd").readlink())}))
        os.kill(pid, signal.SIGKILL)
        return
    if fault == "restore":
        fail(log, "Can't open the mapped file: No such file or directory")
    told = json.loads((place / "told.json").read_text())
    caller = os.getpid()
    child = os.fork()
    if child:
        with Path(value["--pidfile"]).open("x") as file:
            file.write(str(child))
        os._exit(0)
    os.setsid()
    # Its parent is to be the guardian, whose death it dies of, and not this program's, which ends now.
    while os.getppid() == caller:
        time.sleep(0.001)
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)
    os.chdir(told["cwd"])
    os.execve(told["cmdline"][0], told["cmdline"], dict(one.split("=", 1) for one in told["environ"]))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
