"""A scenario's text without its secrets: the same scenario, with other values where secrets stood."""

from __future__ import annotations

import pytest

from bench.scenario.load import Scenario
from bench.scenario.redaction import WITHHELD, redacted, secret, withheld

TEXT = """\
# Who measures what.
scenario: kept   # a comment stays
engines:
  sim:
    engine: simulated
    env: {HF_TOKEN: hf_hush, OMP_NUM_THREADS: 4}   # and so does this one
    args: {ttft_ms: 5}
  other:
    engine: simulated
    env:
      HF_TOKEN: "hf_hush: quoted"
      MY_SECRET: |
        hush, first line
        hush, second line
      AWS_SECRET_ACCESS_KEY:
        hf_hush
      OMP_NUM_THREADS: "4"
workload: {prompts: {kind: random, tokens: 16}, output_tokens: 4, requests: 4}
"""


def test_secrets_are_withheld_and_all_else_stays_as_it_was() -> None:
    found = redacted(TEXT)
    assert "hush" not in found
    assert "# a comment stays" in found
    assert "# and so does this one" in found
    before, after = Scenario.parse(TEXT).model, Scenario.parse(found).model
    assert {name: dict(engine.env) for name, engine in after.engines.items()} == {
        "sim": {"HF_TOKEN": WITHHELD, "OMP_NUM_THREADS": "4"},
        "other": {
            "HF_TOKEN": WITHHELD,
            "MY_SECRET": WITHHELD,
            "AWS_SECRET_ACCESS_KEY": WITHHELD,
            "OMP_NUM_THREADS": "4",
        },
    }
    bare = {name: engine.model_copy(update={"env": {}}) for name, engine in before.engines.items()}
    assert bare == {name: engine.model_copy(update={"env": {}}) for name, engine in after.engines.items()}
    assert (before.workload, before.design) == (after.workload, after.design)


def test_what_is_withheld_once_stays_so() -> None:
    assert redacted(redacted(TEXT)) == redacted(TEXT)


def test_a_scenario_without_secrets_stays_to_the_letter() -> None:
    plain = "scenario: a\nengines: {sim: {engine: simulated, env: {MAX_TOKEN: 1}}}  # HF_TOKEN: no\nkey: {API_KEY: 1}\n"
    assert redacted(plain) == plain


@pytest.mark.parametrize(
    "text",
    [
        "a: {env: {HF_TOKEN: &mine hush}}\nb: {env: {HF_TOKEN: *mine}}\n",
        "keep: &mine hush\nb: {env: {HF_TOKEN: *mine}}\n",
        "a: &all {env: {HF_TOKEN: hush}}\nb: {<<: *all}\n",
        "a: {env: {<<: {HF_TOKEN: hush}}}\n",
        "tune: {levers: {env.API_KEY: [hush, 'hush 2'], kept: {env: {API_KEY: hush}}}}\n",
        "a:\n  env:\n    HF_TOKEN: >-\n      hush\n      hush\n  after: 1\n",
        "a:\n  env:\n    HF_TOKEN: !!str hush\n",
        "a:\n  env:\n    HF_TOKEN: hush\n      hush\n",
    ],
)
def test_however_it_is_written_no_secret_is_left_and_it_is_still_yaml(text: str) -> None:
    from ruamel.yaml import YAML

    found = redacted(text)
    assert "hush" not in found
    read = YAML(typ="safe").load(found)
    assert read.keys() == YAML(typ="safe").load(text).keys()
    assert WITHHELD in str(read)


@pytest.mark.parametrize("text", ["a: [", "", "- 1\n- 2\n", "just words"])
def test_what_is_no_scenario_is_left_alone(text: str) -> None:
    assert redacted(text) == text


def test_names_that_only_look_secret_are_not() -> None:
    assert [name for name in ("HF_TOKEN", "api_key", "NUM_KEY", "TOKENIZERS_PARALLELISM", "HOME") if secret(name)] == [
        "HF_TOKEN",
        "api_key",
    ]
    assert withheld({"HF_TOKEN": "hush", "HOME": "/x"}) == {"HF_TOKEN": WITHHELD, "HOME": "/x"}
