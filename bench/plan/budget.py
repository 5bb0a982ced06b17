"""What a plan will cost: minutes and bytes, guessed, or as an earlier run of the same scenario measured it."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from typing import Any

from bench.plan.blocks import Plan
from bench.scenario import shapes, trace
from bench.scenario.model import ScenarioModel, TracePrompts, Workload
from bench.scenario.variant import Variant

# Guesses for a small CPU and a model below a billion parameters, wide of the mark elsewhere: spawn to exit without
# requests, then per prompt token and per output token. A single earlier launch replaces them.
START_S = {
    "transformers": 12.0,
    "vllm": 60.0,
    "fastdeploy": 90.0,
    "llama-cpp": 5.0,
    "ollama": 6.0,
    "command": 20.0,
    "simulated": 0.5,
    "openai": 0.0,
}
OTHER_START_S = 30.0
PROMPT_TOKEN_S = 0.002
OUTPUT_TOKEN_S = {"simulated": 0.005}
OTHER_OUTPUT_TOKEN_S = 0.06
# Requests that a warm-up step is taken to cost.
WARMUP_REQUESTS = 4
TEXT_PROMPT_TOKENS = 64
COOL_DOWN_S = 30.0
QUALITY_S = 90.0

# Older runs say little about today's machine, and reading all of them would take longer than it helps.
NEWEST = 5

# Parquet files' own frame, then per request and per streamed event.
LAUNCH_BYTES, REQUEST_BYTES, EVENT_BYTES = 120_000, 400, 16


@dataclass(frozen=True, slots=True)
class Measured:
    """What earlier launches of a variant took: seconds from spawn to exit, bytes on disk; medians over `launches`."""

    launch_s: float
    size_bytes: float
    launches: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What one launch will take; `measured` counts the earlier launches behind it, 0 for a guess."""

    seconds: float
    size_bytes: float
    measured: int = 0


@dataclass(frozen=True, slots=True)
class Budget:
    """What a plan will take. `blocks` is how many of its blocks fit the scenario's budget, `requests`
    how many a launch sends."""

    costs: Mapping[str, Cost]
    seconds: float
    size_bytes: float
    blocks: int
    requests: int

    @property
    def guessed(self) -> tuple[str, ...]:
        """The variants that no earlier launch vouches for."""
        return tuple(name for name, cost in self.costs.items() if not cost.measured)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a workload sends: requests, mean lengths in tokens, and when the last one is due (None: as answers come)."""

    requests: int
    prompt_tokens: float
    output_tokens: float
    last_s: float | None


def traffic(workload: Workload, base: Path) -> Traffic:
    """What a workload will send, its trace read from `base`; UsageError if that cannot be read."""
    arrivals, source, count = workload.arrivals, workload.prompts, workload.requests
    asked, given, last = _prompt_tokens(workload), float(workload.output_tokens), None
    if isinstance(source, TracePrompts):
        rows = trace.read(base / source.file, min(count, source.limit or count))
        count = len(rows)
        asked, given = fmean(row.prompt_tokens for row in rows), fmean(row.output_tokens for row in rows)
        last = rows[-1].at_s / arrivals.replay.speed if arrivals.replay else None
    if arrivals.closed is None and arrivals.replay is None:
        last = shapes.last_s(arrivals, count)
    return Traffic(count, asked, given, last)


def expect(
    plan: Plan, scenario: ScenarioModel, measured: Mapping[str, Measured] | None = None, base: Path = Path()
) -> Budget:
    """Minutes and bytes of a plan; `measured` has what earlier launches of the same scenario took, by variant, and
    `base` is the scenario's folder."""
    known = measured or {}
    sent = traffic(scenario.workload, base)
    costs = {variant.id: _cost(variant, scenario, sent, known.get(variant.id)) for variant in plan.variants}
    pause = COOL_DOWN_S if scenario.design.cool_down else 0.0
    block_s = sum(cost.seconds + pause for cost in costs.values())
    planned = 1 + max((launch.block for launch in plan.launches), default=-1)
    blocks = min(planned, affordable(block_s, scenario.design.budget_minutes))
    return Budget(
        costs, blocks * block_s, blocks * sum(cost.size_bytes for cost in costs.values()), blocks, sent.requests
    )


def affordable(block_s: float, budget_minutes: float | None) -> int:
    """How many blocks fit a budget; at least one, since a run without a block says nothing."""
    if budget_minutes is None or block_s <= 0:
        return 1_000_000
    return max(1, int(budget_minutes * 60 / block_s))


def measured(results: Path, scenario: str, digest: str) -> dict[str, Measured]:
    """Medians by variant over the newest runs of the same scenario, content and all; damaged files are passed over."""
    taken: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for manifest in sorted((results / scenario).glob("*/manifest.json"), reverse=True)[:NEWEST]:
        if _read(manifest).get("scenario_digest") != digest:
            continue
        for file in manifest.parent.glob("launches/*/launch.json"):
            launch = _read(file)
            stamps = launch.get("stamps") or {}
            begin, end = stamps.get("spawn"), stamps.get("exit")
            if launch.get("status") in ("ok", "invalid") and begin is not None and end is not None:
                size = sum(one.stat().st_size for one in file.parent.rglob("*") if one.is_file())
                taken[str(launch.get("variant"))].append(((end - begin) / 1e9, size))
    return {
        variant: Measured(median(seconds for seconds, _ in seen), median(size for _, size in seen), len(seen))
        for variant, seen in taken.items()
    }


@dataclass(frozen=True, slots=True)
class TimeLimit:
    """Minutes that the blocks of a run may take, and what they are called in a sentence."""

    minutes: float
    name: str


def another_fits(block_seconds: Iterable[float], budget_minutes: float | None) -> bool:
    """Whether one more block, taking as long as the longest so far, ends within the budget."""
    done = list(block_seconds)
    return budget_minutes is None or not done or sum(done) + max(done) <= budget_minutes * 60


def _cost(variant: Variant, scenario: ScenarioModel, sent: Traffic, measured: Measured | None) -> Cost:
    if measured is not None:
        return Cost(measured.launch_s, measured.size_bytes, measured.launches)
    kind = variant.engine.engine
    request_s = sent.prompt_tokens * (0 if kind == "simulated" else PROMPT_TOKEN_S)
    request_s += sent.output_tokens * OUTPUT_TOKEN_S.get(kind, OTHER_OUTPUT_TOKEN_S)
    warm = sum(WARMUP_REQUESTS for step in variant.warmup if step.strategy != "none")
    seconds = START_S.get(kind, OTHER_START_S) + warm * request_s + _sending_s(scenario.workload, sent, request_s)
    if scenario.quality is not None:
        seconds += QUALITY_S
    size = LAUNCH_BYTES + sent.requests * (REQUEST_BYTES + EVENT_BYTES * sent.output_tokens)
    return Cost(seconds, size)


def _sending_s(workload: Workload, sent: Traffic, request_s: float) -> float:
    """How long the workload's requests take: streams work side by side, an open process keeps its own time, unless
    its cap lets fewer through."""
    arrivals = workload.arrivals
    side_by_side = arrivals.closed or arrivals.max_in_flight
    served = sent.requests * request_s / side_by_side if side_by_side else 0.0
    return served if sent.last_s is None else max(served, sent.last_s + request_s)


def _prompt_tokens(workload: Workload) -> float:
    tokens = getattr(workload.prompts, "tokens", TEXT_PROMPT_TOKENS)
    return sum(tokens) / len(tokens) if isinstance(tokens, list) and tokens else float(tokens or 0)


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
