import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from bench.cli import main
from tests.children import ended


def test_selfcheck_prints_its_figures_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selfcheck", "--quick", "--json"]) == 0
    readings = json.loads(capsys.readouterr().out)["readings"]
    assert [reading["load"]["streams"] for reading in readings] == [1, 64]
    assert all(reading["error_p99_ms"] >= reading["error_p50_ms"] >= 0 for reading in readings)


def test_selfcheck_prints_a_table_that_names_bias_error_cost_and_headroom(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["selfcheck", "--quick"]) == 0
    said = capsys.readouterr().out
    for words in ("TTFT error: mean (bias), ms", "TTFT error: |p99|, ms", "CPU per event, driving, us", "headroom"):
        assert words in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--fault", "explode"], "the script is wrong: fault must be one of"),
        (["--script", "{"], "the script is not JSON"),
        (["--script", "nowhere.json"], "cannot read the script nowhere.json: No such file or directory"),
        (["--script", '{"ttft": 1}'], "the script is wrong: unknown: ttft"),
    ],
)
def test_a_wrong_script_is_refused_with_its_reason(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["simulate", *arguments]) == 4
    assert words in capsys.readouterr().err


def test_simulate_serves_any_client_until_it_is_told_to_end(tmp_path: Path) -> None:
    truth = tmp_path / "truth.jsonl"
    script = tmp_path / "script.json"
    script.write_text('{"text": "hello"}')
    argv = [
        sys.executable,
        "-c",
        "from bench.cli import main; main()",
        "simulate",
        "--port",
        "0",
        "--ttft-ms",
        "1",
        "--truth",
        str(truth),
    ]
    command = [*argv, "--script", str(script)]
    with ended(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)) as server:
        assert server.stdout is not None
        address = server.stdout.readline().removeprefix("listening on ").strip()
        body = json.dumps({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}).encode()
        with urllib.request.urlopen(f"{address}/v1/chat/completions", body, timeout=10) as answer:
            assert json.load(answer)["choices"][0]["message"]["content"] == "hello"
        with urllib.request.urlopen(f"{address}/health", timeout=10) as answer:
            assert answer.status == 200
        server.send_signal(signal.SIGTERM)
    assert server.returncode == 0
    (entry,) = [json.loads(line) for line in truth.read_text().splitlines()]
    assert entry["sends"][0][3] == "document"
