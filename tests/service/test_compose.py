"""A compose file says what was measured: image by digest, the accelerator, the weights, the limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from bench.engines import containers
from bench.engines.containers import CACHES, MODEL, Container, Device
from bench.errors import UsageError
from bench.service.compose import HERE, Composed, document, inside
from bench.service.nginx import Nginx

DIGEST = "ghcr.io/nvidia-ai-iot/vllm@sha256:" + "a" * 64
SETTINGS: dict[str, Any] = {
    "host": "127.0.0.1",
    "port": 8000,
    "argv": [],
    "env": {},
    "model": {"path": "/models/weights", "folder": True, "files": {}, "digest": "d"},
    "environments": [{"path": "/opt/venv", "digest": "e"}],
    "container": {"program": "docker"},
    "ready": {"timeout_s": 240, "path": "/v1/completions", "model": "qwen", "key_env": None, "within_ms": 90.0},
    "log": {"bytes": 10_000_000, "files": 5},
    "stop_timeout_s": 20.0,
    "memory_mib": 6000,
}


def measured(on: Device) -> Container:
    """vLLM as an adapter runs it in a container; places are marked as in a record."""
    return Container(
        program="docker",
        name="firsttoken-{port}",
        image="vllm:r36",
        command=("python3", "-m", "vllm", "--model", MODEL, "--port", "{port}", "--format", "$x"),
        env={"VLLM_CACHE_ROOT": f"{CACHES}/vllm", "HF_TOKEN": None},
        folders=(("{model}", MODEL), ("{caches}/vllm", f"{CACHES}/vllm")),
        device=on.docker,
        init=True,
    )


def written(on: Device, front: Nginx | None = None) -> dict[str, Any]:
    settings = inside(measured(on), SETTINGS)
    made = Composed("svc", measured(on), DIGEST, "/models/weights", settings, front, "as measured")
    document_: dict[str, Any] = YAML(typ="safe").load(document(made))
    return document_


def test_a_jetson_s_service_has_its_runtime_and_the_host_s_network_and_ipc() -> None:
    (service,) = written(containers.JETSON)["services"].values()
    assert service["image"] == DIGEST
    assert (service["runtime"], service["network_mode"], service["ipc"]) == ("nvidia", "host", "host")
    assert "ports" not in service
    assert service["volumes"] == [
        f"./:{HERE}",
        f"/models/weights:{MODEL}:ro",
        f"./caches/vllm:{CACHES}/vllm",
    ]
    assert service["env_file"] == ["./secrets.env"]
    assert (service["mem_limit"], service["memswap_limit"]) == ("6000m", "6000m"), "no swap: it would not be quick"
    assert service["logging"]["options"] == {"max-size": "10m", "max-file": "5"}
    assert service["restart"] == "unless-stopped"
    assert service["init"] is True


def test_a_desktop_s_gpus_are_reserved_in_compose_s_words() -> None:
    (service,) = written(containers.NVIDIA)["services"].values()
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert "runtime" not in service


def test_it_is_healthy_only_after_its_warm_up_and_has_the_measured_time_for_it() -> None:
    (service,) = written(containers.NONE)["services"].values()
    check = service["healthcheck"]
    assert check["start_period"] == "240s"
    assert check["test"][:3] == ["CMD", "python3", f"{HERE}/ready.py"]
    assert check["test"][4:6] == ["--after", f"{HERE}/state/ready"]
    assert service["entrypoint"] == ["python3", f"{HERE}/serve.py", "--stay"]


def test_inside_the_engine_has_its_own_words_and_its_weights_where_they_are_there() -> None:
    settings = inside(measured(containers.NONE), SETTINGS)
    assert settings["argv"] == [*measured(containers.NONE).command]
    assert settings["model"]["path"] == MODEL
    assert settings["env"] == {"VLLM_CACHE_ROOT": f"{CACHES}/vllm"}
    assert settings["environments"] == []
    assert settings["container"] is None


def test_a_file_of_weights_is_found_below_the_folder_that_is_mounted() -> None:
    one = Container("docker", "n", "i", ("llama-server",), {}, (("/models", MODEL),))
    model = {**SETTINGS["model"], "path": "/models/q4/a.gguf", "folder": False}
    assert inside(one, {**SETTINGS, "model": model})["model"]["path"] == f"{MODEL}/q4/a.gguf"


def test_what_was_the_launch_s_own_is_not_taken_along() -> None:
    ollama = Container("docker", "n", "i", ("ollama", "serve"), {}, (("{folder}/models", MODEL),))
    with pytest.raises(UsageError, match="which was its launch's own"):
        inside(ollama, SETTINGS)


def test_several_stand_behind_nginx_each_on_its_port_and_it_waits_for_all() -> None:
    services = written(containers.NONE, Nginx(2, 10, "nginx@sha256:b"))["services"]
    assert list(services) == ["engine-1", "engine-2", "nginx"]
    assert services["engine-2"]["entrypoint"][-2:] == ["--only", "2"]
    assert "http://127.0.0.1:8002" in services["engine-2"]["healthcheck"]["test"]
    assert f"{HERE}/state/2/ready" in services["engine-2"]["healthcheck"]["test"]
    assert services["nginx"]["image"] == "nginx@sha256:b"
    assert services["nginx"]["depends_on"] == {
        "engine-1": {"condition": "service_healthy"},
        "engine-2": {"condition": "service_healthy"},
    }


def test_an_image_that_no_registry_knows_is_never_looked_for_there(tmp_path: Path) -> None:
    made = Composed("svc", measured(containers.NONE), "sha256:" + "c" * 64, "/w", SETTINGS, None, "local")
    (service,) = YAML(typ="safe").load(document(made))["services"].values()
    assert service["pull_policy"] == "never"
