"""The Ollama engine: `ollama serve` with a model store of the launch's own.

Written after its sources and public logs (0.9 to 0.17) and tested against a server that speaks as it does. Not verified
against a live one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.engines import containers
from bench.engines.engine import Endpoint, LaunchContext, LaunchSpec, LaunchTrace
from bench.engines.gguf import Header, gguf_file, header
from bench.engines.ollama_log import facts_of, log_phases
from bench.environments.environment import program
from bench.errors import LaunchError
from bench.phrases import among
from bench.record.launches import Phase
from bench.scenario.variant import Variant

STORE = "ollama"
# Arguments that are variables of the server, OLLAMA_<NAME>.
VARIABLES = (
    *("context_length", "num_parallel", "flash_attention", "kv_cache_type", "keep_alive", "load_timeout"),
    *("max_queue", "gpu_overhead", "llm_library", "sched_spread", "new_engine", "multiuser_cache", "debug", "vulkan"),
)
# Arguments that are parameters of the model, as in a Modelfile.
PARAMETERS = ("num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread", "use_mmap", "num_keep")
OURS = ("template", "version")
# The weights stay loaded between requests, nothing is tidied away, and one model is held.
STEADY = {"OLLAMA_KEEP_ALIVE": "-1", "OLLAMA_NOPRUNE": "1", "OLLAMA_MAX_LOADED_MODELS": "1", "NO_COLOR": "1"}
_LAYER = "application/vnd.ollama.image."
_CONFIG = "application/vnd.docker.container.image.v1+json"
_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class Ollama:
    """Ollama's OpenAI-compatible endpoint. It loads GGUF files, at the first request, which the cold start includes.

    It takes no token ids and no `ignore_eos`: prompts go as text, and answers may end early.
    """

    name = "ollama"
    form = "gguf"

    def command(self, variant: Variant, launch: LaunchContext) -> LaunchSpec:
        """The server's environment and the model's manifest; LaunchError for arguments that it does not know."""
        engine = variant.engine
        args = {**engine.args, **launch.args}
        known = (*VARIABLES, *PARAMETERS, *OURS)
        for name in args:
            if name not in known:
                raise LaunchError("bad_argument", f"ollama has no setting {name!r}: {among(known, name)}")
        weights = _weights(launch)
        served = f"{(engine.served_model or variant.model_name).lower()}:latest"
        store = launch.folder / STORE
        blob = store_model(store, served, weights, launch.checkpoint.digest or "", args, linked=not engine.image)
        variables = {f"OLLAMA_{name.upper()}": _word(args[name]) for name in VARIABLES if name in args}
        inside = containers.MODEL if engine.image else str(store)
        place = {"OLLAMA_HOST": f"{launch.host}:{launch.port}", "OLLAMA_MODELS": inside}
        env = {**STEADY, **variables, **place, **engine.env, **launch.env}
        if engine.image:
            folders = {store: containers.MODEL, weights: f"{containers.MODEL}/blobs/{blob}"}
            command = (engine.path or "ollama", "serve")
            argv, env = containers.around(engine.image, command, port=launch.port, env=env, folders=folders)
        else:
            argv = (str(_program(variant)), "serve")
        return LaunchSpec(
            argv=argv,
            env=env,
            endpoint=Endpoint(launch.host, launch.port, served, token_ids=False, body={"ignore_eos": None}),
            cwd=launch.folder,
            health=engine.ready or "/api/version",
            ready_timeout_s=engine.ready_timeout_s,
            stop_timeout_s=engine.stop_timeout_s,
            wants_gpu=args.get("num_gpu", -1) != 0 and containers.device() is not containers.NONE,
        )

    def phases(self, trace: LaunchTrace) -> list[Phase]:
        """What its log says; the model is loaded within the first request."""
        return log_phases(trace)

    def facts(self, trace: LaunchTrace) -> dict[str, Any]:
        """What it says that it really uses, and on what evidence a GPU is believed to be used."""
        return {"engine": self.name, "verified": "not against a live server", **facts_of(trace)}


def store_model(
    store: Path, served: str, weights: Path, digest: str, args: Mapping[str, Any], *, linked: bool = True
) -> str:
    """A model store that holds this one model: manifest, configuration, and the weights as a blob. The blob's name.

    The blob is named after the checkpoint's digest: hashing gigabytes here would bring them into the page cache, and
    Ollama compares names with contents only while it downloads. In a container (`linked` false) the weights are
    mounted in the blob's place.
    """
    name, _, tag = served.partition(":")
    blobs, manifests = store / "blobs", store / "manifests" / "registry.ollama.ai" / "library" / name
    for folder in (blobs, manifests):
        folder.mkdir(parents=True, exist_ok=True)
    model = f"sha256:{(digest.removeprefix('sha256:') or hashlib.sha256(str(weights).encode()).hexdigest())[:64]:0<64}"
    blob = blobs / model.replace(":", "-")
    blob.unlink(missing_ok=True)
    if linked:
        blob.symlink_to(weights.absolute())
    else:
        blob.touch()
    layers = [{"mediaType": f"{_LAYER}model", "digest": model, "size": weights.stat().st_size}]
    if "template" in args:
        layers.append(_layer(blobs, "template", str(args["template"]).encode()))
    if chosen := {name: args[name] for name in PARAMETERS if name in args}:
        layers.append(_layer(blobs, "params", json.dumps(chosen).encode()))
    about = _described(header(weights), [layer["digest"] for layer in layers])
    config = {**_layer(blobs, "config", json.dumps(about).encode()), "mediaType": _CONFIG}
    manifest = {"schemaVersion": 2, "mediaType": _MANIFEST, "config": config, "layers": layers}
    (manifests / tag).write_text(json.dumps(manifest), encoding="utf-8")
    return blob.name


def _layer(blobs: Path, kind: str, contents: bytes) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(contents).hexdigest()}"
    (blobs / digest.replace(":", "-")).write_bytes(contents)
    return {"mediaType": f"{_LAYER}{kind}", "digest": digest, "size": len(contents)}


def _described(found: Header, layers: list[Any]) -> dict[str, Any]:
    family = found.architecture or "llama"
    return {
        "model_format": "gguf",
        "model_family": family,
        "model_families": [family],
        "model_type": str(found.metadata.get("general.size_label", "")),
        "file_type": (found.file_type or "").upper(),
        "architecture": "amd64",
        "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": layers},
    }


def _weights(launch: LaunchContext) -> Path:
    checkpoint = launch.checkpoint
    if checkpoint.format != "gguf" or checkpoint.path is None:
        raise LaunchError("unsupported_quantization", f"Ollama loads GGUF files here, not {checkpoint.format}")
    if not checkpoint.path.exists():
        raise LaunchError("missing_file", f"{checkpoint.path} does not exist")
    return gguf_file(checkpoint.path)


def _program(variant: Variant) -> Path:
    """Ollama is not built here: the one on PATH, unless the scenario names another."""
    engine = variant.engine
    return program(engine if engine.path else engine.model_copy(update={"path": "ollama"}))


def _word(value: Any) -> str:
    return {True: "1", False: "0"}.get(value, str(value)) if isinstance(value, bool) else str(value)
