"""What a plan will cost: minutes and bytes, guessed, or as an earlier run of the same scenario measured it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bench.plan.launches import Plan
from bench.scenario.model import ScenarioModel, Workload
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
    """What a plan will take. `blocks` is how many of its blocks fit the scenario's budget."""

    costs: Mapping[str, Cost]
    seconds: float
    size_bytes: float
    blocks: int

    @property
    def guessed(self) -> tuple[str, ...]:
        """The variants that no earlier launch vouches for."""
        return tuple(name for name, cost in self.costs.items() if not cost.measured)


def expect(plan: Plan, scenario: ScenarioModel, measured: Mapping[str, Measured] | None = None) -> Budget:
    """Minutes and bytes of a plan; `measured` has what earlier launches of the same scenario took, by variant."""
    known = measured or {}
    costs = {variant.id: _cost(variant, scenario, known.get(variant.id)) for variant in plan.variants}
    pause = COOL_DOWN_S if scenario.design.cool_down else 0.0
    block_s = sum(cost.seconds + pause for cost in costs.values())
    planned = 1 + max((launch.block for launch in plan.launches), default=-1)
    blocks = min(planned, affordable(block_s, scenario.design.budget_minutes))
    return Budget(costs, blocks * block_s, blocks * sum(cost.size_bytes for cost in costs.values()), blocks)


def affordable(block_s: float, budget_minutes: float | None) -> int:
    """How many blocks fit a budget; at least one, since a run without a block says nothing."""
    if budget_minutes is None or block_s <= 0:
        return 1_000_000
    return max(1, int(budget_minutes * 60 / block_s))


def another_fits(block_seconds: Iterable[float], budget_minutes: float | None) -> bool:
    """Whether one more block, taking as long as the longest so far, ends within the budget."""
    done = list(block_seconds)
    return budget_minutes is None or not done or sum(done) + max(done) <= budget_minutes * 60


def _cost(variant: Variant, scenario: ScenarioModel, measured: Measured | None) -> Cost:
    if measured is not None:
        return Cost(measured.launch_s, measured.size_bytes, measured.launches)
    workload, kind = scenario.workload, variant.engine.engine
    request_s = _prompt_tokens(workload) * (0 if kind == "simulated" else PROMPT_TOKEN_S)
    request_s += workload.output_tokens * OUTPUT_TOKEN_S.get(kind, OTHER_OUTPUT_TOKEN_S)
    warm = sum(WARMUP_REQUESTS for step in variant.warmup if step.strategy != "none")
    seconds = START_S.get(kind, OTHER_START_S) + warm * request_s + _sending_s(workload, request_s)
    if scenario.quality is not None:
        seconds += QUALITY_S
    size = LAUNCH_BYTES + workload.requests * (REQUEST_BYTES + EVENT_BYTES * workload.output_tokens)
    return Cost(seconds, size)


def _sending_s(workload: Workload, request_s: float) -> float:
    """How long the workload's requests take: streams work side by side, an open process keeps its own time."""
    arrivals = workload.arrivals
    if arrivals.closed is not None:
        return workload.requests * request_s / arrivals.closed
    rate = arrivals.rate or arrivals.poisson or 1.0
    return workload.requests / rate + request_s


def _prompt_tokens(workload: Workload) -> float:
    tokens = getattr(workload.prompts, "tokens", TEXT_PROMPT_TOKENS)
    return sum(tokens) / len(tokens) if isinstance(tokens, list) and tokens else float(tokens or 0)
