"""torch.compile: what is compiled, when that happened, what came from a cache, and artifacts kept in one file."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch._dynamo.utils

from .events import Events

# Our word for what Inductor counts, and its own.
_COUNTED = (("hits", "hit"), ("misses", "miss"))


class Compiler:
    """Wraps the forward pass and watches what compiling costs."""

    def __init__(self, args: argparse.Namespace, events: Events) -> None:
        self._args = args
        self._events = events
        self._file = Path(args.compile_artifacts) if args.compile_artifacts else None
        self._began = 0
        self._seen = {"cache_hits": 0, "cache_misses": 0}
        if not args.compile:
            return
        self._watch()
        if self._file and self._file.is_file():
            self._load()

    def wrap(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        """The forward pass to call; compiled at its first call, and again for shapes it does not know yet."""
        if not self._args.compile:
            return forward
        dynamic = {"auto": None, "true": True, "false": False}[self._args.compile_dynamic]
        compiled: Callable[..., Any] = torch.compile(forward, mode=self._args.compile_mode, dynamic=dynamic)
        return compiled

    def settle(self) -> None:
        """Say what compiling and its caches did since the last call, if anything."""
        if not self._args.compile:
            return
        counters = torch._dynamo.utils.counters
        now = {f"cache_{kind}": counters["inductor"][f"fxgraph_cache_{word}"] for kind, word in _COUNTED}
        if now != self._seen:
            fresh = {name: value - self._seen[name] for name, value in now.items()}
            aot = {f"aot_{name}": counters["aot_autograd"][f"autograd_cache_{name}"] for name in ("hit", "miss")}
            self._events.emit("compile_cache", **fresh, **aot, graphs=counters["stats"]["unique_graphs"])
            self._seen = now

    def save(self) -> None:
        """Write the artifacts, whole or not at all, if anything was compiled that the file does not hold."""
        if not self._args.compile or self._file is None:
            return
        if self._file.is_file() and not self._seen["cache_misses"]:
            return
        with self._events.phase("compile_artifacts_save", file=str(self._file)) as detail:
            artifacts = torch.compiler.save_cache_artifacts()
            if artifacts is None:
                detail["bytes"] = None
                return
            data, _ = artifacts
            self._file.parent.mkdir(parents=True, exist_ok=True)
            fresh = self._file.with_name(f"{self._file.name}.{os.getpid()}.new")
            fresh.write_bytes(data)
            fresh.replace(self._file)
            detail["bytes"] = len(data)

    def _load(self) -> None:
        assert self._file is not None
        with self._events.phase("compile_artifacts_load", file=str(self._file)) as detail:
            data = self._file.read_bytes()
            detail["bytes"] = len(data)
            try:
                loaded = torch.compiler.load_cache_artifacts(data)
                detail["loaded"] = loaded is not None
            except Exception as error:  # a file of another torch, or a damaged one: compile afresh and say so
                detail["loaded"] = False
                detail["error"] = f"{type(error).__name__}: {error}"

    def _watch(self) -> None:
        """Time every compilation: tracing, code generation and what a cache saves of it."""
        from torch._dynamo.callback import callback_handler

        # Older versions of torch call these without an argument.
        def start(*what: Any) -> None:
            self._began = time.monotonic_ns()

        def end(*what: Any) -> None:
            frame = getattr(what[0], "compile_id", None) if what else None
            self._events.emit("compile", self._began, time.monotonic_ns(), frame=frame)

        callback_handler.register_start_callback(start)
        callback_handler.register_end_callback(end)
