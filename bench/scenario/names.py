"""Every name in a scenario answers to something: engines, models, warm-ups, factors, levels, metrics.

Read from the document and not from the model, so that a broken part elsewhere hides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any

from pydantic import BaseModel

from bench import plugins
from bench.data import FOUNDING as FOUNDING_FOLDER
from bench.errors import UsageError
from bench.phrases import among, shown
from bench.scenario import trace
from bench.scenario.document import Document, Path
from bench.scenario.measures import NEED_SLO, NEEDS, PER_REQUEST, margin
from bench.scenario.model import FACTORS, PAGE_CACHE, QUANTIZATIONS, STARTS
from bench.scenario.sources import mistake
from bench.scenario.turns import check_turns
from bench.scenario.validate import describe, errors_of
from bench.scenario.variant import level_text

# Prompt files that ship, under the load generator that sends them.
FOUNDING = "founding:"


def check_names(document: Document, base: FilePath) -> None:
    """Note every name that nothing answers to."""
    engines = document.get(("engines",))
    for path, engine in document.entries("engines"):
        name = engine.get("engine") if isinstance(engine, dict) else None
        if isinstance(name, str) and name not in plugins.names("engines"):
            document.problem((*path, "engine"), f"{name!r} is not {among(plugins.names('engines'), name)}")
    warmups = _warmup_names(document)
    allowed: dict[str, Sequence[str] | None] = {
        "engine": list(engines) if isinstance(engines, dict) else None,
        "model": _model_names(document),
        "quantization": QUANTIZATIONS,
        "warmup": warmups,
        "page_cache": PAGE_CACHE,
        "start": STARTS,
    }
    _sources(document)
    _levels(document, allowed)
    _selectors(document, allowed)
    _warmups(document)
    _metrics(document)
    check_turns(document, warmups)
    _files(document, base)


def _model_names(document: Document) -> Sequence[str] | None:
    models = document.get(("models",))
    return list(models) if isinstance(models, dict) and models else None


def _warmup_names(document: Document) -> list[str]:
    own = document.get(("warmups",))
    return [*(own if isinstance(own, dict) else ()), *plugins.names("warmups")]


def _sources(document: Document) -> None:
    found = [(("model",), document.get(("model",))), *document.entries("models")]
    for path, model in found:
        if not isinstance(model, dict):
            continue
        source, revision = model.get("source"), model.get("revision")
        for at, one in [((*path, "source"), source), *document.entries(*path, "checkpoints")]:
            if isinstance(one, str) and (wrong := mistake(one)):
                document.problem(at, wrong)
        if not (isinstance(source, str) and isinstance(revision, str)) or mistake(source):
            continue
        if wrong := mistake(source, revision):
            document.problem((*path, "revision"), wrong)


def _levels(document: Document, allowed: Mapping[str, Sequence[str] | None]) -> None:
    for path, levels in document.entries("matrix"):
        factor = str(path[-1])
        if factor in ("exclude", "include"):
            continue
        if factor not in FACTORS and not _is_flag(factor):
            known = [*FACTORS, "exclude", "include"]
            document.problem(path, f"unknown factor; {among(known, factor)}, or args.<flag>", at_key=True)
            continue
        if _is_flag(factor) and (not isinstance(levels, list) or not levels):
            document.problem(path, f"{shown(levels)} is not a list of levels; write [first, second]")
        seen: dict[str, Path] = {}
        for at, level in document.entries(*path):
            if isinstance(level, (dict, list)) or level is None:
                if _is_flag(factor):
                    document.problem(at, f"{shown(level)} is not a level; text, a number, true or false")
                continue
            if level_text(level) in seen:
                document.problem(at, f"{shown(level)} is listed twice; keep one of them")
            seen[level_text(level)] = at
            # Wrong quantizations and page cache states are the model's to tell.
            if factor in ("engine", "model", "warmup"):
                _level(document, at, factor, level, allowed)


def _level(
    document: Document, path: Path, factor: str, level: Any, allowed: Mapping[str, Sequence[str] | None]
) -> None:
    known = allowed.get(factor)
    if known is not None and isinstance(level, str) and level not in known:
        document.problem(path, f"{level!r} is not {among(known, level)}")
    elif factor == "model" and known is None and document.get(("models",)) is None:
        document.problem(path, "there is no `models` to choose from; a single `model` is no factor")


def _selectors(document: Document, allowed: Mapping[str, Sequence[str] | None]) -> None:
    """`exclude` and the selectors of gate and quality name levels of the matrix; `include` may bring new ones."""
    flags = [str(path[-1]) for path, _ in document.entries("matrix") if _is_flag(str(path[-1]))]
    flags += [
        name
        for path, row in document.entries("matrix", "include")
        for name in (row if isinstance(row, dict) else ())
        if _is_flag(name)
    ]
    rows = [path for section in ("exclude", "include") for path, _ in document.entries("matrix", section)]
    for row in [*rows, ("gate", "baseline"), ("quality", "against")]:
        including = row[:2] == ("matrix", "include")
        for path, level in document.entries(*row):
            factor = str(path[-1])
            if factor in FACTORS:
                _level(document, path, factor, level, allowed)
                # Those that the model itself checks in `matrix` and cannot in a selector.
                if factor in ("quantization", "page_cache", "start"):
                    names = allowed[factor] or ()
                    if level not in names:
                        document.problem(path, f"{shown(level)} is not {among(names, level)}")
            elif not (_is_flag(factor) and (including or factor in flags)):
                known = [*FACTORS, *dict.fromkeys(flags)]
                document.problem(path, f"unknown factor; {among(known, factor)}", at_key=True)


def _is_flag(name: str) -> bool:
    return name.startswith("args.") and len(name) > len("args.")


def _warmups(document: Document) -> None:
    for path, definition in document.entries("warmups"):
        items = list(document.entries(*path)) if isinstance(definition, list) else [(path, definition)]
        if not items:
            document.problem(path, "is empty; name a strategy, or a list of them")
        for at, item in items:
            _warmup_step(document, at, item)


def _warmup_step(document: Document, path: Path, item: Any) -> None:
    known = plugins.names("warmups")
    name = item.get("strategy") if isinstance(item, dict) else item
    if isinstance(item, dict) and "strategy" not in item:
        document.problem(path, f"strategy is missing: {among(known, '')}")
    elif not isinstance(name, str):
        document.problem(path, f"{shown(name)} is not a strategy; write a name, or {{strategy: name, option: value}}")
    elif name not in known:
        document.problem(
            (*path, "strategy") if isinstance(item, dict) else path, f"{name!r} is not {among(known, name)}"
        )
    else:
        _options(document, path, name, item if isinstance(item, dict) else {})


def _options(document: Document, path: Path, strategy: str, item: Mapping[str, Any]) -> None:
    """A strategy that declares its options as a model has them checked before anything starts."""
    options = getattr(plugins.load("warmups", strategy), "Options", None)
    if not (isinstance(options, type) and issubclass(options, BaseModel)):
        return
    given = {name: value for name, value in item.items() if name != "strategy"}
    describe(document, options, given, errors_of(options, given), path)


def _metrics(document: Document) -> None:
    measured = document.get(("measure",))
    for path, text in document.entries("gate", "metrics"):
        name = str(path[-1])
        if name not in NEEDS:
            document.problem(path, f"no metric is called that; {_near_metrics(name)}", at_key=True)
        elif isinstance(measured, list) and NEEDS[name] not in measured:
            document.problem(path, f"is not measured; add {NEEDS[name]} to `measure`", at_key=True)
        if name in NEED_SLO and not document.get(("workload", "slo")):
            document.problem(path, "needs limits; write `slo` under `workload`", at_key=True)
        if text is not None and not isinstance(text, (dict, list, bool)):
            try:
                margin(document.written.get(path, str(text)))
            except ValueError as error:
                document.problem(path, str(error))

    objective = document.get(("tune", "objective"))
    if isinstance(objective, str) and objective not in NEEDS:
        document.problem(("tune", "objective"), f"no metric is called {objective!r}; {_near_metrics(objective)}")
    elif isinstance(objective, str) and isinstance(measured, list) and NEEDS[objective] not in measured:
        document.problem(("tune", "objective"), f"is not measured; add {NEEDS[objective]} to `measure`")


def _near_metrics(name: str) -> str:
    """All of them would fill a page: the statistics of a known family, or else the families."""
    family = name.split(".")[0]
    own = [metric for metric in NEEDS if metric.startswith(f"{family}.")]
    if own:
        return among(own, name)
    families = [metric for metric in NEEDS if metric not in PER_REQUEST and metric.split(".")[0] not in PER_REQUEST]
    return among([*(f"{family}.p50" for family in PER_REQUEST), *families], name)


def _files(document: Document, base: FilePath) -> None:
    prompts, corpus = ("workload", "prompts", "file"), ("quality", "corpus")
    name = document.get(prompts)
    if isinstance(name, str) and name.startswith(FOUNDING):
        shipped = sorted(FOUNDING + file.stem for file in FOUNDING_FOLDER.glob("*.jsonl"))
        if name not in shipped:
            document.problem(prompts, f"{name!r} is not {among(shipped, name)}")
    elif isinstance(name, str) and _file(document, prompts, base, name):
        _trace(document, prompts, base / name)
    if isinstance(document.get(corpus), str):
        _file(document, corpus, base, document.get(corpus))


def _trace(document: Document, path: Path, file: FilePath) -> None:
    """A trace is read as far as it will be used."""
    given = document.get(path[:-1])
    if given.get("kind") != "trace":
        return
    bounds = [
        one for one in (given.get("limit"), document.get(("workload", "requests"))) if type(one) is int and one > 0
    ]
    try:
        trace.read(file, min(bounds, default=1))
    except UsageError as error:
        document.problem(path, str(error))


def _file(document: Document, path: Path, base: FilePath, name: str) -> bool:
    """Whether it is there."""
    file = base / name
    if not file.exists():
        here = sorted(one.name for one in file.parent.iterdir() if one.is_file()) if file.parent.is_dir() else []
        near = f"; {file.parent.name}/ holds {', '.join(here[:8])}" if here else ""
        document.problem(path, f"no such file: {name} (looked for beside the scenario){near}")
    elif not file.is_file():
        document.problem(path, f"{name} is a directory, not a file")
    return file.is_file()
