"""Parts of a scenario that are right by themselves and cannot go together."""

from __future__ import annotations

import re

from bench.phrases import among, counted, listed
from bench.scenario import matrix
from bench.scenario.document import Document, Path
from bench.scenario.model import EngineSetting, ScenarioModel, SharedPrefix, Workload
from bench.scenario.variant import Variant, agrees, counterparts

# What is filled in in a command line, and in its environment.
PLACES = ("port", "host", "model", "python", "folder", "served_name")
# Engines that may serve a model of their own, which the scenario then need not name.
SELF_SUPPLIED = ("openai", "command", "simulated")

# Engines that are no program of their own.
INTERPRETED = ("transformers", "vllm", "fastdeploy", "sglang", "command", "simulated")
# Engines that are not started in a container, and what to do instead.
UNCONTAINED = {
    "transformers": "it runs in an interpreter; name it with `python`",
    "simulated": "it runs in the harness's own interpreter",
    "command": "its words may themselves be `podman run --name …`",
}
# What engines call the length of a context, prompt and answer; llama.cpp's is shared by its slots.
CONTEXTS = ("max_model_len", "ctx_size", "num_ctx", "context_length")


def check_combinations(document: Document, scenario: ScenarioModel) -> None:
    """Note what excludes what. Cells and selectors are looked at only where the matrix itself is in order."""
    sound = not any(re.split(r"[.\[]", problem.path)[0] in _CELLS for problem in document.problems)
    _models(document, scenario)
    for name, engine in scenario.engines.items():
        _engine(document, ("engines", name), engine)
    _workload(document, scenario)
    _design(document, scenario)
    if sound:
        _cells(document, scenario)


# Mistakes in these parts would make every cell and selector look wrong.
_CELLS = ("engines", "models", "model", "matrix", "warmups", "design", "")


def _models(document: Document, scenario: ScenarioModel) -> None:
    if scenario.model is not None and scenario.models:
        document.problem(("models",), "`model` and `models` exclude each other; keep one", at_key=True)
    elif scenario.model is None and not scenario.models and document.get(("model",)) is None:
        needing = [name for name, engine in scenario.engines.items() if needs_model(engine)]
        if needing:
            document.problem(("model",), f"is missing; {listed(needing)} cannot start without one")


def needs_model(engine: EngineSetting) -> bool:
    """Whether an engine serves the model that the scenario names."""
    return engine.engine not in SELF_SUPPLIED or any("{model}" in word for word in engine.command or ())


def _engine(document: Document, path: Path, engine: EngineSetting) -> None:
    if engine.engine == "openai":
        if engine.base_url is None:
            document.problem((*path, "base_url"), "is missing; `engine: openai` needs the address of a running server")
        for key in ("python", "environment", "image", "path", "command"):
            if getattr(engine, key) is not None:
                document.problem(
                    (*path, key), "has no use here: a running server is attached to, never started", at_key=True
                )
    elif engine.base_url is not None:
        document.problem(
            (*path, "base_url"), f"is for `engine: openai` only; {engine.engine} is started here", at_key=True
        )
    if engine.base_url is not None and not engine.base_url.startswith(("http://", "https://")):
        document.problem((*path, "base_url"), f"{engine.base_url!r} does not begin with http:// or https://")
    if engine.engine == "command":
        if not engine.command:
            document.problem(
                (*path, "command"), "is missing; `engine: command` needs the server's command line as a list"
            )
        else:
            _command(document, path, engine)
    elif engine.command is not None:
        document.problem(
            (*path, "command"), f"is for `engine: command` only; {engine.engine} knows its own", at_key=True
        )
    if engine.path is not None and engine.engine in INTERPRETED:
        message = f"has no use here: {engine.engine} runs in an interpreter; name it with `python`"
        document.problem((*path, "path"), message, at_key=True)
    if engine.image is not None and (why := UNCONTAINED.get(engine.engine)):
        document.problem((*path, "image"), f"has no use here: {engine.engine} takes no image; {why}", at_key=True)
    where = [key for key in ("python", "environment", "image") if getattr(engine, key) is not None]
    # Together with `image` it is the program's path inside.
    where += ["path"] if engine.path is not None and engine.environment is not None else []
    if len(where) > 1:
        document.problem((*path, where[1]), f"{listed(where)} exclude each other; keep one", at_key=True)


def _command(document: Document, path: Path, engine: EngineSetting) -> None:
    """A command line for any port, with no place in it that nothing fills."""
    words = [((*path, "command", index), word) for index, word in enumerate(engine.command or ())]
    words += [((*path, "env", name), value) for name, value in engine.env.items()]
    if not any("{port}" in word for _, word in words):
        document.problem((*path, "command"), "does not say {port}; the harness chooses a free one for each launch")
    for at, word in words:
        for place in re.findall(r"\{([a-z_]+)\}", word):
            if place not in PLACES:
                known = among([f"{{{name}}}" for name in PLACES], f"{{{place}}}")
                document.problem(at, f"{{{place}}} is not {known}")


def _workload(document: Document, scenario: ScenarioModel) -> None:
    workload = scenario.workload
    arrivals, prompts = workload.arrivals, workload.prompts
    if arrivals.closed is not None and arrivals.closed > workload.requests:
        message = (
            f"{arrivals.closed} streams have only {counted(workload.requests, 'request')} to send; raise `requests`"
        )
        document.problem(("workload", "arrivals", "closed"), message)
    if arrivals.closed is not None and arrivals.max_in_flight is not None:
        message = "is for open loads; `closed` streams never have more than one request each"
        document.problem(("workload", "arrivals", "max_in_flight"), message, at_key=True)
    if arrivals.replay is not None and prompts.kind != "trace":
        message = "replays the times of a trace; write `prompts: {kind: trace, file: …}`"
        document.problem(("workload", "arrivals", "replay"), message, at_key=True)
    if prompts.kind == "trace" and "requests" not in workload.model_fields_set:
        message = "is missing; a trace may be long: say how many of its requests to send"
        document.problem(("workload", "prompts", "limit"), message)
    if prompts.kind == "trace" and "output_tokens" in workload.model_fields_set:
        message = "the trace says how long each answer is; leave it out"
        document.problem(("workload", "output_tokens"), message, at_key=True)
    if prompts.kind != "random":
        return
    lengths = prompts.tokens if isinstance(prompts.tokens, list) else [prompts.tokens]
    if prompts.shared_prefix is not None:
        _shared(document, prompts.shared_prefix, min(lengths), workload)
    if len(lengths) > workload.requests:
        message = (
            f"{len(lengths)} lengths, but only {counted(workload.requests, 'request')} per launch; some are never asked"
        )
        document.problem(("workload", "prompts", "tokens"), message)
    needs = max(lengths, default=0) + workload.output_tokens
    for name, engine in scenario.engines.items():
        for flag in CONTEXTS:
            limit = engine.args.get(flag)
            slots = engine.args.get("parallel", 1) if flag == "ctx_size" and not engine.args.get("kv_unified") else 1
            if isinstance(limit, int) and isinstance(slots, int) and 0 < limit < needs * slots:
                shared = f", shared by {slots} slots," if slots > 1 else ""
                message = (
                    f"{limit}{shared} cannot hold a prompt of {max(lengths)} tokens and {workload.output_tokens} "
                    f"output tokens ({needs} in all)"
                )
                document.problem(("engines", name, "args", flag), message)


def _shared(document: Document, shared: SharedPrefix, shortest: int, workload: Workload) -> None:
    path = ("workload", "prompts", "shared_prefix")
    if shared.tokens >= shortest:
        message = f"{shared.tokens} leave nothing of a prompt of {shortest} tokens that is its own; make it shorter"
        document.problem((*path, "tokens"), message)
    if shared.groups > workload.requests:
        requests = counted(workload.requests, "request")
        message = f"{shared.groups} beginnings, but only {requests} per launch; none is ever shared"
        document.problem((*path, "groups"), message)
    if not workload.unique:
        message = "shares whole prompts already; `shared_prefix` needs `unique: true`"
        document.problem(("workload", "unique"), message, at_key=True)


def _design(document: Document, scenario: ScenarioModel) -> None:
    design = scenario.design
    if design.sequential and design.precision is not None:
        message = "two rules to stop by: `sequential` is for a verdict, `precision` for an estimate; keep one"
        document.problem(("design", "precision"), message, at_key=True)
    if design.sequential and scenario.gate is None:
        document.problem(("design", "sequential"), "looks for a verdict, and there is no `gate`", at_key=True)


def _cells(document: Document, scenario: ScenarioModel) -> None:
    size = matrix.size(scenario)
    if size > matrix.MAX_CELLS:
        document.problem(("matrix",), f"{size} cells are more than {matrix.MAX_CELLS}; take levels out", at_key=True)
        return
    found = len(document.problems)
    product = matrix.product(scenario)
    for index, row in enumerate(scenario.matrix.exclude):
        if not any(agrees(cell, row) for cell in product):
            document.problem(("matrix", "exclude", index), "matches no cell of the matrix; take it out")
    known = [cell for cell in product if not any(agrees(cell, row) for row in scenario.matrix.exclude)]
    for index, row in enumerate(scenario.matrix.include):
        cell = matrix.included(scenario, row)
        if cell in known:
            document.problem(("matrix", "include", index), "adds nothing: this cell is there already; take it out")
        known.append(cell)
    if not known:
        document.problem(("matrix", "exclude"), "leaves no variant to measure", at_key=True)
    elif len(document.problems) == found:
        variants = matrix.variants(scenario)
        _forks(document, variants)
        _references(document, scenario, variants)


# Engines whose process is not one that a fork could become.
UNFORKED = {
    "openai": "a running server is attached to, and never started",
    "command": "a command line may be any program; only an engine that says what it imports has a warm parent",
}

# Engines that cannot be written to disk.
UNRESTORED = {
    "openai": UNFORKED["openai"],
    "simulated": "its script is drawn anew for each launch, and an image would repeat one draw",
}


def unlike(engine: str, start: str) -> str | None:
    """Why an engine cannot be started in a mode, whatever the machine; None where it may."""
    return {"forked": UNFORKED, "restored": UNRESTORED}.get(start, {}).get(engine)


def _forks(document: Document, variants: tuple[Variant, ...]) -> None:
    """Forked and restored cells that can never be; a version that cannot be is met at its launch."""
    for variant in variants:
        if variant.start == "exec":
            continue
        start, why = variant.start, unlike(variant.engine.engine, variant.start)
        if variant.engine.image is not None:
            why = "a container's process is no child of one outside it"
        if why is not None:
            cell = f"{{engine: {variant.engine_name}, start: {start}}}"
            message = f"{variant.id} cannot be {start}: {why}; exclude {cell}"
            document.problem(("matrix",), message, at_key=True)


def _references(document: Document, scenario: ScenarioModel, variants: tuple[Variant, ...]) -> None:
    if scenario.gate is not None:
        selector = scenario.gate.baseline.model_extra or {}
        matching = [variant.id for variant in variants if variant.matches(selector)]
        if not matching:
            document.problem(("gate", "baseline"), _none(variants))
        elif len(matching) > 1:
            message = f"names {len(matching)} variants, {_few(matching)}; name more factors, so that one is left"
            document.problem(("gate", "baseline"), message)
    if scenario.quality is not None:
        selector = scenario.quality.against.model_extra or {}
        if not any(variant.matches(selector) for variant in variants):
            document.problem(("quality", "against"), _none(variants))
            return
        for variant in variants:
            tied = counterparts(variants, selector, variant)
            if len(tied) > 1 and len({_answers(one) for one in tied}) > 1:
                fitting = _few([one.id for one in tied])
                message = f"for {variant.id} several references fit equally well, {fitting}; name more factors"
                document.problem(("quality", "against"), message)
                return


def _answers(variant: Variant) -> tuple[tuple[str, str], ...]:
    """What a variant's answers depend on: neither the warm-up nor the page cache nor the start changes them."""
    return tuple(item for item in variant.factors.items() if item[0] not in ("warmup", "page_cache", "start"))


def _none(variants: tuple[Variant, ...]) -> str:
    return f"names none of the variants: {_few([variant.id for variant in variants])}"


def _few(names: list[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")
