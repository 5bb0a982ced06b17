"""`bench serve` says ready when a first token came warm, serves, and leaves nothing behind when told to stop."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from bench.engines.ports import free_port
from tests.waiting import until

BENCH = Path(sys.executable).parent / "bench"


def scenario(folder: Path, **args: Any) -> Path:
    weights = folder / "weights"
    weights.mkdir()
    (weights / "config.json").write_text('{"model_type": "llama", "vocab_size": 1000}')
    (weights / "model.safetensors").write_bytes(bytes(64))
    script = json.dumps({"ttft_ms": 5, "itl_ms": 1} | args)
    path = folder / "served.yaml"
    path.write_text(
        f"""
scenario: served
model: {{source: "path:{weights}"}}
engines: {{s: {{engine: simulated, args: {script}}}}}
matrix: {{warmup: [none, multi-stage], start: [exec, forked]}}
workload: {{prompts: {{kind: random, tokens: 8}}, output_tokens: 4}}
"""
    )
    return path


def serve(path: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [BENCH, "serve", str(path), "--port", "0", "--json", *more],
        env={**os.environ, "FIRSTTOKEN_HOME": str(path.parent / "home")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def ask(url: str, model: str) -> bytes:
    body = json.dumps({"model": model, "prompt": [1, 2, 3], "max_tokens": 2, "stream": True}).encode()
    request = urllib.request.Request(f"{url}/completions", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return bytes(answer.read())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_warm_until_it_is_told_to_stop(tmp_path: Path, number: int) -> None:
    process = serve(scenario(tmp_path), "--variant", "multi-stage-exec")
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert told["variant"] == "multi-stage-exec"
        assert 0 < told["warm_ttft_ms"] < 1000
        assert b"[DONE]" in ask(told["ready"], told["model"])
        process.send_signal(number)
        process.wait(20)
    finally:
        process.kill()
        process.communicate()
    with pytest.raises(urllib.error.URLError):
        ask(told["ready"], told["model"])


def test_a_forked_variant_is_served_and_its_parent_goes_with_it(tmp_path: Path) -> None:
    process = serve(scenario(tmp_path), "--variant", "none-forked")
    try:
        assert process.stdout is not None
        told = json.loads(process.stdout.readline())
        assert b"[DONE]" in ask(told["ready"], told["model"])
        below = psutil.Process(process.pid).children(recursive=True)
        warm = [child for child in below if any("parent_process" in word for word in child.cmdline())]
        # The parent, the guardian and the engine, none of which was ever executed again.
        assert len(warm) == 3
        process.send_signal(signal.SIGTERM)
        process.wait(20)
    finally:
        process.kill()
        process.communicate()
    psutil.wait_procs(warm, 10)
    assert not any(child.is_running() for child in warm)


def test_an_unknown_variant_is_answered_with_those_there_are(tmp_path: Path) -> None:
    process = serve(scenario(tmp_path), "--variant", "multistage")
    _, said = process.communicate(timeout=30)
    assert process.returncode == 4
    assert "multi-stage" in said


def test_an_engine_that_dies_while_serving_ends_it_with_a_reason(tmp_path: Path) -> None:
    process = serve(scenario(tmp_path), "--variant", "none-exec")
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["variant"] == "none-exec"
        children = psutil.Process(process.pid).children(recursive=True)
        (engine,) = [child for child in children if any("emulate.server" in word for word in child.cmdline())]
        engine.kill()
        assert process.wait(30) == 4
    finally:
        process.kill()
        _, said = process.communicate()
    assert "Traceback" not in said
    assert "none-exec: killed from outside" in said


def handed(folder: Path, fault: str | None = None) -> Path:
    """A first engine that is there at once, and a second one that takes a while, or never answers."""
    path = scenario(folder)
    second = json.dumps({"ttft_ms": 5, "itl_ms": 1, "start_phases_ms": {"weights": 700}, "fault": fault})
    first = "{strategy: hand-over, args: {start_phases_ms: null, fault: null}}"
    text = path.read_text().split("engines:")[0]
    path.write_text(
        f"""{text}engines: {{s: {{engine: simulated, args: {second}}}}}
warmups: {{handed: [{first}, requests]}}
matrix: {{warmup: [handed]}}
workload: {{prompts: {{kind: random, tokens: 8}}, output_tokens: 4}}
"""
    )
    return path


def line(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    told: dict[str, Any] = json.loads(process.stdout.readline())
    return told


def ended(process: subprocess.Popen[str], number: int = signal.SIGTERM) -> str:
    """Told to stop; what it said on its way. No process of its may be left."""
    below = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    _, said = process.communicate(timeout=30)
    _, alive = psutil.wait_procs(below, 10)
    assert alive == []
    return said


def test_a_handed_over_variant_answers_at_once_and_by_its_own_engine_later(tmp_path: Path) -> None:
    process = serve(handed(tmp_path))
    try:
        ready = line(process)
        assert b"[DONE]" in ask(ready["ready"], ready["model"])
        told = line(process)
        assert told["handed_over"] == ready["variant"].removesuffix(".first")
        assert told["seconds"] > ready["seconds"]
        assert (told["lost"], [state["name"] for state in told["states"]][-1]) == (0, "compiled")
        assert told["peak_mib"] > 1
        assert b"[DONE]" in ask(ready["ready"], ready["model"])
        # One engine is left, and the proxy before it.
        below = [" ".join(one.cmdline()) for one in psutil.Process(process.pid).children(recursive=True)]
        assert len([words for words in below if "emulate.server" in words]) == 1
        assert len([words for words in below if "front_process" in words]) == 1
        said = ended(process)
        assert process.returncode == 0
        assert "Traceback" not in said
    finally:
        process.kill()
        process.communicate()


def test_who_is_turned_away_before_anything_is_ready_is_not_lost_by_the_hand_over(tmp_path: Path) -> None:
    port = free_port()

    def turned_away() -> bool:
        try:
            ask(f"http://127.0.0.1:{port}/v1", "default")
        except urllib.error.HTTPError as error:
            return error.code == 503
        except OSError:
            pass
        return False

    process = serve(handed(tmp_path), "--port", str(port))
    try:
        until(turned_away)
        assert line(process)["ready"].endswith(f":{port}/v1")
        assert line(process)["lost"] == 0
        ended(process)
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("when", ["at once", "while both are there", "after"])
def test_being_stopped_in_any_phase_of_a_hand_over_leaves_nothing(tmp_path: Path, when: str) -> None:
    process = serve(handed(tmp_path))
    try:
        if when == "at once":
            until(lambda: psutil.Process(process.pid).children(recursive=True))
        else:
            line(process)
        if when == "while both are there":
            until(lambda: len(emulated(process)) == 2)
        elif when == "after":
            line(process)
        said = ended(process, signal.SIGINT)
        assert process.returncode == 0
        assert "Traceback" not in said
    finally:
        process.kill()
        process.communicate()


def test_an_answer_without_an_end_keeps_two_engines_no_longer_than_it_may(tmp_path: Path) -> None:
    path = handed(tmp_path)
    path.write_text(path.read_text().replace("engine: simulated,", "engine: simulated, drain_timeout_s: 0.5,"))
    process = serve(path)
    try:
        ready = line(process)
        place = urlsplit(ready["ready"])
        endless = http.client.HTTPConnection(place.hostname or "", place.port, timeout=60)
        # A minute of tokens, of which the first engine has sent some when the second takes over.
        asked = {"model": ready["model"], "prompt": [1], "max_tokens": 60_000, "stream": True}
        endless.request("POST", f"{place.path}/completions", json.dumps(asked), {"Content-Type": "application/json"})
        answer = endless.getresponse()
        assert answer.status == 200
        told = line(process)
        assert (told["overdue"], told["lost"]) == (1, 1)
        assert "draining" in [state["name"] for state in told["states"]]
        with answer, pytest.raises(http.client.IncompleteRead) as cut:
            answer.read()
        endless.close()
        assert b"is gone" in cut.value.partial
        assert len(emulated(process)) == 1
        assert b"[DONE]" in ask(ready["ready"], ready["model"])
        ended(process)
    finally:
        process.kill()
        process.communicate()


def emulated(process: subprocess.Popen[str]) -> list[psutil.Process]:
    found = []
    for one in psutil.Process(process.pid).children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if any("emulate.server" in word for word in one.cmdline()):
                found.append(one)
    return found


def test_a_second_engine_that_fails_leaves_the_first_serving_and_says_why(tmp_path: Path) -> None:
    process = serve(handed(tmp_path, fault="http_500"))
    try:
        ready = line(process)
        told = line(process)
        assert told["stays"] == "simulated (engine 1)"
        assert "does not answer" in told["reason"]
        assert b"[DONE]" in ask(ready["ready"], ready["model"])
        ended(process)
    finally:
        process.kill()
        process.communicate()


def test_hup_swaps_the_engine_behind_the_same_port_and_loses_nothing(tmp_path: Path) -> None:
    path = scenario(tmp_path)
    process = serve(path, "--variant", "none-exec")
    try:
        ready = line(process)
        asked, lost, over = [0], list[str](), threading.Event()

        def keep_asking() -> None:
            while not over.is_set():
                try:
                    assert b"[DONE]" in ask(ready["ready"], ready["model"])
                except (OSError, AssertionError) as error:
                    lost.append(str(error))
                asked[0] += 1

        asking = threading.Thread(target=keep_asking)
        asking.start()
        try:
            (before,) = emulated(process)
            # Said wrongly, the engine that serves stays.
            good = path.read_text()
            path.write_text(good.replace("simulated", "simulatedd"))
            process.send_signal(signal.SIGHUP)
            assert "simulatedd" in line(process)["reason"]
            path.write_text(good.replace('"ttft_ms": 5', '"ttft_ms": 7'))
            process.send_signal(signal.SIGHUP)
            told = line(process)
            assert told["swapped"] == "none-exec"
            assert told["lost"] == 0
            (after,) = emulated(process)
            assert after.pid != before.pid
            assert '"ttft_ms": 7' in " ".join(after.cmdline())
        finally:
            over.set()
            asking.join()
        assert (lost, asked[0] > 3) == ([], True)
        ended(process)
    finally:
        process.kill()
        process.communicate()


def test_a_proxy_that_is_killed_ends_it_with_a_reason_and_a_killed_harness_leaves_nothing(tmp_path: Path) -> None:
    path = scenario(tmp_path)
    process = serve(path, "--variant", "none-exec")
    try:
        line(process)
        below = psutil.Process(process.pid).children(recursive=True)
        (proxy,) = [one for one in below if any("front_process" in word for word in one.cmdline())]
        proxy.kill()
        _, said = process.communicate(timeout=30)
        assert process.returncode != 0
        assert "the proxy before the engines ended" in said
        assert "Traceback" not in said
        process = serve(path, "--variant", "none-exec")
        line(process)
        below += psutil.Process(process.pid).children(recursive=True)
    finally:
        process.kill()
        process.communicate()
    _, alive = psutil.wait_procs(below, 20)
    assert alive == []
