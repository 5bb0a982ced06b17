"""Every snippet of the documents holds: scenarios pass the checks, commands exist with their options, Python runs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from ruamel.yaml import YAML

import bench
from bench.cli import app
from bench.fleet.order import Order
from bench.scenario.load import Scenario
from bench.scenario.model import ScenarioModel
from bench.service.watchlist import parse
from tests.runs import Behaviour, synthetic_run

PAGES = [Path("README.md"), Path("CONTRIBUTING.md"), *sorted(Path("docs").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`(bench [^`\n]+)`")
# Scenarios that a page has its reader write.
OWN = {"scenarios/ernie-awq.yaml", "scenarios/x.yaml"}
# What a fragment of a scenario needs around it to be a whole one; a fragment's own keys go before these.
AROUND = """\
scenario: around
model: {source: "dummy:tiny-llama"}
engines: {transformers: {engine: transformers}, vllm: {engine: vllm}}
workload: {prompts: {kind: random, tokens: 8}}
"""


def snippets(*kinds: str) -> list[Any]:
    """The blocks of these kinds, each with page and line as its name."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            if match[1] in kinds:
                line = text[: match.start()].count("\n") + 1
                found.append(pytest.param(match[2], id=f"{page.name}:{line}"))
    return found


def commands() -> Iterator[tuple[str, str]]:
    """Every `bench …` in blocks, workflows and running text: (where it stands, the command)."""
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in BLOCK.finditer(text):
            if match[1] in ("sh", "console", "yaml"):
                flat = re.sub(r"(run: >-)?\\?\n {10,}", " ", match[2]) if match[1] == "yaml" else match[2]
                for line in flat.splitlines():
                    for part in re.split(r"&&|\|\||;", line.partition(" #")[0]):
                        if found := re.search(r"(?:^|\s|\$ )(bench (?!serve`).*)$", part.strip()):
                            yield page.name, found[1]
        for match in SPAN.finditer(BLOCK.sub("", text)):
            yield page.name, re.split(r" (?:&&|\|\|) ", match[1])[0]


def known(command: Any, words: list[str]) -> tuple[Any, list[str]]:
    """The command that words name, and the words left."""
    while words and hasattr(command, "get_command"):
        below = command.get_command(typer.Context(command), words[0])
        if below is None:
            break
        command, words = below, words[1:]
    return command, words


@pytest.mark.parametrize(("page", "line"), sorted(set(commands())))
def test_a_command_exists_with_its_options(page: str, line: str) -> None:
    words = shlex.split(line.split(" | ")[0].split(" > ")[0].replace("…", "x"))[1:]
    if not words or not words[0].replace("-", "").isalpha() or words[0].isupper():
        pytest.skip("no command is named")
    root: Any = typer.main.get_command(app)
    command, rest = known(root, words)
    if not words[0].startswith("-"):
        assert command is not root, f"{page}: no command {words[0]!r}"
    options = {option for part in command.params for option in (*part.opts, *part.secondary_opts)} | {"-h", "--help"}
    used = {word.partition("=")[0] for word in rest if re.match(r"--?[a-zA-Z]", word)}
    assert used <= options, f"{page}: {line}"


@pytest.mark.parametrize("text", snippets("yaml"))
def test_a_scenario_or_a_part_of_one_is_right(text: str, tmp_path: Path) -> None:
    yaml = YAML(typ="safe")
    keys = set(yaml.load(text) or {})
    fields = {field.alias or name for name, field in ScenarioModel.model_fields.items()}
    if "watch" in keys:
        parse(text)
        return
    if "fleet" in keys:
        (tmp_path / "fleet.yaml").write_text(text)
        assert Order.load(tmp_path / "fleet.yaml").scenarios
        return
    if not keys <= fields:
        # A workflow, or an entry of another tool's file: it is YAML, and its commands are checked above.
        assert keys & {"on", "jobs", True, "repos", "steps"}
        return
    # Prompt files that an example names are its reader's.
    for name in re.findall(r"(?:file|corpus): ([\w./-]+\.jsonl)", text):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('{"prompt": "p", "turns": ["a", "b"], "text": "t"}\n')
    around = {key: value for key, value in yaml.load(AROUND).items() if key not in keys}
    if "models" in keys:
        around.pop("model", None)
    missing = "".join(line + "\n" for line in AROUND.splitlines() if line.partition(":")[0] in around)
    assert Scenario.parse(missing + text, tmp_path / "snippet.yaml").variants


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_a_scenario_that_is_named_ships(page: Path) -> None:
    named = set(re.findall(r"\bscenarios/[\w./-]+\.yaml", page.read_text(encoding="utf-8")))
    assert [name for name in sorted(named - OWN) if not Path(name).is_file()] == []


def test_a_variant_of_the_quick_scenario_that_is_named_is_one() -> None:
    known = {variant.id for variant in Scenario.load(Path("scenarios/quick.yaml")).variants}
    texts = [page.read_text(encoding="utf-8") for page in [*PAGES, *Path("bench/cli").glob("*.py")]]
    lines = [line for text in texts for line in text.splitlines() if re.search(r"(results|scenarios)/quick\b", line)]
    named = [re.findall(r"--variant ([\w-]+)", line) for line in lines]
    assert sum(map(len, named)) >= 4
    # V stands for whichever the reader has.
    assert {name for names in named for name in names} <= known | {"V"}


@pytest.mark.parametrize("text", snippets("python"))
def test_python_of_the_documents_runs(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    variants = {
        name: Behaviour(first=first, launch_sd=0.01, factors={"warmup": name})
        for name, first in (("none", 800.0), ("requests", 90.0))
    }
    synthetic_run(tmp_path / "results" / "quick", variants, blocks=4)
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {}
    exec(compile(f"from __future__ import annotations\n{text}", "snippet", "exec"), _names(text), space)
    for name, made in space.items():
        if name.startswith("test_"):
            made(bench.Run.open("results/quick"))


def _names(text: str) -> dict[str, Any]:
    """What a sketch of a contract takes for granted."""
    from typing import Protocol

    return {"Protocol": Protocol, "Any": Any} if "Protocol" in text else {}
