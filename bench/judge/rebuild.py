"""A stored baseline made live again: its variant and today's, interleaved in one scenario.

Measured in the same session, the two need no stored figure at all, and the paired gate applies. This is the way to
compare builds on a device; stored sessions are for what cannot be started any more.
"""

from __future__ import annotations

import io
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ruamel.yaml import YAML

from bench.errors import IncomparableError
from bench.judge.baseline import Baseline
from bench.scenario.load import Scenario
from bench.scenario.matrix import ATTACHED_MODEL
from bench.scenario.redaction import WITHHELD

if TYPE_CHECKING:
    from bench.scenario.variant import Variant


def rebuild(baseline: Baseline, today: Scenario, variant: str | None = None) -> str:
    """Scenario text with two variants, `baseline` from the recorded recipe and `candidate` from today's scenario.

    `variant` is today's variant, of the baseline's name unless given. IncomparableError if model or workload differ.
    """
    recorded = Scenario.parse(baseline.recipe, today.path)
    old, new = recorded.variant(baseline.variant), today.variant(variant or baseline.variant)
    _alike(recorded, today, old, new)
    model = today.model.model_dump(mode="json", by_alias=True, exclude_unset=True)
    document: dict[str, Any] = {
        "scenario": f"{today.name}-rebuilt"[:80],
        "description": f"{baseline.variant} as recorded, and {new.id} as of today, interleaved",
        **{key: model[key] for key in ("host", "workload", "design", "measure") if key in model},
        "engines": {"baseline": _told(_engine(old), _engine(new)), "candidate": _engine(new)},
        "warmups": {"baseline": _steps(old), "candidate": _steps(new)},
        "matrix": {
            "engine": ["baseline"],
            "quantization": [old.quantization],
            "warmup": ["baseline"],
            "page_cache": [old.page_cache],
            **({"start": [old.start]} if {old.start, new.start} != {"exec"} else {}),
            "include": [
                {
                    "engine": "candidate",
                    "quantization": new.quantization,
                    "warmup": "candidate",
                    "page_cache": new.page_cache,
                    **({"start": new.start} if {old.start, new.start} != {"exec"} else {}),
                }
            ],
        },
        "gate": {
            "baseline": {"engine": "baseline"},
            "metrics": {name: f"{100 * margin:g}%" for name, margin in baseline.margins.items()},
        },
    }
    if new.model != ATTACHED_MODEL:
        document["model"] = new.model.model_dump(mode="json", exclude_defaults=True)
    text = io.StringIO()
    YAML().dump(document, text)
    return text.getvalue()


def _alike(recorded: Scenario, today: Scenario, old: Variant, new: Variant) -> None:
    found = []
    if old.model.source != new.model.source or old.model.revision != new.model.revision:
        found.append(f"model: {old.model.source} and {new.model.source}")
    if recorded.model.workload != today.model.workload:
        found.append("workload")
    if found:
        raise IncomparableError(f"the baseline's scenario and today's differ in {', '.join(found)}")


def _engine(variant: Variant) -> dict[str, Any]:
    return variant.engine.model_dump(mode="json", exclude_defaults=True)


def _told(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """The recorded engine, with today's value for each secret: the record has none. One that today's has not either
    comes from the environment, or from nowhere."""
    today = new.get("env", {})
    env = {name: today.get(name) if value == WITHHELD else value for name, value in old.get("env", {}).items()}
    return old | ({"env": {name: value for name, value in env.items() if value is not None}} if env else {})


def _steps(variant: Variant) -> list[dict[str, Any]]:
    return [{"strategy": step["strategy"], **step["options"]} for step in map(asdict, variant.warmup)]
