"""Scenario texts for tests, and what is found wrong with them."""

from __future__ import annotations

from pathlib import Path

from bench.errors import Problem, ScenarioError
from bench.scenario.load import Scenario

GOOD = """\
scenario: sample
model: {source: "hf:someone/some-model", revision: main}
engines:
  vllm: {engine: vllm, args: {max_model_len: 2048}}
  hf: {engine: transformers}
matrix:
  engine: [vllm, hf]
  quantization: [fp16, awq]
  warmup: [none, multi-stage]
  exclude: [{engine: hf, quantization: awq}]
workload:
  prompts: {kind: random, tokens: [15, 128]}
  output_tokens: 32
  requests: 10
design: {blocks: 4}
measure: [ttft, tpot, throughput, startup, memory]
gate:
  baseline: {engine: vllm, quantization: fp16, warmup: none}
  metrics: {ttft.p50: 5%, output_throughput: 3%}
"""


def changed(*changes: tuple[str, str], text: str = GOOD) -> str:
    """The good text with replacements; each must apply."""
    for old, new in changes:
        assert old in text, old
        text = text.replace(old, new)
    return text


def loaded(*changes: tuple[str, str], text: str = GOOD) -> Scenario:
    return Scenario.parse(changed(*changes, text=text), "x.yaml")


def problems(text: str, path: str | Path = "x.yaml") -> tuple[Problem, ...]:
    """What is wrong with a text; nothing if it is right."""
    try:
        Scenario.parse(text, path)
    except ScenarioError as error:
        return error.problems
    return ()


def told(*changes: tuple[str, str], text: str = GOOD) -> list[str]:
    """What is wrong with the good text after replacements, without places."""
    return [f"{one.path}: {one.message}" for one in problems(changed(*changes, text=text))]
