"""An engine restored from an image: the one that was written, guarded as any, refused where it is not this machine's.

Every test meets a scripted criu, and the real one where that passes its own check.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bench.engines.engine import Endpoint, ImageSpec, LaunchSpec
from bench.engines.images import FOLDER, Origins, key
from bench.engines.origin import start_check
from bench.engines.server import Server, free_port, start
from bench.errors import LaunchError
from bench.probes.snapshots import criu
from bench.record.launches import ImageAccount
from tests.children import ended
from tests.engines.test_server import gone

HERE = Path(__file__).parent
Launch = Callable[..., Server]


def spec(folder: Path) -> LaunchSpec:
    """A launch in a folder of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    events = folder / "events.jsonl"
    return LaunchSpec(
        argv=(sys.executable, "-S", "-E", str(HERE / "answering.py"), str(port), str(events)),
        env={},
        endpoint=Endpoint("127.0.0.1", port, "m"),
        cwd=folder,
        events_file=events,
        image=ImageSpec(folder, None, "sha256:1"),
        ready_timeout_s=60.0,
        stop_timeout_s=10.0,
    )


@pytest.fixture(params=["scripted", "real"])
def program(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Which criu is first on the path; the images are this test's own."""
    monkeypatch.setenv("FIRSTTOKEN_HOME", str(tmp_path / "home"))
    if request.param == "real":
        if not (able := criu()).there:
            pytest.skip(f"{able.words}; {able.fix}")
        return "real"
    script(tmp_path / "bin", monkeypatch)
    return "scripted"


@pytest.fixture
def scripted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The scripted one; its folder."""
    monkeypatch.setenv("FIRSTTOKEN_HOME", str(tmp_path / "home"))
    return script(tmp_path / "bin", monkeypatch)


def script(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder.mkdir()
    (folder / "criu").write_text(f"#!{sys.executable}\n" + (HERE / "scripted_criu.py").read_text())
    (folder / "criu").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Launch]:
    servers: list[Server] = []

    def launch(origins: Origins | None = None) -> Server:
        folder = tmp_path / f"launch-{len(servers)}"
        servers.append(start(spec(folder), folder, origins or Origins()))
        return servers[-1]

    yield launch
    for server in servers:
        server.stop()


def account(server: Server) -> ImageAccount:
    assert server.origin.mode == "restored", server.origin.reason
    assert server.origin.image is not None
    return server.origin.image


def asked(server: Server) -> int:
    """How many completions it has answered, by its own count."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.endpoint.port}/health", timeout=10) as answer:
        return int(json.loads(answer.read())["asked"])


def slots(tmp_path: Path) -> list[Path]:
    return [one for one in (tmp_path / "home" / FOLDER).iterdir() if one.is_dir()]


def document(tmp_path: Path, **changes: Any) -> dict[str, Any]:
    """The document of the one image, changed on disk."""
    (only,) = slots(tmp_path)
    told: dict[str, Any] = json.loads((only / "image.json").read_text())
    (only / "image.json").write_text(json.dumps(told | changes))
    return told


def test_a_restored_launch_is_the_engine_that_was_written_under_a_guardian_of_its_own(
    program: str, launch: Launch, tmp_path: Path
) -> None:
    first = launch()
    first.wait_healthy()
    image, stamps = account(first), first.stamps
    assert (stamps["spawn"] or 0) < (stamps["restored"] or 0) < (stamps["health"] or 0)
    assert first.origin.ancestry[0] == first.origin.guardian == first.supervisor_pid
    assert image.seconds is not None
    assert image.seconds > 0
    assert (image.mib or 0) * 2**20 >= 4096
    check = start_check(replace(first.origin, asked="restored"))
    assert check is not None
    assert (check.status, check.evidence.split(",")[0]) == ("ok", f"restore 1 of image {image.name}")
    if program == "real":
        # It answered once before it was written, and has not forgotten; what it said of that time has no time now.
        assert asked(first) == 1
        assert first.pid == image.pid
        assert [(event["name"], event["t_ns"]) for event in first.events()] == [("loaded", 0), ("answered", 0)]
    assert "answered /health" in first.said()
    pid = first.pid or 0
    assert first.stop()["leftover"] == []
    assert gone([pid])
    # Another launch, in another folder and with another port, comes from the same image.
    second = launch()
    second.wait_healthy()
    assert (account(second).name, account(second).seconds) == (image.name, image.seconds)
    assert second.endpoint.port == first.endpoint.port
    assert len(slots(tmp_path)) == 1


@pytest.mark.parametrize("name", ["kernel", "processor", "installation", "criu"])
def test_an_image_of_another_machine_is_refused_and_another_made(
    scripted: Path, launch: Launch, tmp_path: Path, name: str
) -> None:
    launch().stop()
    told = document(tmp_path)
    document(tmp_path, identity=told["identity"] | {name: "another"})
    server = launch()
    server.wait_healthy()
    assert account(server).refused == f"an image of another {name} was refused"
    assert document(tmp_path)["identity"] == told["identity"]


def test_other_words_or_weights_are_another_image(tmp_path: Path) -> None:
    one, same = spec(tmp_path / "1"), spec(tmp_path / "2")
    assert key(one) == key(same)
    assert key(replace(one, argv=(*one.argv, "more"))) != key(one)
    assert key(replace(one, image=ImageSpec(tmp_path / "1", None, "sha256:2"))) != key(one)


def test_a_disk_that_fills_leaves_no_half_image_and_the_launch_starts_by_exec_with_the_reason(
    scripted: Path, launch: Launch, tmp_path: Path
) -> None:
    (scripted / "fault").write_text("dump")
    server = launch()
    server.wait_healthy()
    assert server.origin.mode == "exec"
    assert "No space left on device" in str(server.origin.reason)
    assert slots(tmp_path) == []
    check = start_check(replace(server.origin, asked="restored"))
    assert check is not None
    assert check.status == "violated"


def test_half_an_image_is_none(program: str, launch: Launch, tmp_path: Path) -> None:
    server = launch()
    made = account(server).seconds
    server.stop()
    (slots(tmp_path)[0] / "image.json").unlink()
    again = launch()
    again.wait_healthy()
    assert account(again).seconds != made


def test_an_image_that_cannot_be_restored_says_why_and_is_removed(
    scripted: Path, launch: Launch, tmp_path: Path
) -> None:
    launch().stop()
    (scripted / "fault").write_text("restore")
    with pytest.raises(LaunchError, match="Can't open the mapped file: No such file or directory"):
        launch()
    assert slots(tmp_path) == []


def test_an_image_whose_process_id_is_in_use_is_replaced_once(program: str, launch: Launch, tmp_path: Path) -> None:
    launch().stop()
    document(tmp_path, tasks=[os.getpid()])
    server = launch()
    server.wait_healthy()
    assert f"process id {os.getpid()} of the image is in use" in str(server.origin.replaced)
    assert account(server).restores == 0


def test_a_killed_guardian_takes_the_restored_engine_with_it(program: str, launch: Launch) -> None:
    server = launch()
    server.wait_healthy()
    os.kill(server.supervisor_pid or 0, signal.SIGKILL)
    assert gone([server.pid or 0])


HARNESS = """
import sys, time
from pathlib import Path
from tests.engines.test_images import Origins, spec, start
server = start(spec(Path(sys.argv[1])), Path(sys.argv[1]), Origins())
server.wait_healthy()
print(server.pid, server.origin.mode, flush=True)
time.sleep(600)
"""


def test_a_killed_harness_leaves_no_restored_engine(program: str, tmp_path: Path) -> None:
    words = [sys.executable, "-c", HARNESS, str(tmp_path / "launch")]
    with ended(subprocess.Popen(words, stdout=subprocess.PIPE, cwd=HERE.parent.parent)) as harness:
        assert harness.stdout is not None
        pid, mode = harness.stdout.readline().split()
        assert mode == b"restored"
        harness.kill()
    assert gone([int(pid)], within_s=15)


def test_where_nothing_can_be_restored_the_launch_says_so(
    launch: Launch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIRSTTOKEN_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("bench.engines.images.criu", lambda: replace(criu(str(tmp_path)), fix="get it"))
    server = launch()
    assert (server.origin.mode, server.origin.reason) == (
        "exec",
        "nothing can be restored here: criu is not installed; get it",
    )
    assert not (tmp_path / "home" / FOLDER).exists()
