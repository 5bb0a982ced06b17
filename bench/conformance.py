"""What every engine's adapter must do, as tests: one line in a test file runs them all against the real engine.

    from bench.conformance import contract

    TestMyEngine = contract("my-engine", model="smollm2-135m", quantization="bf16", args={"threads": 2})

The engine is started once for all tests, by its own command line, supervised and asked as in a measured launch. A test
that does not apply, since the engine has no weights or no prefix cache, is skipped and says so.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest

from bench import plugins
from bench.engines import startup
from bench.engines.engine import Checkpoint, Endpoint, Engine, LaunchContext, LaunchSpec, LaunchTrace, form
from bench.engines.server import Server, free_port, start
from bench.engines.spans import SpanSink
from bench.environments.environment import needed, provisioned
from bench.errors import LaunchError, ProvisionError
from bench.loadgen.generator import LoadGenerator
from bench.loadgen.job import Job, Request
from bench.loadgen.vocabulary import vocabulary
from bench.models.checkpoints import resolve
from bench.record.launches import STAMPS, Phase
from bench.record.schema import NULLS, REASONS
from bench.scenario.model import Arrivals, EngineSetting, Model, Quantization
from bench.scenario.variant import Variant

PROMPT, ANSWER = 24, 12
# So long an answer that it is still being written when it is cancelled.
LONG = 300
REMOTE = "remote:"


@dataclass(frozen=True, slots=True)
class Subject:
    """One engine with one model, as a scenario would name them."""

    engine: EngineSetting
    model: Model
    quantization: Quantization

    def variant(self, **args: Any) -> Variant:
        """The variant, with further flags."""
        engine = self.engine.model_copy(update={"args": {**self.engine.args, **args}})
        return Variant("v", {}, self.engine.engine, engine, "model", self.model, self.quantization, "none", (), "leave")

    def adapter(self) -> Engine:
        """The engine's adapter, by its entry point."""
        found: Engine = plugins.load("engines", self.engine.engine)()
        return found

    def checkpoint(self) -> Checkpoint:
        """The weights in the form that the engine loads."""
        if self.model.source == REMOTE:
            return Checkpoint(None, REMOTE, None, self.quantization, "remote")
        return resolve(self.model, self.quantization, form=form(self.adapter()))

    @property
    def cache_off(self) -> Mapping[str, Any]:
        """The flags that turn the engine's prefix cache off; none for an engine without one."""
        return dict(getattr(self.adapter(), "cache_off", {}))


@dataclass(slots=True)
class Served:
    """A started engine and the client that asks it."""

    subject: Subject
    checkpoint: Checkpoint
    spec: LaunchSpec
    server: Server
    load: LoadGenerator
    sink: SpanSink
    first_token_ns: int | None = None
    asked: list[dict[str, Any]] = field(default_factory=list)

    def prompt(self, seed: int, length: int = PROMPT) -> Any:
        """A prompt of so many tokens: ids where the server takes them, else text."""
        import random

        words, draw = vocabulary(self.checkpoint), random.Random(seed)
        endpoint = self.spec.endpoint
        return words.ids(length, draw) if endpoint.token_ids and endpoint.completions else words.text(length, draw)

    @property
    def exact(self) -> bool:
        """Whether answers have the length asked for: the server knows `ignore_eos`."""
        return self.spec.endpoint.body.get("ignore_eos", True) is not None

    def complete(self, prompt: Any, tokens: int = ANSWER, **fields: Any) -> dict[str, Any]:
        """One streamed completion as a row of the requests table; a chat where the server knows nothing else."""
        if not self.spec.endpoint.completions:
            return self.chat(prompt, tokens)
        return self._ask("/v1/completions", {"prompt": prompt, **fields}, tokens)

    def chat(self, text: str, tokens: int = ANSWER) -> dict[str, Any]:
        """One streamed chat answer as a row."""
        return self._ask("/v1/chat/completions", {"messages": [{"role": "user", "content": text}]}, tokens)

    def _ask(self, path: str, fields: Mapping[str, Any], tokens: int) -> dict[str, Any]:
        endpoint = self.server.endpoint
        body = {
            "model": endpoint.model,
            "max_tokens": tokens,
            "temperature": 0.0,
            "stream": True,
            "stream_options": {"include_usage": True},
            "ignore_eos": True,
            **endpoint.body,
            **fields,
        }
        body = {name: value for name, value in body.items() if value is not None}
        request = Request(
            len(self.asked), "p", "measured", endpoint.prefix + path, body, measured=True, output_tokens=tokens
        )
        job = Job(
            endpoint.host,
            endpoint.port,
            (request,),
            Arrivals(closed=1),
            tls=endpoint.tls,
            headers=endpoint.headers,
            timeout_s=300,
        )
        (row,) = self.load.drive(job).requests
        if self.first_token_ns is None:
            self.first_token_ns = row["first_token_ns"]
        self.asked.append(row)
        return row

    def trace(self) -> LaunchTrace:
        """What the launch has left behind so far."""
        stamps = {**dict.fromkeys(STAMPS), **self.server.stamps, "first_token": self.first_token_ns}
        return LaunchTrace(
            stamps=stamps,
            log=self.server.log(),
            events=self.server.events(),
            spans=self.sink.drain(),
            endpoint=self.server.endpoint,
        )

    def busy(self) -> float:
        """Seconds of processor time that the engine's living processes have used so far."""
        used = 0.0
        for pid in self.server.tree():
            try:
                times = psutil.Process(pid).cpu_times()
            except psutil.NoSuchProcess:
                continue
            used += times.user + times.system
        return used


def contract(
    engine: str,
    *,
    model: str = "smollm2-135m",
    quantization: Quantization = "bf16",
    args: Mapping[str, Any] | None = None,
    **fields: Any,
) -> type[EngineContract]:
    """The tests for one engine: `fields` are those of a scenario's engine (environment, python, path, image, env…)."""
    described = EngineSetting(engine=engine, args=dict(args or {}), **fields)
    subject = Subject(described, Model(source=model), quantization)
    return type(f"Test{engine.title().replace('-', '')}", (EngineContract,), {"subject": subject})


def started(subject: Subject, folder: Path, crew: ExitStack, **args: Any) -> Served:
    """The engine up and healthy with further flags; ended by `crew`. LaunchError if it does not get there."""
    checkpoint = subject.checkpoint()
    sink = crew.enter_context(SpanSink())
    load = crew.enter_context(LoadGenerator())
    context = LaunchContext(free_port(), folder, checkpoint, folder / "caches", sink.url)
    folder.mkdir(parents=True, exist_ok=True)
    spec = subject.adapter().command(subject.variant(**args), context)
    server = crew.enter_context(start(spec, folder))
    server.wait_healthy()
    return Served(subject, checkpoint, spec, server, load, sink)


class EngineContract:
    """The tests. A subclass names its `subject`; `contract` makes one."""

    subject: Subject

    @pytest.fixture(scope="class")
    @classmethod
    def session(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
        """The engine, up, with its prefix cache off and one request answered."""
        if name := needed(cls.subject.engine):
            try:
                provisioned(name)
            except ProvisionError as error:
                pytest.skip(str(error))
        with ExitStack() as crew:
            folder = tmp_path_factory.mktemp("engine")
            one = started(cls.subject, folder, crew, **cls.subject.cache_off)
            one.complete(one.prompt(0))
            yield one

    def test_the_command_is_a_pure_description(self, tmp_path: Path, session: Served) -> None:
        """Asked twice, it says the same; it answers here, on the port that it was given."""
        adapter = self.subject.adapter()
        context = LaunchContext(4242, tmp_path, session.checkpoint, tmp_path / "caches")
        first, second = (adapter.command(self.subject.variant(), context) for _ in range(2))
        assert adapter.name == self.subject.engine.engine
        if not first.attached:
            assert first.endpoint == second.endpoint
            assert first.endpoint.port == 4242
            assert Path(first.argv[0]).name == Path(second.argv[0]).name
            assert len(first.argv) == len(second.argv)

    def test_a_start_is_stamped_in_its_order(self, session: Served) -> None:
        """Spawn, open port, health, first token; and it still runs."""
        stamps = session.trace().stamps
        order = [stamps[name] for name in ("spawn", "port_open", "health", "first_token")]
        seen = [stamp for stamp in order if stamp is not None]
        assert all(before <= after for before, after in pairwise(seen)), order
        assert session.server.alive()
        if not session.spec.attached:
            assert len(seen) == 4
            assert session.server.tree()

    def test_tokens_are_streamed_and_counted(self, session: Served) -> None:
        """As many as were asked for, one event after another, and the prompt has the length that was sent."""
        row = session.complete(session.prompt(1))
        assert row["error"] is None
        if session.exact:
            assert row["finish_reason"] == "length"
            assert row["completion_tokens"] == ANSWER
        assert 1 < row["completion_tokens"] <= ANSWER
        if session.spec.endpoint.completions and (session.checkpoint.tokenizer or session.spec.endpoint.token_ids):
            assert row["prompt_tokens"] == PROMPT
        # A character may need two tokens, and two events may meet in one read; an answer in one piece has neither.
        assert row["completion_tokens"] // 2 <= row["chunks"] <= row["completion_tokens"]
        assert row["sent_ns"] < row["first_token_ns"] < row["last_token_ns"] <= row["end_ns"]

    def test_text_is_as_long_for_the_server_as_for_us(self, session: Served) -> None:
        """The tokenizer that prompts are cut with is the engine's."""
        if session.checkpoint.tokenizer is None or not session.spec.endpoint.completions:
            pytest.skip("no tokenizer of this model is at hand, or its template adds to every prompt")
        import random

        text = vocabulary(session.checkpoint).text(PROMPT, random.Random(2))
        row = session.complete(text)
        assert (row["error"], row["prompt_tokens"]) == (None, PROMPT)

    def test_a_chat_is_answered(self, session: Served) -> None:
        """The chat endpoint streams too, through the model's own template."""
        row = session.chat("Which city is the capital of France?")
        assert row["error"] is None
        assert 1 <= row["completion_tokens"] <= ANSWER
        assert row["completion_tokens"] == ANSWER or not session.exact
        assert row["text"]

    def test_greedy_answers_repeat(self, session: Served) -> None:
        """The same prompt gets the same answer, and no prefix cache shortens it."""
        first, second = (session.complete(session.prompt(3)) for _ in range(2))
        assert first["text"] == second["text"]
        assert not first["cached_tokens"]
        assert not second["cached_tokens"]

    def test_its_own_time_to_first_token_is_within_ours(self, session: Served) -> None:
        """A server's figure starts later and ends earlier than the client's, of which the network is a part."""
        row = session.complete(session.prompt(4))
        if row["server_ttft_ms"] is None:
            pytest.skip("it gives no figure of its own")
        ours = (row["first_token_ns"] - row["sent_ns"]) / 1e6
        assert 0 < row["server_ttft_ms"] <= ours + 1
        if row["server_tpot_ms"] is not None:
            assert row["server_tpot_ms"] == pytest.approx(_token_s(row) * 1e3, rel=0.3)

    def test_what_the_client_no_longer_wants_is_not_computed(self, session: Served) -> None:
        """A connection that is closed ends its answer: the engine is idle long before it would have been written."""
        endpoint = session.server.endpoint
        if session.spec.attached or endpoint.tls or not endpoint.completions:
            pytest.skip("its processes are not ours to look at, or it only chats")
        token_s = _token_s(session.complete(session.prompt(5), tokens=4 * ANSWER))
        _break_off(endpoint, session.prompt(6))
        limit = time.monotonic() + max(2.0, LONG * token_s / 2)
        used, idle = session.busy(), False
        while not idle and time.monotonic() < limit:
            time.sleep(max(0.25, 3 * token_s))
            before, used = used, session.busy()
            idle = used - before < 0.2 * max(0.25, 3 * token_s)
        assert idle, f"still busy after half the time that {LONG} tokens would take"
        assert session.complete(session.prompt(7))["error"] is None

    def test_the_start_is_accounted_for(self, session: Served) -> None:
        """Every instant up to the first token belongs to a phase; what is not known says why."""
        trace = session.trace()
        if session.spec.attached:
            pytest.skip("it had started before we came")
        own = session.subject.adapter().phases(trace)
        for phase in own:
            _sound(phase)
        whole = startup.resolve(trace, own)
        begin, end = trace.stamps["spawn"], trace.stamps["first_token"]
        assert begin is not None
        assert end is not None
        covered = [phase for phase in whole if phase.start_ns is not None and phase.end_ns is not None]
        assert not list(startup.gaps(covered, begin, end))
        if own:
            assert [phase for phase in own if phase.start_ns is not None], "no phase of its own was seen"

    def test_facts_are_plain_and_known(self, session: Served) -> None:
        """They go into the record as JSON, and what it does not say is left out."""
        facts = session.subject.adapter().facts(session.trace())
        assert json.loads(json.dumps(facts)) == facts
        assert facts
        assert not [name for name, value in facts.items() if value == ""]

    def test_a_launch_that_left_nothing_is_read_too(self) -> None:
        """An engine that died at once has no log and no stamps, and still gets a record."""
        trace = LaunchTrace(stamps=dict.fromkeys(STAMPS), log=[])
        for phase in self.subject.adapter().phases(trace):
            assert phase.start_ns is None or phase.end_ns is None
            _sound(phase)
        json.dumps(self.subject.adapter().facts(trace))

    def test_a_flag_that_it_does_not_have_is_a_classified_failure(self, tmp_path: Path, session: Served) -> None:
        """Before the start where it can be known, else by its last words."""
        if session.spec.attached:
            pytest.skip("its flags are not ours to set")
        with ExitStack() as crew, pytest.raises(LaunchError) as failure:
            started(self.subject, tmp_path, crew, no_such_flag_at_all=1)
        assert failure.value.kind == "bad_argument"
        assert "no_such_flag_at_all" in str(failure.value) or "no-such-flag-at-all" in str(failure.value)

    def test_damaged_weights_end_in_its_own_last_words(self, tmp_path: Path, session: Served) -> None:
        """A launch that cannot succeed is recorded with a reason, and leaves no process behind."""
        if session.checkpoint.path is None:
            pytest.skip("it loads no weights")
        damaged = replace(session.checkpoint, path=_damaged(session.checkpoint.path, tmp_path / "damaged"))
        context = LaunchContext(free_port(), tmp_path, damaged, tmp_path / "caches")
        spec = self.subject.adapter().command(self.subject.variant(), context)
        server = start(spec, tmp_path)
        try:
            with pytest.raises(LaunchError) as failure:
                server.wait_healthy()
        finally:
            ended = server.stop()
        assert failure.value.kind in REASONS
        assert failure.value.kind != "not_ready", "it stayed up without weights"
        assert failure.value.tail
        assert ended["leftover"] == []

    def test_killed_while_serving_is_told_from_a_wrong_answer(self, tmp_path: Path, session: Served) -> None:
        """The request fails, and the launch has the engine's end as its reason, not the client's."""
        if session.spec.attached:
            pytest.skip("it is not ours to kill")
        with ExitStack() as crew:
            other = started(self.subject, tmp_path, crew)
            pids = other.server.tree()
            other.server.kill()
            row = other.complete(other.prompt(8))
            assert row["error_kind"] in ("connect", "closed")
            failure = other.server.failure("serving")
            assert failure.kind in ("crash_while_serving", "out_of_memory")
            assert other.server.stop()["leftover"] == []
        assert not _living(pids)

    def test_zz_it_stops_when_it_is_told_to(self, session: Served) -> None:
        """Politely, with all its processes. The last test of the class: the engine is gone afterwards."""
        if session.spec.attached:
            pytest.skip("it is not ours to stop")
        pids = session.server.tree()
        ended = session.server.stop()
        assert ended["leftover"] == []
        assert not ended["killed"], "it had to be killed"
        assert not _living(pids)


def _token_s(row: Mapping[str, Any]) -> float:
    """Seconds per token after the first."""
    count = max(1, int(row["completion_tokens"] or row["chunks"]) - 1)
    return float(row["last_token_ns"] - row["first_token_ns"]) / 1e9 / count


def _break_off(endpoint: Endpoint, prompt: Any) -> None:
    """Ask for a long answer and hang up once its first bytes are here."""
    body = {"model": endpoint.model, "prompt": prompt, "max_tokens": LONG, "stream": True, "ignore_eos": True}
    asked = {name: value for name, value in {**body, **endpoint.body}.items() if value is not None}
    text = json.dumps(asked).encode()
    head = f"POST {endpoint.prefix}/v1/completions HTTP/1.1\r\nHost: {endpoint.host}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
    with socket.create_connection((endpoint.host, endpoint.port), timeout=300) as line:
        line.sendall(head.encode() + text)
        received = b""
        while b"data: " not in received:
            piece = line.recv(4096)
            assert piece, f"it hung up first: {received[:200]!r}"
            received += piece


def _sound(phase: Phase) -> None:
    if phase.start_ns is None or phase.end_ns is None:
        assert phase.reason in NULLS, phase
    else:
        assert phase.start_ns <= phase.end_ns, phase


def _damaged(path: Path, to: Path) -> Path:
    """The same checkpoint with every weight file cut to its first bytes."""
    files: Sequence[Path] = [path] if path.is_file() else [file for file in path.iterdir() if file.is_file()]
    to.mkdir()
    for file in files:
        if file.suffix in (".gguf", ".safetensors"):
            (to / file.name).write_bytes(file.read_bytes()[:64])
        else:
            shutil.copyfile(file, to / file.name)
    return to / path.name if path.is_file() else to


def _living(pids: Sequence[int]) -> list[int]:
    return [pid for pid in pids if os.path.exists(f"/proc/{pid}")]  # noqa: PTH110 (a pid is no path of ours)
