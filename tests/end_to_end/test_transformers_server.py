"""The server against plain Transformers, on a real model and on a tiny one of random weights."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bench.engines.transformers import Transformers
from bench.scenario.model import Quantization
from tests.end_to_end.transformers_server import Server, serving

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(600)]

PROMPTS = ["The capital of France is", "Water boils at", "故障日志："]
TOKENS = 12


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("tiny"), "dummy:tiny-llama", "fp32", threads=1) as server:
        yield server


@pytest.fixture(scope="module", params=["fp32", "bf16"])
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """SmolLM2, in two dtypes."""
    quantization: Quantization = request.param
    with serving(tmp_path_factory.mktemp(quantization), "smollm2-135m", quantization, threads=1) as server:
        yield server, {"fp32": "float32", "bf16": "bfloat16"}[quantization]


def plain(server: Server, dtype: str, prompts: list[str] = PROMPTS, tokens: int = TOKENS) -> list[dict[str, Any]]:
    """The same questions put to Transformers itself."""
    script = Path(__file__).with_name("plain_transformers.py")
    job = json.dumps({"prompts": prompts, "tokens": tokens})
    done = subprocess.run(
        [server.python, script, server.checkpoint, dtype, job], capture_output=True, text=True, check=True
    )
    answers: list[dict[str, Any]] = json.loads(done.stdout)
    return answers


def test_answers_and_likelihoods_are_those_of_plain_transformers(small: tuple[Server, str]) -> None:
    server, dtype = small
    for prompt, expected in zip(PROMPTS, plain(server, dtype), strict=True):
        answer = server.complete(
            prompt=prompt, max_tokens=TOKENS, ignore_eos=True, echo=True, logprobs=3, return_token_ids=True
        )
        choice = answer["choices"][0]
        assert choice["text"] == prompt + expected["text"]
        assert choice["token_ids"] == expected["tokens"]
        assert choice["finish_reason"] == "length"
        assert answer["usage"] == {
            "prompt_tokens": len(expected["prompt"]),
            "completion_tokens": TOKENS,
            "total_tokens": len(expected["prompt"]) + TOKENS,
        }
        found = choice["logprobs"]["token_logprobs"]
        assert found[0] is None
        assert found[1:] == pytest.approx(expected["logprobs"], abs=1e-3)


def test_prompt_likelihoods_are_exact_over_the_whole_vocabulary(small: tuple[Server, str]) -> None:
    server, dtype = small
    text = "A sensor that reads zero and a sensor that is missing are two different things."
    expected = plain(server, dtype, [text], 1)[0]
    found = server.complete(prompt=text, max_tokens=0, prompt_logprobs=3)["choices"][0]["prompt_logprobs"]
    assert found[0] is None
    assert len(found) == len(expected["prompt"])
    for token, likely, logprob, best in zip(
        expected["prompt"][1:], found[1:], expected["logprobs"], expected["best"], strict=False
    ):
        assert likely[str(token)]["logprob"] == pytest.approx(logprob, abs=1e-3)
        ranked = sorted((entry["rank"], entry["logprob"]) for entry in likely.values())
        assert [value for rank, value in ranked if rank <= 3] == pytest.approx(best, abs=1e-3)


def test_each_token_is_on_the_wire_when_it_is_picked(small: tuple[Server, str]) -> None:
    server, _ = small
    got = list(server.stream(prompt=PROMPTS[0], max_tokens=16, ignore_eos=True, stream_options={"include_usage": True}))
    stamps = [at for at, event in got if event["choices"]]
    assert len(stamps) == 16
    assert got[-1][1]["usage"]["completion_tokens"] == 16
    # Were the tokens sent together, the first would come with the last.
    assert stamps[0] < stamps[-1] * 0.6
    assert stamps == sorted(stamps)


def test_a_streamed_answer_is_the_whole_answer(small: tuple[Server, str]) -> None:
    server, _ = small
    messages = [{"role": "user", "content": "Say hello in French, Chinese and with an emoji."}]
    body = {"messages": messages, "max_tokens": 24, "temperature": 0}
    status, whole = server.post("/v1/chat/completions", body)
    assert status == 200
    events = [event for _, event in server.stream("/v1/chat/completions", **body)]
    assert events[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    streamed = "".join(event["choices"][0]["delta"]["content"] for event in events)
    assert streamed == whole["choices"][0]["message"]["content"]
    assert streamed
    assert events[-1]["choices"][0]["finish_reason"] == whole["choices"][0]["finish_reason"]


def test_a_model_stops_by_itself_unless_told_to_go_on(small: tuple[Server, str]) -> None:
    server, _ = small
    messages = [{"role": "user", "content": "What is 2+2? Answer with one number."}]
    body = {"messages": messages, "max_tokens": 80, "temperature": 0}
    _, free = server.post("/v1/chat/completions", body)
    assert free["choices"][0]["finish_reason"] == "stop"
    count = free["usage"]["completion_tokens"]
    assert count < 80
    _, on = server.post("/v1/chat/completions", {**body, "ignore_eos": True})
    assert (on["choices"][0]["finish_reason"], on["usage"]["completion_tokens"]) == ("length", 80)
    _, longer = server.post("/v1/chat/completions", {**body, "min_tokens": count + 4})
    assert longer["usage"]["completion_tokens"] >= count + 4


def test_token_ids_and_text_are_the_same_question(tiny: Server) -> None:
    _, tokens = tiny.post("/tokenize", {"prompt": "hello"})
    assert tokens["count"] == 5
    by_ids = tiny.complete(prompt=tokens["tokens"], max_tokens=8)
    by_text = tiny.complete(prompt="hello", max_tokens=8)
    assert by_ids["choices"] == by_text["choices"]
    assert tiny.post("/detokenize", {"tokens": tokens["tokens"]}) == (200, {"prompt": "hello"})


def test_a_seed_repeats_a_draw(tiny: Server) -> None:
    def draw(seed: int) -> str:
        text: str = tiny.complete(prompt="a", max_tokens=8, temperature=1.0, seed=seed)["choices"][0]["text"]
        return text

    assert draw(1) == draw(1)
    assert len({draw(seed) for seed in range(5)}) > 1


def test_a_stop_string_ends_the_answer_before_it(tiny: Server) -> None:
    whole = tiny.complete(prompt="hello", max_tokens=8)["choices"][0]["text"]
    assert len(whole) >= 4
    stop = whole[2:4]
    cut = tiny.complete(prompt="hello", max_tokens=8, stop=[stop])["choices"][0]
    assert (cut["text"], cut["finish_reason"]) == (whole.partition(stop)[0], "stop")


def test_the_models_and_the_versions_are_told(tiny: Server) -> None:
    _, models = tiny.get("/v1/models")
    assert models["data"][0]["id"] == "model"
    assert models["data"][0]["max_model_len"] == 4096
    _, version = tiny.get("/version")
    assert version["version"].startswith("5.")
    facts = Transformers().facts(tiny.trace())
    assert (facts["dtype"], facts["threads"], facts["device"]) == ("float32", 1, "cpu")
    assert 4 * facts["parameters"] <= facts["weight_bytes"] < 4.1 * facts["parameters"]
    assert facts["compiled"] is False


@pytest.mark.parametrize(
    ("path", "body", "status", "says"),
    [
        ("/v1/completions", b"{", 400, "not JSON"),
        ("/v1/completions", b"[]", 400, "must be a JSON object"),
        ("/v1/completions", {}, 400, "prompt must be a string"),
        ("/v1/completions", {"prompt": ""}, 400, "the prompt is empty"),
        ("/v1/completions", {"prompt": [1, 2048]}, 400, "token id 2048 is not in the vocabulary of 2048"),
        ("/v1/completions", {"prompt": "a", "max_tokens": -1}, 400, "max_tokens must be at least 1"),
        ("/v1/completions", {"prompt": "a", "max_tokens": True}, 400, "must be a number, not True"),
        ("/v1/completions", {"prompt": "a", "max_tokens": 1.5}, 400, "must be a whole number"),
        ("/v1/completions", {"prompt": "a", "max_tokens": 5000}, 400, "maximum context length is 4096"),
        ("/v1/completions", {"prompt": "a", "temperature": -1}, 400, "temperature must be at least 0"),
        ("/v1/completions", {"prompt": "a", "n": 2}, 400, "n=2 is not supported"),
        ("/v1/completions", {"prompt": "a", "stop": 3}, 400, "stop must be"),
        ("/v1/completions", {"prompt": "a", "model": "other"}, 404, "the model 'other' does not exist"),
        ("/v1/chat/completions", {"messages": []}, 400, "messages must be a list"),
        ("/v1/chat/completions", {"messages": ["hello"]}, 400, "an object with a role"),
        ("/v1/completions", {"prompt": "a", "stream": True, "stream_options": 1}, 400, "must be an object"),
        ("/tokenize", {"messages": 3}, 400, "messages must be a list"),
        ("/detokenize", {"tokens": [-1]}, 400, "token id -1 is not in the vocabulary"),
        ("/v1/embeddings", {}, 404, "there is no /v1/embeddings"),
    ],
)
def test_a_wrong_request_is_answered_with_what_is_wrong(
    tiny: Server, path: str, body: Any, status: int, says: str
) -> None:
    found, answer = tiny.post(path, body)
    assert found == status
    assert says in answer["error"]["message"]
    assert answer["error"]["code"] == status


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
FIELDS = [
    "prompt",
    "messages",
    "max_tokens",
    "min_tokens",
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "stop",
    "stream",
    "stream_options",
    "logprobs",
    "top_logprobs",
    "prompt_logprobs",
    "echo",
    "ignore_eos",
    "model",
    "n",
    "logit_bias",
    "tools",
    "return_token_ids",
]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(["/v1/completions", "/v1/chat/completions", "/tokenize", "/detokenize"]),
    body=st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=4),
)
def test_no_request_at_all_ends_in_an_error_of_the_server(tiny: Server, path: str, body: dict[str, Any]) -> None:
    connection = tiny.connect()
    with closing(connection):
        connection.request("POST", path, json.dumps({"prompt": "a", "max_tokens": 2, **body}))
        response = connection.getresponse()
        answer = response.read()
        assert response.status in (200, 400, 404), answer
        assert b"server_error" not in answer


def test_a_connection_serves_request_after_request_also_after_a_wrong_one(tiny: Server) -> None:
    connection = tiny.connect()
    for body, status in ((b'{"prompt": "a", "max_tokens": 2}', 200), (b"{", 400), (b'{"prompt": "b"}', 200)):
        connection.request("POST", "/v1/completions", body)
        response = connection.getresponse()
        response.read()
        assert response.status == status
    connection.close()


def test_a_body_in_chunks_is_read(tiny: Server) -> None:
    connection = tiny.connect()
    connection.request("POST", "/v1/completions", iter([b'{"prompt": "a",', b'"max_tokens": 2}']), encode_chunked=True)
    answer = json.loads(connection.getresponse().read())
    assert answer["usage"]["completion_tokens"] == 2
    connection.close()


def test_a_client_that_leaves_ends_its_request(tiny: Server) -> None:
    body = json.dumps({"prompt": "hello", "max_tokens": 4000, "ignore_eos": True, "stream": True}).encode()
    with socket.create_connection(("127.0.0.1", tiny.port)) as left:
        left.sendall(b"POST /v1/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        assert left.recv(4096)
    deadline = time.monotonic() + 20
    cancelled: list[dict[str, Any]] = []
    while not cancelled and time.monotonic() < deadline:
        time.sleep(0.02)
        cancelled = [event for event in tiny.events("request") if event["finish"] == "cancelled"]
    assert cancelled[0]["completion_tokens"] < 4000
    assert tiny.complete(prompt="hello", max_tokens=2)["usage"]["completion_tokens"] == 2


def test_streams_take_turns(tiny: Server) -> None:
    ended: dict[str, float] = {}

    def drive(name: str, tokens: int) -> None:
        for _ in tiny.stream(prompt=name, max_tokens=tokens, ignore_eos=True):
            pass
        ended[name] = time.monotonic()

    long = threading.Thread(target=drive, args=("long", 600))
    long.start()
    time.sleep(0.1)
    drive("short", 20)
    long.join()
    assert ended["short"] < ended["long"], "a short answer does not wait for the end of a long one"


def test_more_streams_than_run_at_once_are_all_served(tiny: Server) -> None:
    counts: list[int] = []

    def drive(number: int) -> None:
        counts.append(sum(1 for _ in tiny.stream(prompt=f"{number}", max_tokens=10, ignore_eos=True)))

    threads = [threading.Thread(target=drive, args=(number,)) for number in range(9)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [10] * 9


def test_start_up_is_told_phase_by_phase(tiny: Server) -> None:
    tiny.complete(prompt="a", max_tokens=1)
    events = {event["name"]: event for event in reversed(tiny.events())}
    names = ["import_torch", "import_transformers", "device", "tokenizer", "weights", "http", "first_forward"]
    stamps = [(events[name]["t_ns"], events[name]["end_ns"]) for name in names]
    assert all(begin <= end for begin, end in stamps)
    assert all(before[1] <= after[0] for before, after in pairwise(stamps))
    found = Transformers().phases(tiny.trace())
    assert [phase.name for phase in found if phase.start_ns is not None] == names


@pytest.mark.parametrize("busy", [False, True])
def test_term_ends_it_promptly(tmp_path: Path, busy: bool) -> None:
    with serving(tmp_path, "dummy:tiny-llama", "bf16", threads=1) as server:
        with closing(server.stream(prompt="a", max_tokens=4000, ignore_eos=True)) as stream:
            if busy:
                next(stream)
            assert server.stop() < 5
        assert server.events("worker_end")


def test_a_static_cache_gives_the_same_answers_and_keeps_its_limit(tiny: Server, tmp_path: Path) -> None:
    expected = [tiny.complete(prompt=prompt, max_tokens=12)["choices"] for prompt in PROMPTS]
    with serving(tmp_path, "dummy:tiny-llama", "fp32", threads=1, static_cache=True, static_cache_tokens=64) as server:
        assert [server.complete(prompt=prompt, max_tokens=12)["choices"] for prompt in PROMPTS] == expected
        assert server.complete(prompt=PROMPTS[0], max_tokens=12)["choices"] == expected[0], "a cache used before"
        status, answer = server.post("/v1/completions", {"prompt": "a", "max_tokens": 64})
        assert status == 400
        assert "maximum context length is 64" in answer["error"]["message"]
        allocated = server.events("static_cache")[0]
        # 2 layers, keys and values, 2 heads of 32 in float32, 64 tokens, 4 sequences
        assert allocated["bytes"] == 2 * 2 * 2 * 32 * 4 * 64 * 4
        assert allocated["end_ns"] <= server.events("http")[0]["t_ns"], "allocated before ready"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_compiled_answers_are_the_same_and_the_second_launch_loads_what_the_first_compiled(
    tiny: Server, tmp_path: Path
) -> None:
    expected = tiny.complete(prompt=PROMPTS[0], max_tokens=12)["choices"]
    artifacts = tmp_path / "compiled.bin"
    seen = []
    for launch in ("cold", "warm"):
        # Each launch has empty cache folders of its own: what the second one knows comes from the artifacts.
        env = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / launch / "inductor")}
        options = {"compile": True, "static_cache": True, "static_cache_tokens": 64}
        with serving(
            tmp_path / launch, "dummy:tiny-llama", "fp32", env, threads=1, compile_artifacts=str(artifacts), **options
        ) as server:
            assert server.complete(prompt=PROMPTS[0], max_tokens=12)["choices"] == expected
            server.stop()
            seen.append(Transformers().facts(server.trace()))
            compiled = [phase for phase in Transformers().phases(server.trace()) if phase.name == "compile"]
            assert compiled
            assert compiled[0].parent == "first_forward"
            assert bool(server.events("compile_artifacts_load")) is (launch == "warm")
    cold, warm = seen
    assert cold["compile_cache_misses"] > 0
    assert cold["compile_cache_hits"] == 0
    assert warm["compile_cache_hits"] > 0
    assert warm["compile_cache_misses"] == 0
    assert warm["compile_s"] < cold["compile_s"]


def test_damaged_artifacts_cost_a_compilation_and_no_crash(tmp_path: Path) -> None:
    artifacts = tmp_path / "compiled.bin"
    artifacts.write_bytes(b"not what torch wrote")
    with serving(
        tmp_path / "launch", "dummy:tiny-llama", "fp32", threads=1, compile=True, compile_artifacts=str(artifacts)
    ) as server:
        loaded = server.events("compile_artifacts_load")[0]
        assert loaded["loaded"] is False
        assert server.get("/health") == (200, {})
