"""The llama.cpp engine's command line by what its binary knows, its start as it logs it; no real server here."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

from bench.engines import containers
from bench.engines.engine import Checkpoint, LaunchContext, LaunchSpec, LaunchTrace
from bench.engines.llamacpp import LlamaCpp
from bench.engines.llamacpp_flags import command_line, parse
from bench.engines.startup import resolve
from bench.errors import EnvironmentFault, LaunchError
from bench.record.engine_log import LogLine
from bench.record.launches import STAMPS
from tests.warmup.states import variant

LOG = Path(__file__).parents[1] / "fixtures" / "llamacpp" / "start-cpu.log"
NOW = """----- common params -----

-h,    --help, --usage                  print usage and exit
-t,    --threads N                      number of CPU threads to use during generation (default: -1)
                                        (env: LLAMA_ARG_THREADS)
-fa,   --flash-attn [on|off|auto]       set Flash Attention use ('on', 'off', or 'auto', default: 'auto')
-lm,   --load-mode MODE                 model loading mode (default: auto)
                                        - none: no special loading mode
-m,    --model FNAME                    model path to load
-c,    --ctx-size N                     size of the prompt context
-a,    --alias STRING                   set model name aliases
--host HOST                             IP addresses to listen on
--port PORT                             port to listen (default: 8080)
--metrics                               enable prometheus compatible metrics endpoint (default: disabled)
--offline                               Offline mode: forces use of cache, prevents network access
-lv,   --verbosity, --log-verbosity N   Set the verbosity threshold. Messages with a higher verbosity will be
                                        ignored. Values:
--cache-prompt, --no-cache-prompt       whether to enable prompt caching (default: enabled)
-cram, --cache-ram N                    set the maximum cache size in MiB (default: 8192, -1 - no limit, 0 -
--ui-mcp-proxy, --webui-mcp-proxy, --no-ui-mcp-proxy, --no-webui-mcp-proxy
                                        experimental: whether to enable MCP CORS proxy
--ui,  --webui, --no-ui, --no-webui     whether to enable the Web UI (default: enabled)
--warmup, --no-warmup                   whether to perform warmup with an empty run (default: enabled)
-ngl,  --gpu-layers, --n-gpu-layers N   max. number of layers to store in VRAM
--swa-full                              use full-size SWA cache (default: false)
"""
BEFORE = NOW.replace(
    "-lm,   --load-mode MODE                 model loading mode (default: auto)\n",
    "--mlock                                 force system to keep model in RAM\n"
    "--mmap, --no-mmap                       whether to memory-map model\n"
    "-dio,  --direct-io, -ndio, --no-direct-io\n",
)


def binary(tmp_path: Path, text: str = NOW) -> Path:
    """A program that answers to --help as llama-server does, and to nothing else."""
    (tmp_path / "help.txt").write_text(text)
    program = tmp_path / "llama-server"
    program.write_text(f"#!/bin/sh\ncat {tmp_path}/help.txt\n")
    program.chmod(0o755)
    return program


def weights(tmp_path: Path) -> Checkpoint:
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    return Checkpoint(tmp_path / "model.gguf", "path:m", "1", "gguf-q4", "gguf")


def command(tmp_path: Path, *, args: dict[str, Any] | None = None, **engine: Any) -> LaunchSpec:
    if "path" not in engine:
        engine["path"] = str(binary(tmp_path))
    context = LaunchContext(8123, tmp_path, weights(tmp_path), args={})
    return LlamaCpp().command(variant("llama-cpp", args=args, **engine), context)


def words(text: str, **args: Any) -> list[str]:
    return list(command_line(args, parse(text)))


def test_the_help_text_tells_switches_from_flags_with_a_value() -> None:
    known = parse(NOW)
    assert {"threads", "flash-attn", "load-mode", "log-verbosity", "cache-ram", "n-gpu-layers"} <= known.valued
    assert {"cache-prompt", "no-cache-prompt", "metrics", "no-webui", "swa-full", "help"} <= known.switches
    assert not known.valued & known.switches
    assert "direct-io" not in known
    assert {"mmap", "no-mmap", "direct-io", "no-direct-io"} <= parse(BEFORE).switches


def test_it_is_started_with_its_model_its_name_and_a_log_that_tells_its_phases(tmp_path: Path) -> None:
    spec = command(tmp_path, args={"threads": 2})
    said = " ".join(spec.argv)
    assert spec.argv[0] == str(tmp_path / "llama-server")
    assert f"--model {tmp_path}/model.gguf --host 127.0.0.1 --port 8123 --alias m" in said
    assert "--log-verbosity 4" in said
    assert "--threads 2" in said
    assert {"--metrics", "--offline", "--no-ui"} <= set(spec.argv)
    assert (spec.endpoint.model, spec.endpoint.port, spec.health) == ("m", 8123, "/health")


def test_what_a_binary_does_not_know_is_not_asked_of_it(tmp_path: Path) -> None:
    older = "\n".join(line for line in NOW.splitlines() if not line.startswith(("--offline", "--ui")))
    program = str(binary(tmp_path, older))
    spec = command(tmp_path, path=program)
    assert not {"--offline", "--no-ui"} & set(spec.argv)


def test_the_scenario_wins_over_what_is_asked_for_by_default(tmp_path: Path) -> None:
    spec = command(tmp_path, args={"log_verbosity": 3, "metrics": False})
    assert "--log-verbosity 3" in " ".join(spec.argv)
    assert "--metrics" not in spec.argv


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ({"cache_prompt": False, "cache_ram": 0}, ["--no-cache-prompt", "--cache-ram", "0"]),
        ({"flash_attn": True}, ["--flash-attn", "on"]),
        ({"flash_attn": False}, ["--flash-attn", "off"]),
        ({"flash_attn": "auto"}, ["--flash-attn", "auto"]),
        ({"swa_full": True}, ["--swa-full"]),
        ({"swa_full": False}, []),
        ({"threads": None}, []),
        ({"load": "dio"}, ["--load-mode", "dio"]),
    ],
)
def test_arguments_become_words(args: dict[str, Any], expected: list[str]) -> None:
    assert words(NOW, **args) == expected


@pytest.mark.parametrize(
    ("load", "expected"),
    [("none", ["--no-mmap"]), ("dio", ["--direct-io"]), ("mlock", ["--mlock"]), ("mmap", ["--mmap"])],
)
def test_the_way_of_loading_is_one_word_for_all_versions(load: str, expected: list[str]) -> None:
    assert words(BEFORE, load=load) == expected
    assert words(NOW, load=load) == ["--load-mode", load]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ({"thread": 2}, r"no flag 'thread': did you mean threads\?"),
        ({"no_mmap": True}, "no flag 'no_mmap': use load: none"),
        ({"direct_io": True}, "no flag 'direct_io': use load: dio"),
        ({"xyzzy": 1}, "see `llama-server --help`"),
        ({"metrics": 3}, "args.metrics is a switch"),
        ({"load": "fast"}, "must be one of mmap, none, dio, mlock"),
    ],
)
def test_what_this_binary_does_not_know_is_refused_with_what_it_does(args: dict[str, Any], said: str) -> None:
    with pytest.raises(LaunchError, match=said) as failure:
        words(NOW, **args)
    assert failure.value.kind == "bad_argument"


def test_a_way_of_loading_that_an_old_binary_lacks_is_refused() -> None:
    ancient = BEFORE.replace("-dio,  --direct-io, -ndio, --no-direct-io\n", "")
    with pytest.raises(LaunchError, match="cannot load weights by 'dio'"):
        words(ancient, load="dio")


def test_another_program_is_told_from_llama_server(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="is no llama-server: usage: something else") as failure:
        command(tmp_path, path=str(binary(tmp_path, "usage: something else\n")))
    assert failure.value.kind == "unsupported"


def test_a_path_that_is_no_program_and_a_missing_build_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(EnvironmentFault, match="is not a program that can be run"):
        command(tmp_path, path=str(tmp_path / "nowhere"))
    monkeypatch.setenv("FIRSTTOKEN_HOME", str(tmp_path / "home"))
    with pytest.raises(EnvironmentFault, match="bench engines install llama-cpp"):
        command(tmp_path, path=None)


def test_weights_that_are_no_gguf_are_refused_before_start(tmp_path: Path) -> None:
    dense = Checkpoint(tmp_path, "path:m", None, "bf16")
    with pytest.raises(LaunchError) as failure:
        LlamaCpp().command(variant("llama-cpp", path=str(binary(tmp_path))), LaunchContext(1, tmp_path, dense, args={}))
    assert failure.value.kind == "unsupported_quantization"


def test_an_image_runs_the_same_words_with_the_weights_mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").write_text("#!/bin/sh\n")
    (tmp_path / "bin" / "docker").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(containers, "device", lambda: containers.JETSON)
    spec = command(tmp_path, path=None, image="llama_cpp:orin", args={"ctx_size": 512, "load": "none"})
    said = " ".join(spec.argv)
    assert said.startswith("docker run --rm --init")
    assert f"--volume {tmp_path}:/firsttoken/model:ro" in said
    assert "--entrypoint llama-server llama_cpp:orin --model /firsttoken/model/model.gguf" in said
    assert "--ctx-size 512 --load-mode none" in said
    assert spec.wants_gpu


@pytest.mark.parametrize(
    ("args", "wants"),
    [({}, False), ({"n_gpu_layers": 99}, True), ({"n_gpu_layers": 0}, False), ({"gpu_layers": "all"}, True)],
)
def test_a_gpu_is_expected_where_one_is_asked_for(tmp_path: Path, args: dict[str, Any], wants: bool) -> None:
    assert command(tmp_path, args=args).wants_gpu is wants


def start(text: str | None = None) -> LaunchTrace:
    """The recorded start, stamped by llama-server's own clock; it was asked once, and told to stop."""
    log: list[LogLine] = []
    for line in (text if text is not None else LOG.read_text()).splitlines():
        match = re.match(r"(\d+)\.(\d\d)\.(\d{3})\.(\d{3}) ", line)
        at = log[-1].t_ns if log else 0
        if match:
            minutes, seconds, milli, micro = map(int, match.groups())
            at = (minutes * 60 + seconds) * 10**9 + milli * 10**6 + micro * 1000
        log.append(LogLine(at, "err", line))
    stamps = {**dict.fromkeys(STAMPS), "spawn": 0, "first_token": 6_544_000_000}
    return LaunchTrace(stamps, log)


def test_every_phase_of_a_real_start_is_found_with_its_seconds() -> None:
    found = {
        phase.name: (phase.end_ns - phase.start_ns) / 1e9
        for phase in LlamaCpp().phases(start())
        if phase.start_ns is not None and phase.end_ns is not None
    }
    assert found == pytest.approx(
        {
            "server": 0.006891,
            "fit": 0.251032,
            "model_load": 0.126692,
            "weights": 0.033071,
            "kv_cache": 0.052097,
            "reserve": 0.005557,
            "empty_run": 2.632223,
            "slots": 0.015016,
            "chat_template": 0.006236,
        },
        abs=1e-6,
    )


def test_the_start_is_covered_but_for_the_first_request() -> None:
    trace = start()
    phases = resolve(trace, LlamaCpp().phases(trace))
    gaps = [phase for phase in phases if phase.name == "unattributed" and phase.start_ns is not None]
    before = [gap for gap in gaps if gap.end_ns is not None and gap.end_ns < 3_105_304_000]
    assert sum((gap.end_ns or 0) - (gap.start_ns or 0) for gap in before) < 15_000_000


def test_a_switched_off_empty_run_is_not_a_gap_in_what_is_known() -> None:
    quiet = "\n".join(line for line in LOG.read_text().splitlines() if "warming up" not in line)
    (phase,) = [phase for phase in LlamaCpp().phases(start(quiet)) if phase.name == "empty_run"]
    assert (phase.start_ns, phase.reason) == (None, "unsupported")


def test_a_start_that_died_while_loading_is_partial() -> None:
    died = LOG.read_text().split("load_tensors:   CPU_Mapped")[0]
    by_name = {phase.name: phase for phase in LlamaCpp().phases(start(died))}
    assert by_name["weights"].reason == "partial"
    assert by_name["weights"].start_ns == 360_976_000
    assert by_name["chat_template"].reason == "not_found"


def test_facts_are_what_it_said() -> None:
    facts = LlamaCpp().facts(start())
    assert facts["version"] == "b0 (llama-cpp-python-0.3.36)"
    assert (facts["threads"], facts["threads_batch"], facts["backends"]) == (2, 2, ["CPU"])
    assert {"AVX2", "FMA", "LLAMAFILE"} <= set(facts["cpu_features"])
    assert (facts["context"], facts["context_per_slot"], facts["parallel"]) == (2048, 1024, 2)
    assert (facts["kv_cache_type"], facts["kv_cache_mib"]) == ("f16", 45.0)
    assert (facts["flash_attention"], facts["load"], facts["file_type"]) == (True, "mmap", "Q4_1")
    assert facts["weights_mib"] == {"CPU_Mapped": 92.1}
    assert facts["device_used"] == "cpu"


# After the sources: what the same lines say with a GPU, and where one was not found.
ON_GPU = """llama_model_load_from_file_impl: using device CUDA0 (Orin) (unknown id) - 6043 MiB free
load_tensors: offloaded 31/31 layers to GPU
load_tensors:   CPU_Mapped model buffer size =    28.69 MiB
load_tensors:        CUDA0 model buffer size =   512.00 MiB
llama_kv_cache:      CUDA0 KV buffer size =    45.00 MiB
load_tensors: loading model tensors, this can take a while... (mmap = false, direct_io = false)
"""


def test_the_device_is_the_one_that_holds_the_weights() -> None:
    facts = LlamaCpp().facts(start(ON_GPU))
    assert (facts["device_used"], facts["layers_on_gpu"]) == ("CUDA0", "31 of 31")
    assert facts["device_evidence"] == "load_tensors: offloaded 31/31 layers to GPU"
    assert (facts["devices"], facts["load"]) == ({"CUDA0": "Orin"}, "none")


def test_a_silent_fall_to_the_cpu_is_told_with_its_sentence() -> None:
    facts = LlamaCpp().facts(start("load_tensors: offloaded 0/31 layers to GPU\n" + LOG.read_text()))
    assert (facts["device_used"], facts["device_evidence"]) == ("cpu", "load_tensors: offloaded 0/31 layers to GPU")


def test_the_command_is_the_same_for_the_same_launch(tmp_path: Path) -> None:
    assert dataclasses.asdict(command(tmp_path)) == dataclasses.asdict(command(tmp_path))
