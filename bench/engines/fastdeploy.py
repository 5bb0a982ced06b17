"""The FastDeploy engine (PaddlePaddle). Written after its source and tested against a server that speaks as it does.

Not verified against a live server: its wheels need PaddlePaddle for a GPU or an accelerator.
"""

from __future__ import annotations

from typing import Any

from bench.engines.containers import MODEL, around
from bench.engines.engine import Endpoint, LaunchContext, LaunchSpec, LaunchTrace
from bench.engines.ports import free_port
from bench.engines.vllm_flags import command_line
from bench.environments.environment import interpreter
from bench.errors import LaunchError
from bench.record.launches import Phase
from bench.scenario.variant import Variant

MODULE = ("-m", "fastdeploy.entrypoints.openai.api_server")
# What it opens beside its HTTP port; a fixed default would let two launches meet.
PORTS = ("metrics_port", "engine_worker_queue_port", "cache_queue_port")
# How it is told to quantize the weights while it loads them.
QUANTIZATION = {"int8": "wint8"}
FLOATS = ("bf16", "fp16")


class FastDeploy:
    """FastDeploy's OpenAI-compatible server. Its chunks carry `arrival_time`, recorded as the server's own TTFT."""

    name = "fastdeploy"

    def command(self, variant: Variant, launch: LaunchContext) -> LaunchSpec:
        """The command line; LaunchError for weights that it cannot serve."""
        engine, weights = variant.engine, launch.checkpoint
        if variant.quantization not in (*FLOATS, *QUANTIZATION) or weights.format != "safetensors":
            raise LaunchError(
                "unsupported_quantization", f"FastDeploy serves {', '.join((*FLOATS, *QUANTIZATION))} from safetensors"
            )
        if weights.path is None or not weights.path.is_dir():
            raise LaunchError("missing_file", f"FastDeploy needs a checkpoint folder, not {weights.path}")
        served = engine.served_model or variant.model_name
        flags: dict[str, Any] = {
            "model": MODEL if engine.image else weights.path,
            "host": launch.host,
            "port": launch.port,
            **{port: free_port() for port in PORTS},
            "served_model_name": served,
            "quantization": QUANTIZATION.get(variant.quantization),
            **engine.args,
            **launch.args,
        }
        # Its switches can only be turned on.
        words = (*MODULE, *command_line({name: value for name, value in flags.items() if value is not False}, None))
        env = {"PYTHONUNBUFFERED": "1", "DO_NOT_TRACK": "1", **engine.env, **launch.env}
        if engine.image:
            folders = {weights.path: MODEL}
            argv, env = around(engine.image, ("python", *words), port=launch.port, env=env, folders=folders)
        else:
            argv = (str(interpreter(engine)), *words)
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
        """None of its own: it writes its log into files. The launch's stamps tell the rest."""
        return []

    def facts(self, trace: LaunchTrace) -> dict[str, Any]:
        """That this engine was driven as its source says, and no more."""
        return {"engine": self.name, "verified": "not against a live server"}
