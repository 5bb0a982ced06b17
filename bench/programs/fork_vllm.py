"""vLLM in a warm parent and in its forks: what it would do in new interpreters is done in forks. No file is changed.

Written for 0.8 to 0.33: what a version does not have is left alone.
"""

from __future__ import annotations

import importlib
import multiprocessing.context
import os
import pickle
import sys
from collections.abc import Callable, Sequence
from typing import Any

REGISTRY = "vllm.model_executor.models.registry"


def prepare(architectures: Sequence[str]) -> dict[str, Any]:
    """Import the modules of these model classes; which ones, and why others could not be."""
    found: dict[str, str] = {}
    for name in architectures:
        try:
            known = importlib.import_module(REGISTRY).ModelRegistry.models
            registered = known.get(name)
            module = getattr(registered, "module_name", None)
            if module:
                importlib.import_module(module)
            found[name] = module or "not in vLLM's registry"
        except Exception as error:
            found[name] = f"{type(error).__name__}: {error}"[:200]
    return {"model_modules": found}


def resume() -> None:
    """In a fork that is about to be the API server: answer `spawn` and `forkserver` with forks, here and below.

    The CPU platform asks for `spawn` whatever VLLM_WORKER_MULTIPROC_METHOD says. A device's context is what forbids a
    fork, and the API server makes none: it looks at models in another process so as not to.
    """
    contexts = multiprocessing.context._concrete_contexts  # type: ignore[attr-defined]
    contexts["spawn"] = contexts["forkserver"] = contexts["fork"]
    os.register_at_fork(after_in_child=undecorate)
    registry: Any = sys.modules.get(REGISTRY)
    if registry is not None and hasattr(registry, "_run_in_subprocess"):
        registry._run_in_subprocess = in_a_fork


def undecorate() -> None:
    """Up to 0.29, vLLM puts a process's name before its lines by replacing `write`; a fork is another process."""
    for stream in (sys.stdout, sys.stderr):
        vars(stream).pop("write", None)


def in_a_fork(work: Callable[[], Any]) -> Any:
    """The result of a function run in a fork: as apart from this process as the new interpreter that vLLM takes for it.

    RuntimeError with the function's own words if it fails there.
    """
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(receiving)
            try:
                answer = pickle.dumps((True, work()))
            except BaseException as error:
                answer = pickle.dumps((False, f"{type(error).__name__}: {error}"))
            with os.fdopen(sending, "wb") as pipe:
                pipe.write(answer)
        finally:
            os._exit(0)
    os.close(sending)
    with os.fdopen(receiving, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    done, result = pickle.loads(data) if data else (False, "the process that looked died")
    if not done:
        raise RuntimeError(f"Error raised in a forked process:\n{result}")
    return result
