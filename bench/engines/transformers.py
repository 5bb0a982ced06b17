"""The Transformers engine: a streaming server of ours over `model.forward`, in an interpreter that has Transformers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from bench.engines.compile_caches import without_caches
from bench.engines.engine import Checkpoint, Endpoint, LaunchContext, LaunchSpec, LaunchTrace, ParentSpec
from bench.environments.environment import interpreter
from bench.errors import LaunchError
from bench.phrases import among
from bench.programs import FOLDER
from bench.record.launches import Phase
from bench.record.schema import FORKED
from bench.scenario.model import EngineSetting
from bench.scenario.variant import Variant

EVENTS = "worker-events.jsonl"

# Flag → the types its value may have. They are the worker's options, with underscores.
FLAGS: dict[str, tuple[type, ...]] = {
    "dtype": (str,),
    "device": (str,),
    "threads": (int,),
    "attention": (str,),
    "max_model_len": (int,),
    "max_num_seqs": (int,),
    "cache_implementation": (str,),
    "static_cache_tokens": (int,),
    "compile": (bool,),
    "compile_mode": (str,),
    "compile_scope": (str,),
    "compile_dynamic": (str,),
    "compile_artifacts": (str,),
    # Ours: what a forked launch finds done, `code` unless it says more. Nothing to a start by exec.
    "preload": (str,),
}
# Flags with a few allowed values.
PRELOAD = ("code", "tokenizer", "weights")
_CHOICES = {
    "preload": PRELOAD,
    "cache_implementation": ("dynamic", "static"),
    "compile_scope": ("all", "decode"),
    "compile_dynamic": ("auto", "true", "false"),
    "dtype": ("fp32", "fp16", "bf16"),
}
# Quantizations whose computation runs in a dtype of its own; the others are that dtype.
_COMPUTE = {"gguf-q4": "bf16", "awq": "bf16", "gptq": "bf16", "int8": "bf16"}

# The worker's phases that every start has, in order; a missing one is null, never left out.
_ALWAYS = ("import_torch", "import_transformers", "device", "tokenizer", "weights", "http", "first_forward")
_SOMETIMES = ("compile_artifacts_load", "static_cache")


class Transformers:
    """Hugging Face Transformers behind an OpenAI-compatible server of ours."""

    name = "transformers"

    def command(self, variant: Variant, launch: LaunchContext) -> LaunchSpec:
        """The worker's command line; EnvironmentFault if its interpreter is missing."""
        engine, checkpoint = variant.engine, launch.checkpoint
        args = {**engine.args, **launch.args}
        _possible(variant, checkpoint, args)
        preload = args.pop("preload", PRELOAD[0])
        served = engine.served_model or variant.model_name
        events = launch.folder / EVENTS
        options = {
            "model": checkpoint.path,
            "host": launch.host,
            "port": launch.port,
            "served_model_name": served,
            "events": events,
            "dtype": _COMPUTE.get(variant.quantization, variant.quantization),
            **args,
        }
        env = {
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONUNBUFFERED": "1",
            **engine.env,
            **launch.env,
        }
        paths = (str(FOLDER), env.get("PYTHONPATH", os.environ.get("PYTHONPATH", "")))
        env["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
        return LaunchSpec(
            argv=(str(interpreter(engine)), "-m", "transformers_server", *_command_line(options)),
            env=env,
            endpoint=Endpoint(launch.host, launch.port, served),
            # `-m` puts the working folder first on the import path: the launch's own folder holds no modules.
            cwd=launch.folder,
            health=engine.ready or "/health",
            ready_timeout_s=engine.ready_timeout_s,
            stop_timeout_s=engine.stop_timeout_s,
            events_file=events,
            parent=_parent(options, preload, env) if variant.start == "forked" else None,
        )

    def mistakes(self, engine: EngineSetting) -> Iterator[tuple[str, str]]:
        """Flags that the worker would refuse."""
        return mistakes(engine.args)

    def phases(self, trace: LaunchTrace) -> list[Phase]:
        """The worker's own events; compilations stand inside the first forward pass or the request that caused them."""
        events = {str(event["name"]): event for event in reversed(trace.events)}
        found = [_before_worker(trace, events.get("worker_start"))]
        for name in sorted((*_ALWAYS, *_SOMETIMES), key=lambda name: _start(events.get(name))):
            if name in events:
                found.append(_phase(events[name]))
            elif name in _ALWAYS:
                found.append(Phase(name, None, None, "worker", reason="not_found"))
        until = trace.stamps.get("first_token")
        found += [
            _phase(event, parent=_around(event, events.get("first_forward")))
            for event in trace.events
            if event["name"] == "compile" and (until is None or event["t_ns"] < until)
        ]
        return found

    def facts(self, trace: LaunchTrace) -> dict[str, Any]:
        """What the worker said it really uses, and what its compile cache did in all."""
        facts: dict[str, Any] = {}
        for event in trace.events:
            if event["name"] == "facts":
                facts |= {key: value for key, value in event.items() if key not in ("name", "t_ns", "pid")}
            elif event["name"] == "static_cache":
                facts |= {"static_cache_bytes": event.get("bytes"), "static_cache_tokens": event.get("tokens")}
        compiled = [event for event in trace.events if event["name"] == "compile"]
        caches = [event for event in trace.events if event["name"] == "compile_cache"]
        if facts.get("compiled"):
            facts["compilations"] = len(compiled)
            facts["compile_s"] = sum(event["end_ns"] - event["t_ns"] for event in compiled) / 1e9
            facts["compile_cache_hits"] = sum(event.get("cache_hits", 0) for event in caches)
            facts["compile_cache_misses"] = sum(event.get("cache_misses", 0) for event in caches)
        return facts


def mistakes(args: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each flag that is not known or has a wrong value, and what is wrong with it."""
    for name, value in args.items():
        if name == "static_cache":
            continue
        if name not in FLAGS:
            yield name, f"transformers has no flag {name!r}: {among(sorted(FLAGS), name)}"
        # A bool is an int to Python, and `threads: true` is a mistake.
        elif type(value) not in FLAGS[name]:
            wanted = " or ".join(kind.__name__ for kind in FLAGS[name])
            yield name, f"args.{name} must be of type {wanted}, not {value!r}"
        elif name in _CHOICES and value not in _CHOICES[name]:
            yield name, f"args.{name} is {value!r}, and must be {among(sorted(_CHOICES[name]), value)}"


def _possible(variant: Variant, checkpoint: Checkpoint, args: dict[str, Any]) -> None:
    """Refuse what is known not to work before anything is started; settles `static_cache`, the short form."""
    if variant.engine.image:
        raise LaunchError("bad_argument", "the transformers engine runs in an interpreter, not in an image")
    if checkpoint.path is None or not checkpoint.path.is_dir():
        raise LaunchError("missing_file", f"the transformers engine needs a checkpoint folder, not {checkpoint.path}")
    if checkpoint.format == "gguf" and variant.quantization != "gguf-q4":
        raise LaunchError(
            "unsupported_quantization",
            f"{checkpoint.path} is packed as GGUF and cannot be served as {variant.quantization}",
        )
    if args.pop("static_cache", False):
        args.setdefault("cache_implementation", "static")
    for _, message in mistakes(args):
        raise LaunchError("bad_argument", message)


def _parent(options: Mapping[str, Any], preload: str, env: Mapping[str, str]) -> ParentSpec:
    """The parent of a model's class; with `preload: weights` it is one of that very checkpoint."""
    arguments = {"model": options["model"], "preload": preload}
    if preload == PRELOAD[2]:
        arguments |= {"dtype": options["dtype"], "attention": options.get("attention")}
    return ParentSpec(
        imports=("torch", "transformers"),
        prepare="transformers_server.preload:prepare",
        arguments=arguments,
        child="transformers_server.preload:resume",
        env=without_caches(env),
        holds=options["model"] if preload == PRELOAD[2] else None,
        versions=("torch", "transformers"),
    )


def _command_line(options: Mapping[str, Any]) -> list[str]:
    words = []
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            words.append(flag)
        elif value is not False:
            words += [flag, str(value)]
    return words


def _before_worker(trace: LaunchTrace, start: Mapping[str, Any] | None) -> Phase:
    """From exec to the worker's first statement: the dynamic loader and the interpreter's own start."""
    spawn = trace.stamps.get("spawn")
    if spawn is None or start is None:
        return Phase("interpreter", None, None, "worker", reason="not_found")
    return Phase("interpreter", spawn, start["t_ns"], "worker", process=_process(start))


def _phase(event: Mapping[str, Any], parent: str | None = None) -> Phase:
    if event.get("preloaded"):
        return Phase(event["name"], None, None, "worker", process=_process(event), parent=parent, reason=FORKED)
    return Phase(event["name"], event["t_ns"], event["end_ns"], "worker", process=_process(event), parent=parent)


def _around(event: Mapping[str, Any], outer: Mapping[str, Any] | None) -> str | None:
    inside = outer is not None and outer["t_ns"] <= event["t_ns"] and event["end_ns"] <= outer["end_ns"]
    return "first_forward" if inside else None


def _start(event: Mapping[str, Any] | None) -> float:
    return float("inf") if event is None else float(event["t_ns"])


def _process(event: Mapping[str, Any]) -> str:
    return f"worker {event.get('pid')}"
