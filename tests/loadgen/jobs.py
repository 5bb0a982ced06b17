"""Jobs for the simulated server."""

from typing import Any

from bench.loadgen.job import Job, Request
from bench.scenario.model import Arrivals


def job(port: int, count: int = 1, *, chat: bool = False, tokens: int = 4, simulate: Any = None, **fields: Any) -> Job:
    body: dict[str, Any] = {"max_tokens": tokens, "stream": True, "stream_options": {"include_usage": True}}
    body |= {"messages": [{"role": "user", "content": "why did it stop"}]} if chat else {"prompt": [5, 6, 7]}
    body |= {"simulate": simulate} if simulate else {}
    path = "/v1/chat/completions" if chat else "/v1/completions"
    asked = tuple(
        Request(number, f"p{number}", "measured", path, body, output_tokens=tokens) for number in range(count)
    )
    given: dict[str, Any] = {"arrivals": Arrivals(closed=1), "timeout_s": 5.0} | fields
    return Job("127.0.0.1", port, asked, **given)
