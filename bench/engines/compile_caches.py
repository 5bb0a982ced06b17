"""Where engines keep what they compiled: the folders, the variables that move them, and what lies in them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# Variable → subfolder. vLLM keeps its compile cache, and Inductor's and Triton's, below the first; torch.compile
# elsewhere obeys the next two; the rest are kernels built or translated at run time.
COMPILE_CACHES = {
    "VLLM_CACHE_ROOT": "vllm",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
    "FLASHINFER_WORKSPACE_BASE": "flashinfer",
    "CUDA_CACHE_PATH": "cuda",
}


def compile_cache_env(folder: Path) -> dict[str, str]:
    """Variables that keep every compile cache of a launch inside one folder."""
    return {variable: str(folder / name) for variable, name in COMPILE_CACHES.items()}


def without_caches(env: Mapping[str, str]) -> dict[str, str]:
    """Variables but for those that move compile caches, which are a launch's own."""
    return {name: value for name, value in env.items() if name not in COMPILE_CACHES}


# Files in a cache that say nothing about compiled code: what vLLM learned of a model's class, locks, usage statistics.
_NOT_CODE = ("vllm/modelinfos/", "vllm/assets/", ".lock", "usage_stats.json")


def contents(folder: Path) -> dict[str, Any]:
    """Evidence of what a cache folder holds: files, bytes, compiled (files of compiled code) and a digest of them.

    A folder that cannot be read has `error` and null counts.
    """
    digest, files, size, compiled = hashlib.sha256(), 0, 0, 0
    try:
        for path, length in _walk(folder):
            digest.update(f"{path}\0{length}\n".encode())
            files, size = files + 1, size + length
            compiled += not path.startswith(_NOT_CODE) and not path.endswith(_NOT_CODE)
    except OSError as error:
        return {"files": None, "bytes": None, "compiled": None, "digest": None, "error": str(error)}
    return {"files": files, "bytes": size, "compiled": compiled, "digest": digest.hexdigest()[:16] if files else None}


def _walk(folder: Path) -> Iterator[tuple[str, int]]:
    if not folder.exists():
        return
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path.relative_to(folder).as_posix(), path.stat().st_size
