"""The llama.cpp engine: `llama-server`, built here, a binary of yours, or in a container image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.engines import containers, llamacpp_flags
from bench.engines.engine import Endpoint, LaunchContext, LaunchSpec, LaunchTrace
from bench.engines.gguf import gguf_file
from bench.engines.llamacpp_log import facts_of, log_phases
from bench.environments.environment import program
from bench.errors import LaunchError
from bench.record.launches import Phase
from bench.scenario.model import EngineSetting
from bench.scenario.variant import Variant

# Arguments of ours, which are no flags of llama-server's.
OURS = ("version",)
# Asked for unless the scenario says otherwise, where the binary knows them. Its phases show at this verbosity only.
WANTED: dict[str, Any] = {"metrics": True, "offline": True, "ui": False, "log_verbosity": 4, "log_colors": "off"}


class LlamaCpp:
    """llama.cpp's OpenAI-compatible server. It loads GGUF files."""

    name = "llama-cpp"
    form = "gguf"
    # What turns its prefix cache off.
    cache_off: Mapping[str, Any] = {"cache_prompt": False, "cache_ram": 0}

    def command(self, variant: Variant, launch: LaunchContext) -> LaunchSpec:
        """The command line; LaunchError for flags that this binary does not know and weights it cannot load."""
        engine = variant.engine
        weights = _weights(launch)
        binary = None if engine.image else program(engine)
        known = llamacpp_flags.flags(binary) if binary else None
        served = engine.served_model or variant.model_name
        given = {**engine.args, **launch.args}
        args = {
            "model": weights if binary else f"{containers.MODEL}/{weights.name}",
            "host": launch.host,
            "port": launch.port,
            "alias": served,
            **{name: value for name, value in WANTED.items() if known is None or _knows(known, name)},
            **{name: value for name, value in given.items() if name not in OURS},
        }
        words = tuple(llamacpp_flags.command_line(args, known))
        env = {**engine.env, **launch.env}
        if binary:
            argv: tuple[str, ...] = (str(binary), *words)
        else:
            inside = (engine.path or "llama-server", *words)
            folders = {weights.parent: containers.MODEL}
            argv, env = containers.around(str(engine.image), inside, port=launch.port, env=env, folders=folders)
        return LaunchSpec(
            argv=argv,
            env=env,
            endpoint=Endpoint(launch.host, launch.port, served),
            cwd=launch.folder,
            health=engine.ready or "/health",
            ready_timeout_s=engine.ready_timeout_s,
            stop_timeout_s=engine.stop_timeout_s,
            wants_gpu=_wants_gpu(engine, given),
        )

    def phases(self, trace: LaunchTrace) -> list[Phase]:
        """What its log says, at the verbosity that the harness asks for."""
        return log_phases(trace)

    def facts(self, trace: LaunchTrace) -> dict[str, Any]:
        """What it says that it really uses; what it does not say is left out."""
        return {"engine": self.name, **facts_of(trace)}


def _wants_gpu(engine: EngineSetting, args: Mapping[str, Any]) -> bool:
    """Whether the launch is to run on a GPU: by its flags, else by what it is built for."""
    layers = args.get("n_gpu_layers", args.get("gpu_layers"))
    if args.get("device") == "none" or layers in (0, "0"):
        return False
    if layers is not None and layers != "auto":
        return True
    if engine.image:
        return containers.device() is not containers.NONE
    return engine.path is None and (engine.environment or "").startswith(("llama-cpp-cuda", "llama-cpp-jetson"))


def _weights(launch: LaunchContext) -> Path:
    checkpoint = launch.checkpoint
    if checkpoint.format != "gguf" or checkpoint.path is None:
        raise LaunchError("unsupported_quantization", f"llama.cpp loads GGUF files, not {checkpoint.format}")
    if not checkpoint.path.exists():
        raise LaunchError("missing_file", f"{checkpoint.path} does not exist")
    return gguf_file(checkpoint.path)


def _knows(known: llamacpp_flags.Flags, name: str) -> bool:
    flag = name.replace("_", "-")
    return flag in known or f"no-{flag}" in known
