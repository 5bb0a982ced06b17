"""What would be refused once a scenario is run, told before anything starts; `bench check` and `bench run` ask here.

A scenario that is right by itself may still ask for what is not there: a flag that its engine does not know, an
environment, a prompt that no model of that length takes. Nothing is fetched, installed or imported from an engine.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from bench import plugins
from bench.environments.recipe import names
from bench.errors import BenchError, Problem, ScenarioError
from bench.loadgen import prompts
from bench.models.cache import Cache, source_key
from bench.models.make import dense_key, shape
from bench.phrases import among
from bench.probes.snapshots import criu
from bench.scenario import document
from bench.scenario.combinations import needs_model, unlike
from bench.scenario.load import Scenario
from bench.scenario.model import ConversationPrompts, Model, Overlay, RandomPrompts, TextPrompts
from bench.scenario.redaction import secret
from bench.scenario.sources import REMOTE, parse
from bench.scenario.turns import levels
from bench.scenario.variant import Variant
from bench.warmup.predecessor import predecessor
from bench.warmup.strategies import build

# What configurations call the longest sequence that a model takes.
LENGTHS = ("max_position_embeddings", "max_sequence_length", "n_positions", "seq_length")


def require(scenario: Scenario) -> None:
    """ScenarioError with every place at which the scenario asks for what is not there."""
    if found := refusals(scenario):
        raise ScenarioError(found)


def refusals(scenario: Scenario) -> list[Problem]:
    """Every such place, in the order of the file."""
    read = document.read(scenario.text, str(scenario.path))
    _environments(read, scenario)
    _flags(read, scenario)
    _secrets(read, ())
    _hand_overs(read, scenario)
    _restores(read, scenario)
    _prompts(read, scenario)
    _lengths(read, scenario)
    return sorted(read.problems, key=lambda problem: (problem.line, problem.column))


def _environments(read: document.Document, scenario: Scenario) -> None:
    for name, engine in scenario.model.engines.items():
        if engine.environment is not None and engine.environment not in names():
            known = among(names(), engine.environment)
            read.problem(("engines", name, "environment"), f"{engine.environment!r} is not an environment: {known}")


def _flags(read: document.Document, scenario: Scenario) -> None:
    """Flags as variants have them, so that one of the matrix is looked at for the engines that get it."""
    told: set[tuple[document.Path, str]] = set()
    ahead = [one for variant in scenario.variants if (one := predecessor(variant)) is not None]
    for variant in [*scenario.variants, *ahead]:
        ask = getattr(plugins.load("engines", variant.engine.engine), "mistakes", None)
        known = variant.engine.environment is None or variant.engine.environment in names()
        if ask is None or not known:
            continue
        for flag, message in ask(plugins.load("engines", variant.engine.engine)(), variant.engine):
            at = _step(read, variant) if variant in ahead else _place(read, variant, flag)
            if (at, message) not in told:
                told.add((at, message))
                read.problem(at, message, at_key=True)
    for lever, given in (scenario.model.tune.levers if scenario.model.tune else {}).items():
        for number, (name, part) in enumerate(levels(lever, given)):
            at = ("tune", "levers", lever)
            _lever(read, scenario, at if isinstance(given, list) else (*at, str(name)), part, number)


def _secrets(read: document.Document, path: document.Path) -> None:
    """Secrets among what stands on an engine's command line, which everybody here can read and every record holds."""
    for at, value in read.entries(*path):
        name = str(at[-1])
        flag = path[-1:] == ("args",) or name.startswith("args.")
        word = path[-1:] == ("command",) and str(value).startswith("-")
        told = str(value).partition("=")[0] if word else name
        if (flag or word) and secret(told) and _holds_text(value):
            read.problem(
                at,
                f"{told} is a secret by its name, and would stand on the command line and in every record: give it "
                "under `env:`, where values of secrets are withheld",
                at_key=not word,
            )
        else:
            _secrets(read, at)


def _holds_text(value: object) -> bool:
    if isinstance(value, dict | list):
        return any(map(_holds_text, value.values() if isinstance(value, dict) else value))
    return isinstance(value, str)


def _hand_overs(read: document.Document, scenario: Scenario) -> None:
    """An engine that answers first, and cannot."""
    for variant in scenario.variants:
        ahead = predecessor(variant)
        if ahead is None:
            continue
        at = _step(read, variant)
        kind = variant.engine.engine
        why = unlike(kind, "forked" if variant.engine.base_url is not None else ahead.start)
        if why is None and ahead.start != "exec" and variant.engine.image is not None:
            why = "a container's process is no child of one outside it"
        if why is not None:
            read.problem(at, f"{variant.id} cannot be handed over from a first engine by {ahead.start}: {why}")
        try:
            build(ahead.warmup)
        except BenchError as error:
            read.problem(at, f"the warm-up of the engine that answers first: {error.message}")


def _restores(read: document.Document, scenario: Scenario) -> None:
    """Variants that are to be restored from an image, where no image can be."""
    named = [variant.id for variant in scenario.variants if variant.start == "restored"]
    levers = scenario.model.tune.levers if scenario.model.tune else {}
    if not named and "restored" not in str(levers.get("start", "")):
        return
    able = criu()
    if not able.there:
        at: document.Path = ("matrix", "start") if named else ("tune", "levers", "start")
        read.problem(at, f"nothing can be restored here: {able.words}; {able.fix}", at_key=True)


def _step(read: document.Document, variant: Variant) -> document.Path:
    """Where a variant's warm-up stands."""
    at = ("warmups", variant.warmup_name)
    return at if at in read.keys else ("matrix", "warmup")


def _lever(read: document.Document, scenario: Scenario, path: document.Path, part: Overlay, number: int) -> None:
    """A level that no engine of the scenario takes; of a list the first alone, whose flag stands at the lever."""
    if number and len(path) == len(("tune", "levers", "lever")):
        return
    said: list[str] = []
    for engine in scenario.model.engines.values():
        kind = plugins.load("engines", engine.engine)
        ask = getattr(kind, "mistakes", None)
        alone = engine.model_copy(update={"args": dict(part.args)})
        wrong = [message for _, message in ask(kind(), alone)] if ask else []
        why = unlike(engine.engine, part.start or "exec")
        wrong += [why] if why else []
        if not wrong:
            return
        said += wrong
    read.problem(path, said[0], at_key=True)


def _place(read: document.Document, variant: Variant, flag: str) -> document.Path:
    """Where a variant's flag stands: in its engine, or else in the matrix."""
    at: Sequence[document.Path] = (
        ("engines", variant.engine_name, "args", flag),
        ("matrix", f"args.{flag}"),
        *((*path, f"args.{flag}") for path, _ in read.entries("matrix", "include")),
    )
    return next((path for path in at if path in read.keys), ("engines", variant.engine_name))


def _prompts(read: document.Document, scenario: Scenario) -> None:
    source = scenario.model.workload.prompts
    if isinstance(source, TextPrompts | ConversationPrompts):
        try:
            prompts.check_file(source, scenario.path.parent)
        except BenchError as error:
            read.problem(("workload", "prompts", "file"), error.message)


def _lengths(read: document.Document, scenario: Scenario) -> None:
    """Random prompts that a model, as far as its length is known here, cannot hold together with their answers."""
    workload = scenario.model.workload
    if not isinstance(workload.prompts, RandomPrompts):
        return
    lengths = workload.prompts.tokens if isinstance(workload.prompts.tokens, list) else [workload.prompts.tokens]
    wanted = max(lengths) + workload.output_tokens
    serving = [variant for variant in scenario.variants if needs_model(variant.engine)]
    for name, model in {variant.model_name: variant.model for variant in serving}.items():
        limit = longest(model)
        if limit is not None and wanted > limit:
            read.problem(
                ("workload", "prompts", "tokens"),
                f"{name} takes {limit} tokens, and a prompt of {max(lengths)} with {workload.output_tokens} output "
                f"tokens makes {wanted}",
            )


def longest(model: Model) -> int | None:
    """The longest sequence that a model takes, tokens; None where it is not on this machine or does not say."""
    if model.source == REMOTE:
        return None
    try:
        reference = parse(model.source, revision=model.revision, sha256=model.sha256)
    except BenchError:
        return None
    if reference.kind == "dummy":
        return _length(shape(reference.name))
    if reference.kind == "path":
        folder: Path | None = reference.local
    else:
        cache = Cache()
        entry = cache.entry(source_key(reference))
        # A GGUF file says it in a form of its own; what it was unpacked to says it as all others do.
        unpacked = cache.entry(dense_key(entry.digest)) if entry else None
        folder = unpacked.folder if unpacked else entry.folder if entry else None
    try:
        return _length(json.loads((folder / "config.json").read_text(encoding="utf-8"))) if folder else None
    except (OSError, ValueError):
        return None


def _length(configuration: object) -> int | None:
    if not isinstance(configuration, dict):
        return None
    places = (configuration, configuration.get("text_config"))
    found = (place.get(name) for place in places if isinstance(place, dict) for name in LENGTHS)
    return next((value for value in found if isinstance(value, int) and value > 0), None)
