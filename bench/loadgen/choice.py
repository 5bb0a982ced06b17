"""What one choice of an event carries: answer text, reasoning, a piece of a tool call, or nothing yet."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

# The names that servers give to reasoning beside the answer.
_REASONING = ("reasoning", "reasoning_content", "thinking", "reasoning_details")
# Kinds that are output, the one that names an event first.
OUTPUT = ("content", "reasoning", "tool")
KINDS = (*OUTPUT, "finish", "role", "other")
# Names of ends that are none: vLLM's and SGLang's `abort`, TensorRT-LLM's `cancelled`, `timeout` and `not_finished`,
# the `error` of gateways, DeepSeek's `insufficient_system_resource`.
_BROKEN = re.compile(
    "abort|cancel|error|fail|time_?d?_?out|not_finished|insufficient|preempt|interrupt|overload|evict|disconnect|killed|"
    "shut_?down|malformed",
    re.IGNORECASE,
)


class Fragment(NamedTuple):
    """What a choice carried: its kind, the answer's text, and the length of all output in characters.

    `argument` is true where a piece of a tool call's arguments came.
    """

    kind: str
    text: str = ""
    length: int = 0
    argument: bool = False


def piece(choice: dict[str, Any]) -> Fragment:
    """Read one choice, streamed (`delta`), whole (`message`) or of the completions form (`text`)."""
    delta = choice.get("delta")
    if not isinstance(delta, dict):
        message = choice.get("message")
        delta = message if isinstance(message, dict) else choice
    content = delta.get("text") if delta is choice else delta.get("content")
    if type(content) is str and content:
        return Fragment("content", content, len(content))
    text, thought = _parts(content) if isinstance(content, list | dict) else ("", "")
    if isinstance(refusal := delta.get("refusal"), str):
        text += refusal
    for key in _REASONING:
        if (value := delta.get(key)) and not thought:
            thought = "".join(_parts(value))
    name, arguments = _call(delta)
    length = len(text) + len(thought) + len(name) + len(arguments)
    if text:
        return Fragment("content", text, length, bool(arguments))
    if thought:
        return Fragment("reasoning", "", length, bool(arguments))
    if name or arguments:
        return Fragment("tool", "", length, bool(arguments))
    if reason(choice):
        return Fragment("finish")
    return Fragment("role" if "role" in delta or content == "" else "other")


def reason(choice: dict[str, Any]) -> str | None:
    """Why the answer ended. Empty strings mean that it has not; SGLang's own form is an object with a `type`."""
    given = choice.get("finish_reason")
    if isinstance(given, dict):
        given = given.get("type")
    return given if isinstance(given, str) and given.strip() else None


def broken(reason: str | None) -> bool:
    """Whether a finish reason says that the server did not finish."""
    return reason is not None and _BROKEN.search(reason) is not None


def _parts(content: Any) -> tuple[str, str]:
    """Answer and reasoning in content that is a list of parts, however deep they lie (Mistral, OpenRouter)."""
    text: list[str] = []
    thought: list[str] = []
    waiting: list[tuple[Any, bool]] = [(content, False)]
    while waiting:
        part, thinking = waiting.pop()
        if isinstance(part, str):
            (thought if thinking else text).append(part)
        elif isinstance(part, list):
            waiting += [(one, thinking) for one in reversed(part)]
        elif isinstance(part, dict):
            thinking = thinking or bool(re.search("think|reason", str(part.get("type"))))
            inner = [part[key] for key in ("text", "thinking", "reasoning", "summary", "content") if part.get(key)]
            waiting += [(inner[0], thinking)] if inner else []
    return "".join(text), "".join(thought)


def _call(delta: dict[str, Any]) -> tuple[str, str]:
    """Names and arguments in the tool calls of a delta; arguments come as text in pieces, or whole as an object."""
    calls = delta.get("tool_calls") or delta.get("function_call")
    if not calls:
        return "", ""
    names, arguments = "", ""
    for call in calls if isinstance(calls, list) else [calls]:
        if not isinstance(call, dict):
            continue
        called = call.get("function") if isinstance(call.get("function"), dict) else call
        assert isinstance(called, dict)
        if isinstance(name := called.get("name"), str):
            names += name
        given = called.get("arguments")
        arguments += given if isinstance(given, str) else str(given) if given else ""
    return names, arguments
