"""What a scenario may say, for editors (JSON Schema) and for people (Markdown); both made from the model."""

from __future__ import annotations

import json
import typing
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from bench.scenario import model
from bench.scenario.model import ScenarioModel
from bench.scenario.validate import arms

SCHEMA_ID = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """The JSON Schema of scenario files."""
    made = ScenarioModel.model_json_schema(by_alias=True)
    # A factor over an engine flag is a list of levels, and nothing else may stand beside the named factors.
    matrix = made["$defs"]["Matrix"]
    level = {"anyOf": [{"type": kind} for kind in ("string", "boolean", "number")]}
    matrix["additionalProperties"] = False
    matrix["patternProperties"] = {r"^args\..+": {"type": "array", "items": level, "minItems": 1}}
    selector = made["$defs"]["VariantSelector"]
    selector["additionalProperties"] = level
    return {"$schema": SCHEMA_ID, **made, "title": "firsttoken scenario"}


def schema_text() -> str:
    """The schema as the file docs/scenario.schema.json holds it."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


def markdown() -> str:
    """Tables of every key, section by section, as docs/scenario.md holds them."""
    return "\n".join(_section(heading, kind) for heading, kind in _SECTIONS)


_SECTIONS: tuple[tuple[str, type[BaseModel]], ...] = (
    ("The file", ScenarioModel),
    ("`host`", model.Host),
    ("`client`", model.ClientPlace),
    ("`model`, and each entry of `models`", model.Model),
    ("Each entry of `engines`", model.EngineSetting),
    ("`matrix`", model.Matrix),
    ("`workload`", model.Workload),
    ("`workload.prompts` of kind `random`", model.RandomPrompts),
    ("`workload.prompts.shared_prefix`", model.SharedPrefix),
    ("`workload.prompts` of kind `text`", model.TextPrompts),
    ("`workload.prompts` of kind `conversation`", model.ConversationPrompts),
    ("`workload.prompts` of kind `trace`", model.TracePrompts),
    ("`workload.arrivals`", model.Arrivals),
    ("`workload.arrivals.ramp`", model.Ramp),
    ("`workload.arrivals.burst`", model.Burst),
    ("`workload.arrivals.on_off`", model.OnOff),
    ("`workload.arrivals.replay`", model.Replay),
    ("`design`", model.Design),
    ("`design.cool_down`", model.CoolDown),
    ("`gate`", model.Gate),
    ("`quality`", model.Quality),
    ("`tune`", model.Tune),
)


def _section(heading: str, kind: type[BaseModel]) -> str:
    rows = [
        f"| `{info.alias or name}` | {_type(info.annotation)} | {_default(info)} | {info.description or ''} |"
        for name, info in kind.model_fields.items()
    ]
    return "\n".join([f"### {heading}", "", "| key | value | default | meaning |", "|---|---|---|---|", *rows, ""])


def _type(annotation: Any) -> str:
    """A type in words: text, a list of whole numbers, one of a, b."""
    words = dict.fromkeys(_one(arm) for arm in arms(annotation) if arm is not type(None))
    return " or ".join(words)


def _one(kind: Any) -> str:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return ", ".join(f"`{name}`" for name in arguments)
    if origin is list:
        return f"list of {_type(arguments[0])}"
    if origin is dict:
        return f"mapping of {_type(arguments[0])} to {_type(arguments[1])}"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "mapping"
    return {str: "text", int: "whole number", float: "number", bool: "true or false"}.get(kind, "anything")


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    if value is None or value is PydanticUndefined or value in ("", {}, []):
        return "–"
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_unset=True, by_alias=True) or None
    return "–" if value is None else f"`{json.dumps(value, ensure_ascii=False)}`"
