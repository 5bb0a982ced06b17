"""Start: imports, device, tokenizer, weights, caches, then HTTP. Each is a timed event."""

from __future__ import annotations

import argparse
import os
import signal
import threading
import time
from types import FrameType
from typing import NoReturn

from .events import Events


class Stop(BaseException):
    """SIGTERM or SIGINT arrived; unwinds whatever is going on."""


def main() -> None:
    """Serve until told to stop."""
    started = time.monotonic_ns()
    args = arguments()
    events = Events(args.events)
    events.emit("worker_start", started)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _stop)
    server = None
    compiler = None
    try:
        with events.phase("import_torch"):
            import torch  # noqa: F401  # timed on its own
        with events.phase("import_transformers"):
            import transformers

            # Both are loaded lazily: naming them is what takes the time.
            _ = transformers.AutoTokenizer, transformers.AutoModelForCausalLM
            from .runtime import Runtime, quiet
            from .schedule import Scheduler
            from .serve import Server
        quiet()
        runtime = Runtime(args, events)
        compiler = runtime.compiler
        events.emit("facts", **runtime.facts())
        with events.phase("http"):
            scheduler = Scheduler(runtime, events, args.max_num_seqs)
            server = Server((args.host, args.port), runtime, scheduler, args.served_model_name)
            threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
        print(f"serving {args.served_model_name} on {args.host}:{args.port}", flush=True)
        scheduler.run()
    except Stop:
        if server is not None:
            server.socket.close()
        if compiler is not None:
            compiler.settle()
            compiler.save()
        events.emit("worker_end")
        # Threads that wait for clients and the interpreter's own clean-up have nothing left to save.
        os._exit(0)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="transformers_server", allow_abbrev=False)
    parser.add_argument("--model", required=True, help="checkpoint folder")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--served-model-name", default="model")
    parser.add_argument("--events", help="file for start-up events, JSON lines")
    parser.add_argument("--dtype", choices=("fp32", "fp16", "bf16"), default="bf16")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:N or auto")
    parser.add_argument("--threads", type=int, help="threads of one operation; torch's choice by default")
    parser.add_argument("--attention", help="attn_implementation: sdpa, eager, flash_attention_2, …")
    parser.add_argument("--max-model-len", type=int, help="longest prompt and answer together, in tokens")
    parser.add_argument("--max-num-seqs", type=int, default=4, help="sequences that run at once; others wait")
    parser.add_argument("--cache-implementation", choices=("dynamic", "static"), default="dynamic")
    parser.add_argument("--static-cache-tokens", type=int, help="tokens of each static cache")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--compile-mode", default="default")
    parser.add_argument("--compile-scope", choices=("all", "decode"), default="all")
    parser.add_argument("--compile-dynamic", choices=("auto", "true", "false"), default="auto")
    parser.add_argument("--compile-artifacts", help="file to load compiled code from, and to save it to at the end")
    return parser.parse_args()


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    raise Stop


if __name__ == "__main__":
    main()
