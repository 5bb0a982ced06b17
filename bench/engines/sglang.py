"""The SGLang engine. Written after its sources and public logs (0.4 to 0.5) and tested against a server that speaks so.

Not verified against a live server: its wheels need an NVIDIA GPU.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from bench.engines import containers
from bench.engines.compile_caches import compile_cache_env
from bench.engines.engine import Endpoint, LaunchContext, LaunchSpec, LaunchTrace
from bench.engines.logs import Between, Rule, Took, by_rules, lines
from bench.engines.vllm_flags import command_line
from bench.environments.environment import interpreter
from bench.environments.pythons import installed
from bench.errors import LaunchError
from bench.phrases import nearest
from bench.record.launches import Phase
from bench.scenario.variant import Variant

MODULE = ("-m", "sglang.launch_server")
DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
QUANTIZATIONS = (*DTYPES, "awq", "gptq", "int8")
# A message begins with "[2026-03-11 13:53:21 TP0] ".
ARGUMENTS = r"server_args=ServerArgs\("
RULES: tuple[Rule, ...] = (
    Between("imports", None, ARGUMENTS),
    Between("worker_process", ARGUMENTS, r"Init torch distributed begin"),
    Between("device", r"Init torch distributed begin", r"Init torch distributed ends|Load weight begin"),
    Between("weights", r"Load weight begin", r"Load weight end"),
    Between("kv_cache", r"Load weight end", r"Memory pool end|KV Cache is allocated"),
    Took("graph_capture", r"Capture cuda graph end\. Time elapsed: (?P<s>[\d.]+) s"),
    Between("api_server", r"max_total_num_tokens=", r"Uvicorn running on"),
    Between("own_warmup", r"Uvicorn running on", r"The server is fired up and ready to roll"),
)
# Our name → what the log says of it, and what its value is.
_FACTS: Mapping[str, tuple[str, type]] = {
    "dtype": (r"Load weight end\..*dtype=torch\.(?P<v>\w+)", str),
    "weights_gib": (r"Load weight end\..*mem usage=(?P<v>[\d.]+) GB", float),
    "kv_cache_tokens": (r"(?:KV Cache is allocated\. #tokens: |max_total_num_tokens=)(?P<v>\d+)", int),
    "context": (r"context_len=(?P<v>\d+)", int),
    "attention": (r"attention_backend='(?P<v>\w+)'", str),
    "device": (r"[( ]device='(?P<v>\w+)'", str),
    "prefix_caching": (r"disable_radix_cache=(?P<v>True|False)", str),
    "kv_cache_type": (r"kv_cache_dtype='(?P<v>\w+)'", str),
}


class SgLang:
    """SGLang's OpenAI-compatible server."""

    name = "sglang"
    cache_off: Mapping[str, Any] = {"disable_radix_cache": True}

    def command(self, variant: Variant, launch: LaunchContext) -> LaunchSpec:
        """The command line; LaunchError for flags that its sources do not have and weights it cannot serve."""
        engine, weights = variant.engine, launch.checkpoint
        if variant.quantization not in QUANTIZATIONS or weights.format != "safetensors":
            raise LaunchError(
                "unsupported_quantization", f"SGLang serves {', '.join(QUANTIZATIONS)} from safetensors here"
            )
        if weights.path is None or not weights.path.is_dir():
            raise LaunchError("missing_file", f"SGLang needs a checkpoint folder, not {weights.path}")
        python = None if engine.image else interpreter(engine)
        args = {**engine.args, **launch.args}
        version = args.pop("version", None) or (installed(python, "sglang") if python else None)
        if python:
            refuse_unknown(args, python, version)
        served = engine.served_model or variant.model_name
        flags: dict[str, Any] = {
            "model_path": weights.path if python else containers.MODEL,
            "host": launch.host,
            "port": launch.port,
            "served_model_name": served,
            "dtype": DTYPES.get(variant.quantization, "auto"),
            "enable_metrics": True,
            "enable_cache_report": True,
            **args,
        }
        # Its switches can only be turned on.
        words = (*MODULE, *command_line({name: value for name, value in flags.items() if value is not False}, None))
        caches = launch.caches or launch.folder / "caches"
        env = {
            "HF_HUB_OFFLINE": "1",
            "PYTHONUNBUFFERED": "1",
            **compile_cache_env(caches),
            **engine.env,
            **launch.env,
        }
        if python:
            argv: tuple[str, ...] = (str(python), *words)
        else:
            folders = {weights.path: containers.MODEL}
            inside = ("python3", *words)
            argv, env = containers.around(str(engine.image), inside, port=launch.port, env=env, folders=folders)
        return LaunchSpec(
            argv=argv,
            env=env,
            endpoint=Endpoint(launch.host, launch.port, served),
            cwd=launch.folder,
            health=engine.ready or "/health",
            ready_timeout_s=engine.ready_timeout_s,
            stop_timeout_s=engine.stop_timeout_s,
        )

    def phases(self, trace: LaunchTrace) -> list[Phase]:
        """What its log says, up to the request that it sends itself."""
        return by_rules(RULES, list(lines(trace.log)), trace.stamps)

    def facts(self, trace: LaunchTrace) -> dict[str, Any]:
        """What it says that it really uses, and that this adapter was not verified."""
        facts: dict[str, Any] = {"engine": self.name, "verified": "not against a live server"}
        said = [message.text for message in lines(trace.log)]
        for name, (pattern, kind) in _FACTS.items():
            match = next((match for text in said if (match := re.search(pattern, text))), None)
            if match:
                facts[name] = kind(match["v"])
        if "prefix_caching" in facts:
            facts["prefix_caching"] = facts["prefix_caching"] == "False"
        return facts


def refuse_unknown(args: Mapping[str, Any], python: Path, version: str | None) -> None:
    """LaunchError for a flag that the installed sources do not have; nothing where they cannot be read."""
    known = _flags_of(python)
    for name in args:
        if known and name not in known:
            near = nearest(name, sorted(known))
            hint = f"did you mean {near}?" if near else "see `python -m sglang.launch_server --help`"
            raise LaunchError("bad_argument", f"SGLang {version or ''} has no flag {name!r}: {hint}")


@cache
def _flags_of(python: Path) -> frozenset[str]:
    """Flag names in the installed sources, read as text."""
    for source in python.absolute().parent.parent.glob("lib*/python3*/*-packages/sglang/srt/server_args.py"):
        text = source.read_text(encoding="utf-8", errors="replace")
        found = re.findall(r"[\"']--([a-z][\w-]+)[\"']", text) + re.findall(r"^ {4}(\w+)\s*:", text, re.MULTILINE)
        return frozenset(name.replace("-", "_") for name in found)
    return frozenset()
