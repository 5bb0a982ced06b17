from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.scenario.load import Scenario
from bench.scenario.measures import PER_LAUNCH, PER_REQUEST, STATISTICS
from bench.scenario.reference import markdown, schema, schema_text
from tests.scenario.texts import problems

DOC = Path("docs/scenario.md")


def test_the_kept_schema_is_current() -> None:
    kept = Path("docs/scenario.schema.json").read_text(encoding="utf-8")
    assert kept == schema_text(), "run `bench schema > docs/scenario.schema.json`"


def test_the_schema_refuses_unknown_keys_everywhere() -> None:
    for name, part in {"": schema(), **schema()["$defs"]}.items():
        if "properties" in part and name != "VariantSelector":
            assert part["additionalProperties"] is False, name


def test_the_schema_knows_flags_as_factors() -> None:
    ((pattern, factor),) = schema()["$defs"]["Matrix"]["patternProperties"].items()
    assert re.search(pattern, "args.max_num_seqs")
    assert factor["type"] == "array"


def test_the_reference_has_every_key_as_the_model_has_it() -> None:
    text = DOC.read_text(encoding="utf-8")
    begin, end = "<!-- keys: made by `bench schema --keys` -->\n", "<!-- end of keys -->"
    assert text.split(begin, 1)[1].split(end, 1)[0].strip() == markdown().strip(), "run `bench schema --keys`"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOC.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("text", blocks("yaml"), ids=lambda text: text.splitlines()[0][:40])
def test_every_example_in_the_reference_is_right(text: str) -> None:
    assert Scenario.parse(text, "docs/example.yaml").variants


def test_every_message_in_the_reference_is_what_is_said() -> None:
    wrong, messages = blocks("wrong")[0], blocks("text")[0]
    assert "\n".join(str(one) for one in problems(wrong, "scenarios/x.yaml")) + "\n" == messages


def test_the_reference_has_every_metric() -> None:
    text = DOC.read_text(encoding="utf-8")
    for label, names in (("families", PER_REQUEST), ("statistics", STATISTICS), ("per launch", PER_LAUNCH)):
        assert f"| {label} | {', '.join(f'`{name}`' for name in names)} |\n" in text
