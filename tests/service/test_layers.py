"""The ways to a server: as a scenario, as nginx's configuration, and for real before a server of known times."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from statistics import mean, median

import psutil
import pytest

from bench.analyse.run import Launch, Run
from bench.cli import main
from bench.engines.ports import free_port, is_open
from bench.errors import UsageError
from bench.judge.added import CHAT, NUMBER, POLLING, STRAIGHT, added, chunks_per_read
from bench.loadgen.selfcheck import server, true_ttft_ns
from bench.report.reach import NAME, of_the_way
from bench.run.conductor import Setting, carry_out
from bench.service import litellm, nginx, passage
from bench.service.layers import (
    KNOWN,
    USUAL,
    Ask,
    Destination,
    available,
    numbered,
    scenario,
    target,
    unnumbered,
    ways,
)
from tests.cli.test_serve import scenario as served_scenario
from tests.waiting import until

TO = Destination("http://127.0.0.1:8000/deep", "some-model")
NGINX = nginx.installed()
needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed: apt install nginx-light")


def test_ways_are_known_names_or_addresses() -> None:
    assert ways(["nginx", "mine=http://127.0.0.1:1"]) == {"nginx": None, "mine": "http://127.0.0.1:1"}
    with pytest.raises(UsageError, match="none of number, nginx, "):
        ways(["apache"])
    with pytest.raises(UsageError, match="does not begin with http"):
        ways(["mine=127.0.0.1:1"])
    with pytest.raises(UsageError, match="is there already"):
        ways(["nginx", "nginx"])
    with pytest.raises(UsageError, match="is there already"):
        ways([f"{STRAIGHT}=http://127.0.0.1:1"])


def test_every_way_is_a_variant_and_asked_alike() -> None:
    started = [name for name in KNOWN if name != NUMBER]
    made = scenario(TO, ways([*started, "mine=http://127.0.0.1:1"]), Ask(blocks=2))
    assert [variant.id for variant in made.variants] == [STRAIGHT, *started, "mine"]
    for one in made.variants:
        assert one.engine.served_model == "some-model"
        page = {"page": True} if one.id in (CHAT, POLLING) else {}
        assert one.engine.args == {"completions": False, "token_ids": False, **page}
    assert made.model.design.blocks == 2


def test_a_key_is_named_and_never_written() -> None:
    os.environ["LAYERS_KEY"] = "hush"
    try:
        made = scenario(replace(TO, key_env="LAYERS_KEY"), ways([name for name in KNOWN if name != NUMBER]), Ask())
        config = litellm.config(TO.url, TO.model, "LAYERS_KEY")
    finally:
        del os.environ["LAYERS_KEY"]
    assert "hush" not in made.text
    assert {variant.engine.api_key_env for variant in made.variants} == {"LAYERS_KEY"}
    assert config["model_list"][0]["litellm_params"]["api_key"] == "os.environ/LAYERS_KEY"
    # Nobody gets through to the server without it.
    assert config["general_settings"] == {"master_key": "os.environ/LAYERS_KEY"}


def test_litellm_asks_the_server_under_its_own_path() -> None:
    (only,) = litellm.config("http://127.0.0.1:8000/deep", "some-model", None)["model_list"]
    assert only["model_name"] == "some-model"
    assert only["litellm_params"]["api_base"] == "http://127.0.0.1:8000/deep/v1"


def test_a_server_that_is_not_there_is_said_before_anything_starts() -> None:
    with pytest.raises(UsageError, match=r"no answer to GET /v1/models \(Connection refused\): is it running\?"):
        target(f"http://127.0.0.1:{free_port()}", None, None)
    with pytest.raises(UsageError, match="not http"):
        target("ftp://127.0.0.1", None, None)


def test_what_is_not_installed_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRSTTOKEN_HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(nginx, "PLACES", str(tmp_path))
    assert "apt install nginx" in (available("nginx", TO.url) or "")
    assert "bench engines install litellm" in (available("litellm", TO.url) or "")
    assert "bench engines install chat" in (available("chat", TO.url) or "")


def test_a_name_is_asked_by_the_number_that_it_stands_for() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        assert numbered(f"http://localhost:{port}/deep") == f"http://127.0.0.1:{port}/deep"
        to = Destination(f"http://localhost:{port}", "some-model")
        made = scenario(to, ways([NUMBER]), Ask(blocks=2))
        assert [one.engine.base_url for one in made.variants] == [to.url, f"http://127.0.0.1:{port}"]
    with pytest.raises(UsageError, match="refused"):
        numbered(f"http://localhost:{port}")
    assert unnumbered(to.url) is None
    assert "no name to look up" in (unnumbered("http://[::1]:8000") or "")
    assert unnumbered("https://llm.example") == "a certificate is for a name"
    assert "by number" in (unnumbered("scenarios/quick.yaml") or "")


def front(tmp_path: Path, *, buffered: bool = False) -> passage.PlainNginx:
    upstream = "https://llm.example/deep/v1"
    return passage.PlainNginx(upstream=upstream, port=8080, scratch=tmp_path, buffered=buffered)


def test_nginx_leads_to_the_servers_own_path_and_sends_nothing_twice(tmp_path: Path) -> None:
    text = passage.config(front(tmp_path))
    assert "upstream engine { server llm.example:443; keepalive 64; }" in text
    assert "proxy_pass https://engine/deep/;" in text
    assert "listen 127.0.0.1:8080;" in text
    assert "proxy_next_upstream off;" in text
    assert "proxy_ssl_name llm.example;" in text
    assert "proxy_buffering off;" in text
    assert "proxy_buffering" not in passage.config(front(tmp_path, buffered=True))


@needs_nginx
@pytest.mark.parametrize("buffered", [False, True])
def test_nginx_itself_finds_the_configuration_sound(tmp_path: Path, buffered: bool) -> None:
    place = tmp_path / "nginx.conf"
    upstream = "http://127.0.0.1:9/v1"
    place.write_text(passage.config(passage.PlainNginx(upstream=upstream, port=1, scratch=tmp_path, buffered=buffered)))
    assert NGINX is not None
    tried = subprocess.run(
        [NGINX, "-t", "-e", "stderr", "-p", str(tmp_path), "-c", str(place)], capture_output=True, text=True
    )
    assert tried.returncode == 0, tried.stderr


SLOWER = {"ttft_ms": 55.0, "itl_ms": 7.0}
KNOWN_TIMES = {"ttft_ms": 50.0, "itl_ms": 5.0}


def sent(log: Path, launch: Launch) -> tuple[float, float]:
    """What a server's own log says of a launch: medians of its time to the first token and between tokens, ms."""
    rows = launch.requests().to_pylist()
    entries = [one for line in log.read_text().splitlines() if (one := json.loads(line))["request"]]
    firsts, gaps = [], []
    for row in (row for row in rows if row["measured"]):
        (entry,) = [one for one in entries if row["sent_ns"] <= one["kernel_ns"] <= row["end_ns"]]
        stamps = [before for _, before, _, kind, _ in entry["sends"] if kind == "content"]
        firsts.append(true_ttft_ns(entry) / 1e6)
        gaps.append((stamps[-1] - stamps[0]) / (len(stamps) - 1) / 1e6)
    return median(firsts), median(gaps)


@pytest.mark.end_to_end
@needs_nginx
def test_known_delays_are_told_within_a_millisecond_and_collecting_is_seen(tmp_path: Path) -> None:
    """Two servers that log when their bytes leave: on a busy machine too the difference is known."""
    logs = {STRAIGHT: tmp_path / "straight.jsonl", "slower": tmp_path / "slower.jsonl"}
    with server(KNOWN_TIMES, truth=logs[STRAIGHT]) as here, server(SLOWER, truth=logs["slower"]) as there:
        to = target(f"http://127.0.0.1:{here}", None, None)
        chosen = ways([f"slower=http://127.0.0.1:{there}", "nginx-buffered"])
        made = scenario(to, chosen, Ask(blocks=2, requests=12, output_tokens=16))
        # Neighbours of a test are not what is tested.
        design = made.model.design.model_copy(update={"max_steal": 1.0})
        made = replace(made, model=made.model.model_copy(update={"design": design}))
        folder = carry_out(made, Setting(results=tmp_path / "results", check_client=False))
    run = Run.open(folder)
    told = {(one.way, one.measure): one for one in added(run)}
    true = {
        (launch.record.block, launch.record.variant): sent(logs[launch.record.variant], launch)
        for launch in run.all
        if launch.record.variant in logs
    }
    for number, measure in enumerate(("ttft.p50", "tpot.p50")):
        truth = mean(true[block, "slower"][number] - true[block, STRAIGHT][number] for block in (0, 1))
        interval = told["slower", measure].interval
        assert interval is not None
        assert interval.estimate == pytest.approx(truth, abs=1.0)
    # nginx as it comes holds the whole answer back: the first token comes with the last.
    first = told["nginx-buffered", "ttft.p50"].interval
    assert first is not None
    assert first.estimate > 14 * KNOWN_TIMES["itl_ms"]
    assert told["nginx-buffered", "tpot.p50"].reason == "no TPOT p50: the answer came in one piece"
    per_read = chunks_per_read(run)
    assert per_read[STRAIGHT] < 2
    assert per_read["nginx-buffered"] == pytest.approx(16.0, abs=0.5)
    # nginx was an engine of each of its launches, and is gone with it.
    confs = [str(path) for path in folder.rglob("nginx.conf")]
    assert len(confs) == 2
    assert not [one for one in psutil.process_iter(["cmdline"]) if set(confs) & set(one.info["cmdline"] or [])]


def test_a_served_variant_is_nobodys_child_and_ends_with_its_owner(tmp_path: Path) -> None:
    """Killed outright, the owner can end nothing: the served engine has to notice."""
    path = served_scenario(tmp_path)
    program = (
        "import sys, time\nfrom pathlib import Path\nfrom bench.run.progress import Silent\n"
        "from bench.service.layers import served\n"
        "with served(Path(sys.argv[1]), 'none-exec', Silent()) as url:\n    print(url, flush=True)\n    time.sleep(600)"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", program, str(path)],
        env={**os.environ, "FIRSTTOKEN_HOME": str(tmp_path / "home")},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert owner.stdout is not None
    url = owner.stdout.readline().strip()
    port = int(url.rpartition(":")[2])
    try:
        assert is_open("127.0.0.1", port)
        assert psutil.Process(owner.pid).children(recursive=True) == []
    finally:
        owner.kill()
        owner.communicate()
    until(lambda: not is_open("127.0.0.1", port))


def test_a_variant_that_does_not_start_is_told_with_its_last_words(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = served_scenario(tmp_path, fault="http_500")
    os.environ["FIRSTTOKEN_HOME"], before = str(tmp_path / "home"), os.environ.get("FIRSTTOKEN_HOME")
    try:
        assert main(["layers", str(path), "--variant", "none-exec", "--through", "nginx"]) == 4
    finally:
        os.environ.pop("FIRSTTOKEN_HOME")
        os.environ |= {"FIRSTTOKEN_HOME": before} if before else {}
    said = capfd.readouterr().err
    assert "did not become ready" in said
    assert "scripted failure" in said
    assert "Traceback" not in said


needs_all = pytest.mark.skipif(
    any(available(name, "http://localhost:1") for name in USUAL),
    reason="needs nginx, Chromium and the environments litellm and chat (bench engines install litellm chat)",
)


@pytest.mark.slow
@needs_all
def test_every_way_in_one_command_and_a_known_delay_among_them(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """nginx, a gateway and a page beside each other: none is left over, none leaves the others without figures."""
    monkeypatch.chdir(tmp_path)
    logs = {STRAIGHT: tmp_path / "straight.jsonl", "slower": tmp_path / "slower.jsonl"}
    with server(KNOWN_TIMES, truth=logs[STRAIGHT]) as here, server(SLOWER, truth=logs["slower"]) as there:
        taken = [*USUAL, f"slower=http://127.0.0.1:{there}"]
        words = ["--blocks", "2", "--requests", "8", "--output-tokens", "16", "--results", str(tmp_path / "results")]
        through = [word for way in taken for word in ("--through", way)]
        assert main(["layers", f"http://localhost:{here}", *through, *words]) == 0
    said = capfd.readouterr()
    assert "is left out" not in said.err
    (folder,) = (tmp_path / "results" / "layers").iterdir()
    run = Run.open(folder)
    assert set(run.variants) == {STRAIGHT, *USUAL, "slower"}
    told = {(one.way, one.measure): one for one in added(run)}
    firsts = {way: told[way, "ttft.p50"].interval for way in (*USUAL, "slower")}
    valid = {(one.record.block, one.record.variant): one for one in run.all if one.record.status == "ok"}
    took = {way: [sent(logs[way], valid[block, way])[0] for block in (0, 1)] for way in logs}
    for way in (STRAIGHT, "slower"):
        seen = told["slower", "ttft.p50"]
        shown = seen.straight if way == STRAIGHT else seen.through
        assert shown == pytest.approx(median(took[way]), abs=1.0)
    assert firsts["slower"] is not None
    assert firsts["slower"].estimate == pytest.approx(mean(took["slower"]) - mean(took[STRAIGHT]), abs=1.0)
    # What is asked by number needs no name; the rest takes time, and a page at least the frame that it is painted in.
    for way, least in ((NUMBER, -10.0), ("nginx", -5.0), ("litellm", 0.5), (CHAT, 2.0)):
        interval = firsts[way]
        assert interval is not None, way
        assert interval.estimate > least, way
    assert told["nginx-buffered", "tpot.p50"].reason == "no TPOT p50: the answer came in one piece"
    claims = [finding.claim for finding in of_the_way(run)]
    assert claims == [NAME]
    (page,) = (tmp_path / "reports").glob("*.html")
    text = page.read_text()
    assert "What stands in front of the engine" in text
    assert "What holds of the founding article" in text
    # Whatever was started for a launch is gone with it.
    mine = [str(folder), str(tmp_path)]
    left = [one.info["cmdline"] for one in psutil.process_iter(["cmdline"]) if one.pid != os.getpid()]
    assert not [words for words in left if any(place in " ".join(words or []) for place in mine)]
