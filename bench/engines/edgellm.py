"""The TensorRT Edge-LLM engine. Written after its sources (0.11) and tested against a server that speaks as they do.

Not verified against a live server: its package needs an NVIDIA GPU or a Jetson.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from bench.engines import containers
from bench.engines.engine import Endpoint, LaunchContext, LaunchSpec, LaunchTrace
from bench.engines.vllm_flags import command_line
from bench.environments.environment import interpreter, program
from bench.environments.pythons import installed
from bench.errors import LaunchError
from bench.phrases import among
from bench.record.launches import Phase
from bench.scenario.model import EngineSetting
from bench.scenario.variant import Variant

# The command of 0.11, and the one before it.
COMMANDS = (("trtedge", "serve"), ("tensorrt-edgellm-serve",))
QUANTIZATIONS = ("fp16", "awq", "gptq", "int8")
FLAGS = (
    *("cache_dir", "engine_cache_max_size_gb", "clear_engine_cache", "max_input_len", "max_batch_size"),
    *("max_kv_cache_capacity", "draft_top_k", "draft_step", "verify_tree_size", "max_verify_tree_size"),
    *("max_draft_tree_size", "speculative_config", "enable_context_reuse", "enable_in_flight_batching"),
    *("context_cache_max_records", "context_cache_recurrent_snapshot_pool_bytes"),
    *("context_cache_partial_kv_snapshot_pool_bytes", "max_queued_requests", "queue_timeout", "reasoning_parser"),
    *("tool_call_parser", "enable_auto_tool_choice", "log_level", "max_image_tokens", "max_image_tokens_per_image"),
)


class EdgeLlm:
    """TensorRT Edge-LLM's OpenAI-compatible server: chats only, greedy or sampled.

    It builds an engine for the board at the first start, which takes minutes and is kept in `cache_dir`; by default
    that is the launch's own folder of compile caches, so that the warm-up strategy decides whether it is warm.
    """

    name = "edge-llm"

    def command(self, variant: Variant, launch: LaunchContext) -> LaunchSpec:
        """The command line; LaunchError for flags that its sources do not have and weights it cannot serve."""
        engine, weights = variant.engine, launch.checkpoint
        if variant.quantization not in QUANTIZATIONS or weights.format != "safetensors":
            raise LaunchError(
                "unsupported_quantization", f"TensorRT Edge-LLM serves {', '.join(QUANTIZATIONS)} from safetensors here"
            )
        if weights.path is None or not weights.path.is_dir():
            raise LaunchError("missing_file", f"TensorRT Edge-LLM needs a checkpoint folder, not {weights.path}")
        given = {**engine.args, **launch.args}
        for name in given:
            if name not in FLAGS:
                raise LaunchError("bad_argument", f"TensorRT Edge-LLM has no flag {name!r}: {among(FLAGS, name)}")
        caches = (launch.caches or launch.folder / "caches") / "edgellm"
        served = engine.served_model or variant.model_name
        flags = {
            "host": launch.host,
            "port": launch.port,
            "served_model_name": served,
            "cache_dir": f"{containers.CACHES}/edgellm" if engine.image else caches,
            **{name: value for name, value in given.items() if value is not False},
        }
        words = tuple(command_line(flags, None))
        env = {"HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", **engine.env, **launch.env}
        if engine.image:
            caches.mkdir(parents=True, exist_ok=True)
            folders = {weights.path: containers.MODEL, caches: f"{containers.CACHES}/edgellm"}
            inside = (*COMMANDS[0], containers.MODEL, *words)
            argv, env = containers.around(engine.image, inside, port=launch.port, env=env, folders=folders)
        else:
            argv = (*_program(engine), str(weights.path), *words)
        return LaunchSpec(
            argv=argv,
            env=env,
            endpoint=Endpoint(launch.host, launch.port, served, token_ids=False, completions=False),
            cwd=launch.folder,
            health=engine.ready or "/health/ready",
            ready_timeout_s=engine.ready_timeout_s,
            stop_timeout_s=engine.stop_timeout_s,
        )

    def phases(self, trace: LaunchTrace) -> list[Phase]:
        """None of its own: its sources promise no line of their log. The launch's stamps tell the rest."""
        return []

    def facts(self, trace: LaunchTrace) -> dict[str, Any]:
        """That this engine was driven as its source says, and no more."""
        return {"engine": self.name, "verified": "not against a live server"}


def _program(engine: EngineSetting) -> tuple[str, ...]:
    """The server's command: `path:`, or beside the interpreter that has the package."""
    if engine.path:
        return (
            (str(program(engine)), *COMMANDS[0][1:]) if Path(engine.path).name == "trtedge" else (str(program(engine)),)
        )
    python = interpreter(engine)
    for name, *rest in COMMANDS:
        found = shutil.which(python.parent / name)
        if found:
            return (found, *rest)
    version = installed(python, "tensorrt-edgellm")
    raise LaunchError(
        "missing_module",
        f"beside {python} there is no {' and no '.join(words[0] for words in COMMANDS)}"
        + ("" if version else ": the package tensorrt-edgellm is not installed there"),
    )
