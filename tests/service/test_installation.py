"""Variants that no single command line starts, kept by a firsttoken that is really installed, far from its sources."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.request
import venv
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.metadata import PathDistribution, distribution
from pathlib import Path
from typing import Any

import psutil
import pytest

import bench
from bench.analyse.run import Run
from bench.cli import main
from bench.engines.ports import free_port
from bench.errors import RecordError, UsageError
from bench.programs.serve_process import CONFIGURATION
from bench.scenario.load import Scenario
from bench.service.deploy import of
from bench.service.installation import check, environment, needed
from bench.service.nginx import IMAGE, Nginx
from tests import wheels
from tests.children import ended
from tests.runs import Behaviour, synthetic_run
from tests.waiting import until

PATIENCE_S = 90.0
# Also where Debian puts what users do not call.
BINARIES = "/usr/local/sbin:/usr/sbin:/usr/local/bin:/usr/bin:/bin"
SCENARIO = """
scenario: small
model: {{source: "path:{weights}"}}
engines: {{s: {{engine: simulated, args: {second}}}}}
warmups: {{handed: [{{strategy: hand-over, args: {first}}}, {{strategy: requests, n: 2}}]}}
matrix: {{start: [forked], include: [{{start: exec, warmup: handed}}]}}
workload: {{prompts: {{kind: random, tokens: 8}}, output_tokens: 6, requests: 6}}
design: {{blocks: 1, retries: 0, max_steal: 1, max_contention: 1}}
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with firsttoken unpacked from a wheel; what firsttoken needs is this interpreter's."""
    folder = tmp_path_factory.mktemp("installed")
    source = Path(bench.__file__).parent
    files = {
        f"bench/{file.relative_to(source)}": file.read_bytes()
        for file in source.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    names = distribution("firsttoken").read_text("entry_points.txt") or ""
    files["firsttoken-9.0.dist-info/entry_points.txt"] = names.encode()
    wheel = wheels.build(folder / "wheels", "firsttoken", "9.0", files)
    venv.create(folder / "venv", with_pip=False)
    (packages,) = folder.glob("venv/lib/python3*/site-packages")
    zipfile.ZipFile(wheel).extractall(packages)
    (packages / "needed.pth").write_text("\n".join(place for place in sys.path if place.endswith("-packages")) + "\n")
    return folder / "venv"


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real run of a forked variant and of a handed-over one."""
    folder = tmp_path_factory.mktemp("measured")
    weights = folder / "weights"
    weights.mkdir()
    (weights / "config.json").write_text('{"model_type": "llama", "vocab_size": 1000}')
    (weights / "model.safetensors").write_bytes(bytes(64))
    text = SCENARIO.format(
        weights=weights,
        first=json.dumps({"ttft_ms": 20, "itl_ms": 4, "start_phases_ms": None}),
        second=json.dumps({"ttft_ms": 5, "itl_ms": 1, "start_phases_ms": {"weights": 1500}}),
    )
    (folder / "small.yaml").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FIRSTTOKEN_HOME", str(folder / "home"))
        words = ["run", str(folder / "small.yaml"), "--results", str(folder / "results"), "--no-report"]
        assert main(words) == 0
    return Run.open(folder / "results").path


@pytest.fixture
def clean(measured: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables that know nothing of this project; temporary files are where the test can look for them."""
    places = {"FIRSTTOKEN_HOME": str(measured.parents[2] / "home"), "TMPDIR": str(tmp_path_factory.mktemp("t"))}
    return {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/nowhere", **places}


def bench_of(installed: Path, clean: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [str(installed / "bin" / "python"), "-m", "bench", "deploy", *words]
    return subprocess.run(command, cwd="/", env=clean, capture_output=True, text=True)


def deployed(installed: Path, clean: dict[str, str], run: Path, folder: Path, *words: str) -> Path:
    """A folder on a free port, and not fussy about what a busy machine adds to one warm token."""
    done = bench_of(installed, clean, str(run), str(folder), "--port", str(free_port()), *words)
    assert done.returncode == 0, done.stderr
    settings = settings_of(folder)
    settings["ready"]["within_ms"] = 20_000
    (folder / "service.json").write_text(json.dumps(settings))
    return folder


def settings_of(folder: Path) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads((folder / "service.json").read_text())
    return settings


@contextmanager
def running(folder: Path, clean: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    started = {name: clean[name] for name in ("PATH", "TMPDIR")}
    with ended(
        subprocess.Popen([folder / "start.sh"], cwd="/", env=started, stderr=subprocess.PIPE, text=True)
    ) as process:
        try:
            yield process
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


def is_ready(folder: Path) -> bool:
    return (folder / "state" / "ready").exists()


def log(folder: Path) -> str:
    return "".join(file.read_text() for file in (folder / "logs").iterdir())


def answered(folder: Path) -> bool:
    """Whether the folder's port completes a prompt."""
    body = json.dumps({"model": settings_of(folder)["ready"]["model"], "prompt": "Hello", "max_tokens": 2}).encode()
    url = f"http://127.0.0.1:{settings_of(folder)['port']}/v1/completions"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        return bool(json.load(answer)["choices"][0]["text"])


def engines(clean: dict[str, str]) -> list[psutil.Process]:
    """Whatever has the test's folder for temporary files among its words or variables."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("TMPDIR", "").startswith(clean["TMPDIR"]):
                found.append(process)
    return found


def serving(clean: dict[str, str]) -> list[psutil.Process]:
    found = []
    for process in engines(clean):
        with suppress(psutil.Error):
            if "emulate.server.program" in " ".join(process.cmdline()):
                found.append(process)
    return found


@pytest.mark.slow
def test_a_handed_over_variant_is_answered_for_by_its_first_engine_and_leaves_nothing(
    installed: Path, measured: Path, clean: dict[str, str], tmp_path: Path
) -> None:
    folder = deployed(installed, clean, measured, tmp_path / "svc", "--variant", "handed-exec")
    settings = settings_of(folder)
    assert str(installed) in {one["path"] for one in settings["environments"]}
    assert (folder / "scenario.yaml").read_text() == Run.open(measured).manifest.scenario_text
    assert str(installed / "bin" / "python") in (folder / "README.md").read_text()
    with running(folder, clean) as process:
        until(lambda: is_ready(folder), PATIENCE_S)
        first = serving(clean)[0]
        assert answered(folder)
        until(lambda: "handed over  to handed-exec" in log(folder), PATIENCE_S)
        assert [one.pid for one in serving(clean)] != [first.pid]
        assert not first.is_running()
        assert len(serving(clean)) == 1
        assert answered(folder), "by the second one, at the same port"
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
    assert engines(clean) == []
    done = bench_of(installed, clean, "--verify", str(folder))
    assert done.returncode == 4
    assert "is ready before its own engine has taken over" in done.stderr


def test_a_forked_variant_is_forked_and_goes_with_a_keeper_that_was_killed(
    installed: Path, measured: Path, clean: dict[str, str], tmp_path: Path
) -> None:
    folder = deployed(installed, clean, measured, tmp_path / "svc", "--variant", "none-forked")
    with running(folder, clean) as process:
        until(lambda: is_ready(folder), PATIENCE_S)
        assert answered(folder)
        assert "started by exec" not in log(folder)
        process.kill()
        process.wait(PATIENCE_S)
        until(lambda: engines(clean) == [], PATIENCE_S)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("nginx", path=BINARIES) is None, reason="needs nginx (apt-get install nginx-light)")
def test_several_behind_nginx_have_a_bench_serve_each(
    installed: Path, measured: Path, clean: dict[str, str], tmp_path: Path
) -> None:
    words = ["--variant", "none-forked", "--instances", "2"]
    folder = deployed(installed, clean | {"PATH": BINARIES}, measured, tmp_path / "svc", *words)
    with running(folder, clean) as process:
        until(lambda: is_ready(folder), PATIENCE_S)
        assert answered(folder)
        ours = [" ".join(one.cmdline()) for one in engines(clean)]
        port = settings_of(folder)["port"]
        for number in (1, 2):
            words = [f"-m bench serve {folder}/scenario.yaml", f"--port {port + number}"]
            assert [line for line in ours if all(word in line for word in words)]
        process.terminate()
        assert process.wait(PATIENCE_S) == 0
    assert engines(clean) == []


@pytest.mark.slow
def test_a_forked_folder_is_verified_beside_forked_launches(
    installed: Path, measured: Path, clean: dict[str, str], tmp_path: Path
) -> None:
    folder = deployed(installed, clean, measured, tmp_path / "svc", "--variant", "none-forked")
    words = ["--verify", str(folder), "--results", str(tmp_path / "results"), "--blocks", "1", "--json"]
    done = bench_of(installed, clean, *words)
    (ttft,) = [one for one in json.loads(done.stdout)["metrics"] if one["metric"] == "ttft.p50"]
    # 5 ms by both; what a proxy and a busy machine add is not what is tested.
    assert 0.2 < ttft["ratio"] < 5
    launched = {one.record.variant: one.record for one in Run.open(tmp_path / "results").all}
    assert launched["none-forked"].start.forked
    assert launched["deployed"].status == "ok"


def test_another_firsttoken_than_the_deployed_one_is_refused(
    installed: Path, measured: Path, clean: dict[str, str], tmp_path: Path
) -> None:
    folder = deployed(installed, clean, measured, tmp_path / "svc", "--variant", "handed-exec")
    (package,) = installed.glob("lib/python3*/site-packages/firsttoken-9.0.dist-info")
    other = package.rename(package.with_name("firsttoken-9.1.dist-info"))
    try:
        with running(folder, clean) as process:
            assert process.wait(PATIENCE_S) == CONFIGURATION
            assert process.stderr is not None
            assert "has other packages than were measured" in process.stderr.read()
    finally:
        other.rename(package)


def test_compose_does_not_keep_what_an_installed_firsttoken_starts(
    installed: Path, measured: Path, clean: dict[str, str], tmp_path: Path
) -> None:
    done = bench_of(
        installed, clean, str(measured), str(tmp_path / "svc"), "--variant", "none-forked", "--to", "compose"
    )
    assert done.returncode == 4
    assert "is started by an installed firsttoken, which is not in the engine's image" in done.stderr
    assert not (tmp_path / "svc").exists()


@pytest.mark.parametrize("record", [None, "bench/__init__.py,,\n"])
def test_a_source_tree_is_nothing_to_keep_a_service_by(record: str | None, tmp_path: Path) -> None:
    about = tmp_path / "firsttoken-9.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: firsttoken\nVersion: 9.0\n")
    if record is not None:
        (about / "RECORD").write_text(record)
    # An editable installation has a record, and the package is elsewhere.
    with pytest.raises(UsageError, match="runs from a source tree") as caught:
        environment(PathDistribution(about))
    assert "install the wheel" in (caught.value.hint or "")


def scenario(text: str) -> Scenario:
    return Scenario.parse(
        f"""
scenario: small
model: {{source: "path:/weights"}}
{text}
workload: {{prompts: {{kind: random, tokens: 8}}, output_tokens: 6, requests: 6}}
"""
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            'engines: {s: {engine: simulated, env: {SOME_API_KEY: "(secret)"}}}\nmatrix: {start: [forked]}',
            "the scenario gave SOME_API_KEY to",
        ),
        (
            "engines: {s: {engine: simulated}}\n"
            "warmups: {w: [{strategy: hand-over, model: 'path:/small'}]}\nmatrix: {warmup: [w]}",
            "by path:/small at first, and the record has no digest of that",
        ),
    ],
)
def test_what_a_scenario_s_text_does_not_hold_is_refused(text: str, words: str) -> None:
    asked = scenario(text)
    (variant,) = asked.variants
    assert needed(variant)
    with pytest.raises((UsageError, RecordError), match=words):
        check(asked, variant)


def test_one_image_is_not_two_engines(tmp_path: Path) -> None:
    text = scenario("engines: {s: {engine: transformers}}\nmatrix: {start: [restored]}").text
    (variant,) = Scenario.parse(text).variants
    run = Run.open(synthetic_run(tmp_path, {variant.id: Behaviour()}, blocks=1, scenario_text=text))
    with pytest.raises(UsageError, match="one image is one engine at a time"):
        of(run, variant.id, 8000, Nginx(2, None, IMAGE))


def test_weights_by_a_relative_path_would_be_others_in_the_folder() -> None:
    text = scenario("engines: {s: {engine: simulated}}\nmatrix: {start: [forked]}").text
    asked = Scenario.parse(text.replace("path:/weights", "path:weights"))
    with pytest.raises(UsageError, match="names weights by a relative path"):
        check(asked, asked.variants[0])
