import json
from pathlib import Path
from typing import Any

import pytest

from bench.data import FOUNDING
from bench.engines.engine import Checkpoint, Endpoint
from bench.errors import UnknownName, UsageError
from bench.loadgen.job import Request
from bench.loadgen.prompts import Asked, Batch, requests, resolve
from bench.scenario.model import Workload

HERE = Path(__file__).parent
ENDPOINT = Endpoint("127.0.0.1", 8000, "m")
REMOTE = Checkpoint(None, "remote", None, "bf16", format="remote", vocab_size=50_000)
IDS = {"kind": "random", "tokens": [15, 128]}


def ask(prompts: dict[str, Any], count: int = 6, *, base: Path = HERE, **more: Any) -> list[Request]:
    fields = {name: more.pop(name) for name in list(more) if name in Workload.model_fields}
    workload = Workload.model_validate({"prompts": prompts, **fields})
    asked = Asked(workload, more.pop("endpoint", ENDPOINT), more.pop("checkpoint", REMOTE), base, more.pop("seed", 1))
    return requests(asked, Batch(more.pop("stage", "measured"), more.pop("first_id", 0), count, **more))


def prompt(request: Request) -> Any:
    body = request.body
    return body["prompt"] if "prompt" in body else body["messages"]


def test_random_prompts_cycle_through_their_lengths() -> None:
    made = ask(IDS, 4)
    assert [len(prompt(request)) for request in made] == [15, 128, 15, 128]
    assert [request.bucket for request in made] == [15, 128, 15, 128]
    assert {request.path for request in made} == {"/v1/completions"}


def test_a_server_that_only_chats_is_asked_by_chat() -> None:
    chats = Endpoint("127.0.0.1", 8000, "m", completions=False)
    made = ask(IDS, 2, endpoint=chats)
    assert {request.path for request in made} == {"/v1/chat/completions"}
    assert [len(request.body["messages"][0]["content"].split()) for request in made] == [15, 128]
    assert made[0].prompt_id.startswith("chat-words-about-15-"), "the template adds to the length, as the name admits"
    assert ask(IDS, 2)[0].path == "/v1/completions"


def test_every_request_has_a_prompt_of_its_own() -> None:
    texts = [json.dumps(prompt(request)) for request in ask(IDS, 200)]
    assert len(set(texts)) == 200
    assert len({request.prompt_id for request in ask(IDS, 200)}) == 200


def test_the_same_seed_gives_the_same_prompts_however_many_requests_went_before() -> None:
    early, late = ask(IDS, 10, first_id=0), ask(IDS, 10, first_id=77)
    assert [prompt(one) for one in early] == [prompt(one) for one in late]
    assert [one.prompt_id for one in early] == [one.prompt_id for one in late]
    assert [one.request_id for one in late] == list(range(77, 87))


def test_another_seed_gives_other_prompts() -> None:
    assert not {one.prompt_id for one in ask(IDS, 20)} & {one.prompt_id for one in ask(IDS, 20, seed=2)}


def test_warm_up_prompts_are_never_measured_ones_and_never_repeat_from_batch_to_batch() -> None:
    measured = {one.prompt_id for one in ask(IDS, 50)}
    batches = [ask(IDS, 50, stage="warmup", first_id=first) for first in (0, 50, 100)]
    warmups = [one.prompt_id for batch in batches for one in batch]
    assert len(set(warmups)) == 150
    assert not measured & set(warmups)


def test_without_uniqueness_prompts_of_one_length_are_one_prompt_but_the_warm_up_stays_apart() -> None:
    made = ask(IDS, 6, unique=False)
    assert len({one.prompt_id for one in made}) == 2
    warmup = ask(IDS, 6, unique=False, stage="warmup")
    assert not {one.prompt_id for one in made} & {one.prompt_id for one in warmup}


def test_the_body_asks_for_a_counted_stream_of_so_many_tokens() -> None:
    (request,) = ask(IDS, 1, output_tokens=7, measured=True, label="x")
    body = dict(request.body)
    body.pop("prompt")
    assert body == {
        "model": "m",
        "max_tokens": 7,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.0,
        "ignore_eos": True,
    }
    assert (request.output_tokens, request.measured, request.label, request.stage) == (7, True, "x", "measured")


def test_a_seed_is_sent_only_where_sampling_needs_one() -> None:
    assert ask(IDS, 1, temperature=0.7)[0].body["seed"] == 1


def test_an_endpoint_or_a_stage_can_add_fields_and_take_them_away() -> None:
    endpoint = Endpoint("h", 1, "m", prefix="/llm", body={"ignore_eos": None, "top_k": 1})
    (request,) = ask(IDS, 1, endpoint=endpoint, body={"top_k": 2, "logprobs": 5})
    assert "ignore_eos" not in request.body
    assert (request.body["top_k"], request.body["logprobs"], request.path) == (2, 5, "/llm/v1/completions")


def test_buckets_ask_for_random_prompts_of_those_lengths_whatever_the_workload_says() -> None:
    made = ask({"kind": "text", "file": "founding:fault-triage"}, 3, buckets=[8, 16], stage="warmup")
    assert [len(prompt(request)) for request in made] == [8, 16, 8]


def test_where_neither_ids_nor_a_tokenizer_exist_words_stand_in_and_the_name_admits_it() -> None:
    (request,) = ask(IDS, 1, endpoint=Endpoint("h", 1, "m", token_ids=False))
    assert len(prompt(request).split()) == 15
    assert request.prompt_id.startswith("words-about-15-")


@pytest.mark.parametrize(("name", "language"), [("fault-triage", "en"), ("manual-zh", "zh")])
def test_shipped_texts_begin_with_something_unique(name: str, language: str) -> None:
    made = ask({"kind": "text", "file": f"founding:{name}", "chat": True}, 40)
    contents = [prompt(request)[-1]["content"] for request in made]
    assert len({content[:10] for content in contents}) == 40
    assert all(prompt(request)[0]["role"] == "system" for request in made)
    assert {request.path for request in made} == {"/v1/chat/completions"}
    chinese = sum("\u4e00" <= character <= "\u9fff" for content in contents for character in content)
    assert (chinese > 5000) == (language == "zh")


def test_shipped_conversations_have_two_turns_that_follow_each_other() -> None:
    made = ask({"kind": "conversation", "file": "founding:two-turn"}, 5, first_id=10)
    assert [request.turn for request in made] == [0, 1, 0, 1, 0]
    assert [request.after for request in made] == [None, 10, None, 12, None]
    assert [message["role"] for message in prompt(made[1])] == ["user", "user"]
    assert prompt(made[1])[0] == prompt(made[0])[0]


def test_plain_files_have_one_prompt_a_line(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("one\n\ntwo\n")
    made = ask({"kind": "text", "file": "p.txt"}, 3, base=tmp_path, unique=False)
    assert [prompt(request) for request in made] == ["one", "two", "one"]
    assert made[0].prompt_id == made[2].prompt_id


def test_a_file_that_may_not_repeat_ends_the_requests(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "one"}\n{"prompt": "two"}\n')
    assert len(ask({"kind": "text", "file": "p.jsonl", "repeat": False}, 9, base=tmp_path)) == 2
    (tmp_path / "c.jsonl").write_text('{"turns": ["a", "b"]}\n')
    assert len(ask({"kind": "conversation", "file": "c.jsonl", "repeat": False}, 9, base=tmp_path)) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"prompt": "a"}\n{"promt": "b"}\n', r"p\.jsonl:2: needs 'prompt': text, or a list of texts"),
        ("{\n", r"p\.jsonl:1: not JSON"),
        ("[1]\n", r"p\.jsonl:1: needs 'prompt'"),
        ('{"prompt": "a", "system": 3}\n', r"p\.jsonl:1: 'system' must be text"),
        ("\n", r"p\.jsonl: has no prompts"),
    ],
)
def test_a_wrong_prompt_file_is_answered_with_the_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "p.jsonl").write_text(text)
    with pytest.raises(UsageError, match=words):
        ask({"kind": "text", "file": "p.jsonl"}, base=tmp_path)


def test_a_file_that_is_not_utf8_is_answered_with_the_byte(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes(b"ok\n\xff")
    with pytest.raises(UsageError, match=r"p\.txt: not UTF-8: .* at byte 3"):
        ask({"kind": "text", "file": "p.txt"}, base=tmp_path)


def test_a_missing_file_and_an_unknown_shipped_one_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no prompt file"):
        resolve("nowhere.txt", tmp_path)
    with pytest.raises(UnknownName, match="did you mean two-turn"):
        resolve("founding:two-turns", tmp_path)


def test_every_shipped_file_is_whole() -> None:
    names = sorted(path.stem for path in FOUNDING.glob("*.jsonl"))
    assert names == ["fault-triage", "manual-zh", "two-turn"]
    for name in names:
        kind = "conversation" if name == "two-turn" else "text"
        made = ask({"kind": kind, "file": f"founding:{name}", "repeat": False}, 1000)
        assert len(made) >= 5


@pytest.mark.parametrize("ids", [True, False])
def test_prompts_share_exactly_the_prefix_that_was_declared_and_groups_take_turns(ids: bool) -> None:
    endpoint = Endpoint("h", 1, "m", token_ids=ids)
    made = ask(IDS | {"shared_prefix": {"tokens": 10, "groups": 2}}, 8, endpoint=endpoint)
    tokens = [prompt(one) if ids else prompt(one).split() for one in made]
    assert [len(one) for one in tokens] == [15, 128] * 4
    for group in (0, 1):
        mine = tokens[group::2]
        assert {tuple(one[:10]) for one in mine} == {tuple(mine[0][:10])}
        assert len({tuple(one[10:15]) for one in mine}) == len(mine)
    assert tokens[0][:10] != tokens[1][:10]


def test_a_warm_up_has_a_prefix_of_its_own_so_that_the_first_request_finds_a_cold_cache() -> None:
    shared = IDS | {"shared_prefix": {"tokens": 10}}
    (measured,), (warm,) = ask(shared, 1), ask(shared, 1, stage="warmup")
    assert prompt(measured)[:10] != prompt(warm)[:10]


def traced(folder: Path, **fields: Any) -> list[Request]:
    lines = [
        {"timestamp": 1000, "input_length": 1100, "output_length": 3, "hash_ids": [7, 8, 9]},
        {"timestamp": 1250, "input_length": 1030, "output_length": 5, "hash_ids": [7, 8, 10]},
        {"timestamp": 4000, "input_length": 40, "output_length": 2, "hash_ids": [11]},
    ]
    (folder / "t.jsonl").write_text("\n".join(map(json.dumps, lines)))
    given = {"kind": "trace", "file": "t.jsonl", "limit": fields.pop("limit", 3)}
    return ask(given, fields.pop("count", 3), base=folder, **fields)


def test_a_trace_gives_each_request_its_lengths_and_its_time(tmp_path: Path) -> None:
    made = traced(tmp_path)
    assert [len(prompt(one)) for one in made] == [1100, 1030, 40]
    assert [(one.output_tokens, one.body["max_tokens"]) for one in made] == [(3, 3), (5, 5), (2, 2)]
    assert [one.due_ns for one in made] == [0, 250_000_000, 3_000_000_000]
    assert len(traced(tmp_path, limit=2)) == 2
    assert len(traced(tmp_path, count=1)) == 1


def test_equal_blocks_of_a_trace_are_equal_tokens_where_prompts_need_not_be_unique(tmp_path: Path) -> None:
    alike, apart = traced(tmp_path, unique=False), traced(tmp_path)
    first, second = prompt(alike[0]), prompt(alike[1])
    assert first[:1024] == second[:1024]
    assert first[1024:1030] != second[1024:1030]
    assert prompt(apart[0])[:512] != prompt(apart[1])[:512]
