"""A little engine that answers completions and counts them: `python answering.py PORT EVENTS`."""

import http.server
import json
import os
import sys
import time

port, events = int(sys.argv[1]), open(sys.argv[2], "a", buffering=1)  # noqa: SIM115, PTH123 (open as long as it runs)


class Handler(http.server.BaseHTTPRequestHandler):
    asked = 0

    def do_GET(self) -> None:
        self.answer({"asked": Handler.asked, "pid": os.getpid()})

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        Handler.asked += 1
        events.write(json.dumps({"name": "answered", "t_ns": time.monotonic_ns()}) + "\n")
        self.answer({"choices": [{"text": "a"}]})

    def answer(self, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        print("answered", self.path, flush=True)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        return


events.write(json.dumps({"name": "loaded", "t_ns": time.monotonic_ns()}) + "\n")
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
