"""The answer of a search as a scenario: one variant that `bench check` accepts and `bench serve` starts."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from bench.record.documents import keep_document, keep_text
from bench.scenario.load import Scenario
from bench.scenario.variant import Variant
from bench.tune.search import Found

WARMUP = "tuned"


def kept(scenario: Scenario, start: Variant, found: Found, results: Path, study: Mapping[str, Any]) -> Path | None:
    """Keep what was found beside the runs: the scenario, and the study under the same name; None if nothing was."""
    if found.chosen is None or found.confirm is None:
        return None
    path = results / scenario.name / f"{found.confirm.name}-tuned.yaml"
    text = written(answer(scenario, start, found, path.parent))
    # What is kept can be read: a mistake would be ours, and is told here and not by whoever serves it.
    Scenario.parse(text, path)
    keep_document(path.with_suffix(".json"), study)
    return keep_text(path, text)


def answer(scenario: Scenario, start: Variant, found: Found, folder: Path) -> dict[str, Any]:
    """The scenario with the chosen variant alone, as it stands in a file in `folder`."""
    assert found.chosen is not None
    chosen = found.chosen.candidate.variant
    given = scenario.model.model_dump(mode="json", by_alias=True, exclude_unset=True)
    engine = chosen.engine.model_dump(mode="json", by_alias=True, exclude_unset=True)
    engine |= {name: value for name in ("args", "env") if (value := dict(getattr(chosen.engine, name)))}
    runs = ", ".join(one.name for one in found.runs)
    told: dict[str, Any] = {
        "scenario": f"{scenario.name}-tuned",
        "description": f"Found by `bench tune` from {start.id} of {scenario.name}: {chosen.id}. Its runs: {runs}.",
    }
    told |= {name: given[name] for name in ("host", "model") if name in given}
    if "models" in given:
        told["models"] = {chosen.model_name: given["models"][chosen.model_name]}
    steps = [{"strategy": step.strategy, **step.options} for step in chosen.warmup]
    told |= {
        "engines": {chosen.engine_name: engine},
        "warmups": {WARMUP: steps},
        "matrix": {
            "engine": [chosen.engine_name],
            "quantization": [chosen.quantization],
            "warmup": [WARMUP],
            "page_cache": [chosen.page_cache],
        },
    }
    if chosen.start != "exec":
        told["matrix"]["start"] = [chosen.start]
    told |= {name: given[name] for name in ("workload", "design", "measure") if name in given}
    told["workload"] = _moved(told["workload"], scenario.base, folder)
    return told


def _moved(workload: dict[str, Any], base: Path, folder: Path) -> dict[str, Any]:
    """The workload with its file as it is found from another folder."""
    file = workload["prompts"].get("file")
    if file is None or not (base / file).is_file():
        return workload
    moved = os.path.relpath((base / file).resolve(), folder.resolve())
    return workload | {"prompts": workload["prompts"] | {"file": moved}}


def written(document: Mapping[str, Any]) -> str:
    """A scenario's text."""
    yaml = YAML()
    yaml.default_flow_style = None
    yaml.width = 120
    out = io.StringIO()
    yaml.dump(dict(document), out)
    return out.getvalue()
