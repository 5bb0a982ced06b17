"""Factors become variants: the product of their levels, less `exclude`, plus `include`."""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from bench.scenario.model import Model, ScenarioModel
from bench.scenario.sources import REMOTE
from bench.scenario.variant import Variant, WarmupStep, agrees, level_text

MAX_CELLS = 2000
MAX_ID = 80
ATTACHED_MODEL = Model(source=REMOTE)

Cell = dict[str, Any]


def models(scenario: ScenarioModel) -> dict[str, Model]:
    """The models by name; a single `model` is named after its file or repository."""
    if scenario.models:
        return scenario.models
    if scenario.model is None:
        return {"attached": ATTACHED_MODEL}
    name = PurePosixPath(re.split("[:#]", scenario.model.source)[-1]).name
    return {re.sub(r"\.(gguf|safetensors)$", "", name) or "model": scenario.model}


def factors(scenario: ScenarioModel) -> dict[str, list[Any]]:
    """Every factor and its levels, in the order in which variants are counted out; the last one turns fastest."""
    matrix = scenario.matrix
    named: dict[str, list[Any]] = {
        "engine": list(matrix.engine or scenario.engines),
        "model": list(matrix.model or models(scenario)),
        "quantization": list(matrix.quantization),
        "warmup": list(matrix.warmup),
        "page_cache": list(matrix.page_cache or [scenario.design.page_cache]),
    }
    # A scenario that does not speak of it has no such factor: its variants compare with those of older runs.
    if matrix.start or any("start" in row for row in matrix.include):
        named["start"] = list(matrix.start or ["exec"])
    return named | (matrix.model_extra or {})


def size(scenario: ScenarioModel) -> int:
    """How many cells the product has, before anything is left out."""
    return math.prod(len(levels) for levels in factors(scenario).values())


def product(scenario: ScenarioModel) -> list[Cell]:
    """Every combination of levels."""
    named = factors(scenario)
    return [dict(zip(named, levels, strict=True)) for levels in itertools.product(*named.values())]


def included(scenario: ScenarioModel, row: Mapping[str, Any]) -> Cell:
    """The cell that an include row adds: the first level of every factor, where the row does not say otherwise."""
    return {name: levels[0] for name, levels in factors(scenario).items()} | dict(row)


def cells(scenario: ScenarioModel) -> list[Cell]:
    """The product without what `exclude` matches, then what `include` adds; nothing twice."""
    kept = [cell for cell in product(scenario) if not any(agrees(cell, row) for row in scenario.matrix.exclude)]
    for row in scenario.matrix.include:
        cell = included(scenario, row)
        if not any(one.keys() == cell.keys() and agrees(one, cell) for one in kept):
            kept.append(cell)
    return kept


def variants(scenario: ScenarioModel) -> tuple[Variant, ...]:
    """Every variant, named by the factors that vary."""
    found = cells(scenario)
    return tuple(_variant(scenario, cell, name) for cell, name in zip(found, _ids(found), strict=True))


def _variant(scenario: ScenarioModel, cell: Cell, variant_id: str) -> Variant:
    engine = scenario.engines[cell["engine"]]
    args = {name.removeprefix("args."): level for name, level in cell.items() if name.startswith("args.")}
    return Variant(
        id=variant_id,
        factors={name: level_text(level) for name, level in cell.items()},
        engine_name=cell["engine"],
        engine=engine.model_copy(update={"args": engine.args | args}),
        model_name=cell["model"],
        model=models(scenario)[cell["model"]],
        quantization=cell["quantization"],
        warmup_name=cell["warmup"],
        warmup=steps(scenario, cell["warmup"]),
        page_cache=cell["page_cache"],
        start=cell.get("start", "exec"),
    )


def steps(scenario: ScenarioModel, name: str) -> tuple[WarmupStep, ...]:
    """The steps of a warm-up: one defined under `warmups`, or else a registered strategy without options."""
    definition = scenario.warmups.get(name, name)
    return tuple(step(item) for item in (definition if isinstance(definition, list) else [definition]))


def step(item: str | Mapping[str, Any]) -> WarmupStep:
    """One step as it is written: a strategy's name, or a mapping with its options."""
    if isinstance(item, str):
        return WarmupStep(item)
    return WarmupStep(str(item["strategy"]), {name: value for name, value in item.items() if name != "strategy"})


def _ids(found: Sequence[Cell]) -> list[str]:
    names = list(dict.fromkeys(name for cell in found for name in cell))
    varying = [name for name in names if len({level_text(cell.get(name)) for cell in found}) > 1]
    # A scenario with one variant still wants a name that says something.
    chosen = varying or ["engine", "quantization"]
    # Figures of a forked start stand beside no others without saying so.
    if "start" not in chosen and any(cell.get("start", "exec") != "exec" for cell in found):
        chosen = [*chosen, "start"]
    ids = ["-".join(slug(name, cell[name]) for name in chosen if name in cell) for cell in found]
    return [
        one if ids.count(one) == 1 and 0 < len(one) <= MAX_ID else f"{one[: MAX_ID - 7].rstrip('-')}-{_digest(cell)}"
        for one, cell in zip(ids, found, strict=True)
    ]


def slug(name: str, level: Any) -> str:
    """`vllm`, `max-num-seqs-4`, `enforce-eager`, `no-enforce-eager`."""
    flag = name.removeprefix("args.")
    if flag == name:
        text = level_text(level)
    elif isinstance(level, bool):
        text = flag if level else f"no-{flag}"
    else:
        text = f"{flag}-{level_text(level)}"
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-.")


def _digest(cell: Cell) -> str:
    text = ",".join(f"{name}={level_text(level)}" for name, level in sorted(cell.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:6]
