"""The recorded tables and documents, column by column.

Stamps are integer nanoseconds of CLOCK_MONOTONIC on the machine that ran the engine; those of a client elsewhere were
moved to it, all of a job by one offset, so that its durations stay as they were. A missing value is null, and a null
sensor reading or phase carries a reason; zero means that zero was measured. This module imports nothing heavy: the load
generator's process reads it too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

SCHEMA_VERSION = 1

Type = Literal["int64", "float64", "string", "bool"]
# `stopped`: ended before its first token because it could no longer be among the best; it has no value, only a bound.
Status = Literal["ok", "failed", "unsupported", "invalid", "interrupted", "stopped"]
CheckStatus = Literal["ok", "violated", "warning", "unknown"]

# Why a reading or a phase is null.
NULLS = ("unsupported", "no_permission", "not_found", "stale", "partial", "parse_failed")
# A phase may also have happened before the launch, in the warm parent that it was forked from.
FORKED = "forked"
# Or before the image was written that it was restored from.
RESTORED = "restored"

# Why a launch failed.
REASONS = (
    "out_of_memory",
    "port",
    "missing_module",
    "missing_file",
    "bad_argument",
    "unsupported_quantization",
    "unsupported",
    "not_ready",
    "crash_at_start",
    "crash_while_serving",
    "request_failed",
    "stalled",
    "client_lost",
    "disk_full",
    "no_reference",
    "hopeless",
    "interrupted",
    "internal",
)

# Where in a launch a request belongs. `first` is the workload's first request: shown, and kept out of steady figures.
RequestStage = Literal["warmup", "first", "measured", "quality"]
STAGES: tuple[RequestStage, ...] = get_args(RequestStage)

# Where an engine's process came from: a new program, a fork of a warm parent, an image on disk, or it was there before.
StartMode = Literal["exec", "forked", "restored", "attached"]

# Who says how long a phase took: our own stamps, an engine's spans, its log, or its worker's events.
PhaseSource = Literal["stamp", "span", "log", "worker"]

# Why a request failed.
ERROR_KINDS = ("connect", "timeout", "http", "protocol", "closed", "server_event", "aborted", "empty", "cancelled")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a recorded table."""

    name: str
    type: Type
    doc: str
    null: bool = False


REQUESTS = (
    Column("request_id", "int64", "index within the launch, in the order in which they were made"),
    Column("stream", "int64", "the closed-loop stream or connection that carried it"),
    Column("stage", "string", ", ".join(STAGES)),
    Column("label", "string", "the warm-up step or prompt set it belongs to", null=True),
    Column("measured", "bool", "true for the steady measurement only"),
    Column("prompt_id", "string", "names the prompt; equal across variants of one block"),
    Column("bucket", "int64", "prompt length asked for, tokens", null=True),
    Column("turn", "int64", "turn of a conversation, from 0"),
    Column("client", "int64", "which of the hosts in `client.remotes` sent it; null for this machine", null=True),
    Column("intended_ns", "int64", "when the arrival process meant to send it"),
    Column("released_ns", "int64", "when max_in_flight let it go; null where nothing caps an open load", null=True),
    Column("sent_ns", "int64", "just before its first byte was handed to the kernel", null=True),
    Column("sent_end_ns", "int64", "after its last byte was handed to the kernel", null=True),
    Column("connect_ns", "int64", "duration of the connection's opening; null when reused", null=True),
    Column("status", "int64", "HTTP status", null=True),
    Column("headers_ns", "int64", "first byte of the response", null=True),
    Column("first_chunk_ns", "int64", "first event with choices", null=True),
    Column("first_token_ns", "int64", "first non-empty content or reasoning", null=True),
    Column("first_answer_ns", "int64", "first non-empty content that is not reasoning", null=True),
    Column("first_argument_ns", "int64", "first fragment of a tool call's arguments", null=True),
    Column("last_token_ns", "int64", "last output: content, reasoning or a piece of a tool call", null=True),
    Column("end_ns", "int64", "end of the response, or of waiting for it", null=True),
    Column(
        "stamp_source",
        "string",
        "kernel, user or paint: the clock behind the five stamps above",
        null=True,
    ),
    Column("client_lag_us", "float64", "user stamp − kernel stamp at the first token", null=True),
    Column("client_lag_max_us", "float64", "the largest such difference of the stream", null=True),
    Column("chunks", "int64", "token-bearing events"),
    Column("coalesced", "int64", "events that shared a read with an earlier event"),
    Column("prompt_tokens", "int64", "as the server counted", null=True),
    Column("completion_tokens", "int64", "as the server counted", null=True),
    Column("cached_tokens", "int64", "prompt tokens served from a prefix cache", null=True),
    Column("count_reason", "string", "why a count that the server gave is null here", null=True),
    Column("first_tokens", "int64", "tokens made by the first output event, its own included", null=True),
    Column("first_share", "float64", "the same as a share of all, by its characters", null=True),
    Column("output_tokens_asked", "int64", "output tokens asked for", null=True),
    Column("server_ttft_ms", "float64", "the server's own figure, where it gives one", null=True),
    Column("server_tpot_ms", "float64", "the server's own time per output token after the first", null=True),
    Column("finish_reason", "string", "as the server said", null=True),
    Column("error_kind", "string", "one of ERROR_KINDS", null=True),
    Column("error", "string", "the same in words", null=True),
    Column("text", "string", "the answer", null=True),
)

CHUNKS = (
    Column("request_id", "int64", "the request it belongs to"),
    Column("seq", "int64", "event number within the stream, from 0"),
    Column("kernel_ns", "int64", "kernel receive time on CLOCK_MONOTONIC", null=True),
    Column("user_ns", "int64", "when the client held the bytes"),
    Column("read", "int64", "number of the read that completed it; equal numbers came together"),
    Column("kind", "string", "role, content, reasoning, tool, usage, finish, done, comment, error, other"),
    Column("tokens", "int64", "tokens the event carries, where the server says", null=True),
)

SAMPLES = (
    Column("t_ns", "int64", "when the reading was taken"),
    Column("probe", "string", "who took it"),
    Column("field", "string", "what was read; unit and meaning are in launch.json under `fields`"),
    Column("value", "float64", "the reading", null=True),
    Column("reason", "string", "why there is none: " + ", ".join(NULLS), null=True),
)

EVENTS = (
    Column("t_ns", "int64", "when it happened"),
    Column("source", "string", "who says so"),
    Column("name", "string", "what happened"),
    Column("detail", "string", "JSON", null=True),
)

PHASES = (
    Column("name", "string", "what the time went to"),
    Column("start_ns", "int64", "begin", null=True),
    Column("end_ns", "int64", "end", null=True),
    Column("source", "string", ", ".join(get_args(PhaseSource))),
    Column("process", "string", "which process said so", null=True),
    Column("parent", "string", "the phase it is nested in", null=True),
    Column("reason", "string", "why it is null", null=True),
)

TABLES: dict[str, tuple[Column, ...]] = {
    "requests": REQUESTS,
    "chunks": CHUNKS,
    "samples": SAMPLES,
    "events": EVENTS,
    "phases": PHASES,
}
