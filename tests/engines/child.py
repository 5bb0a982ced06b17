"""A real little server with bad habits, for the tests of what a launch must survive. `child.py PORT HABIT…`"""

import http.server
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

port, habits = int(sys.argv[1]), set(sys.argv[2:])


class Handler(http.server.BaseHTTPRequestHandler):
    asked = 0

    def do_GET(self) -> None:
        Handler.asked += 1
        status = 503 if "slow_health" in habits and Handler.asked < 4 else 500 if "never_ready" in habits else 200
        body = b'{"data": [{"id": "little-model"}]}'
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        if "dies_serving" in habits and self.path == "/die":
            print("RuntimeError: Engine core died", file=sys.stderr, flush=True)
            os._exit(3)

    def do_POST(self) -> None:
        """As vLLM does without the kernel it needs: the core dies, the API answers 500, and ends a moment later."""
        self.rfile.read(int(self.headers["Content-Length"]))
        print(
            "AttributeError: '_OpNamespace' '_C' object has no attribute 'cpu_gemm_wna16'", file=sys.stderr, flush=True
        )
        if "dies_at_request" in habits:
            os._exit(1)
        self.send_response(500)
        body = b'{"error": {"message": "EngineCore encountered an issue", "type": "InternalServerError"}}'
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body)
        if "lingers" in habits:
            threading.Timer(1.5, lambda: os._exit(1)).start()

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        return


def sleeper(daemonise: bool) -> None:
    """A child that would sleep for ten minutes; daemonised twice over, in a session of its own, if asked."""
    code = "import time; time.sleep(600)"
    if daemonise:
        code = f"import os\nif os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\n{code}"
    child = subprocess.Popen([sys.executable, "-S", "-E", "-c", code], start_new_session=daemonise)
    if daemonise:
        child.wait()


if "litters" in habits:
    folder = Path(os.environ["TMPDIR"], "cache", "kernels")
    folder.mkdir(parents=True)
    os.mkfifo(folder / "channel")
    (folder / "everything").symlink_to("/")
if "ignores_term" in habits:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "forks" in habits:
    sleeper(daemonise=False)
if "daemonises" in habits:
    sleeper(daemonise=True)
if "garbage" in habits:
    os.write(1, b"plain\n\xff\xfe broken utf-8\r\n10%\r20%\r100%\n" + b"x" * 1_000_000 + b"\nno newline at the en")
    time.sleep(0.05)
    os.write(1, b"d")
if "dies_at_start" in habits:
    sys.exit("ModuleNotFoundError: No module named 'torchvision'")
if "segfaults" in habits:
    os.kill(os.getpid(), signal.SIGSEGV)
if "silent_exit" in habits:
    sys.exit(0)
if "never_listens" in habits:
    time.sleep(600)
if "chatters" in habits:
    threading.Thread(target=lambda: [print("line", n, flush=True) for n in range(200_000)], daemon=True).start()

print("listening", flush=True)
http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
