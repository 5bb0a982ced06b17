"""Make docs/gate.md: the gate red, green and yellow, on real runs of the simulated engine.

python -m tests.calibration.gallery --write
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from bench.analyse.run import Run
from bench.judge.gate import Judgement, judge
from bench.plan.blocks import in_blocks
from bench.report.verdicts import comment, junit, sentences
from bench.run.conductor import Setting, carry_out
from bench.scenario.load import Scenario

PROJECT = Path(__file__).parents[2]
PAGE = PROJECT / "docs" / "gate.md"
SCENARIO = """\
scenario: build-check
engines: {server: {engine: simulated, args: {ttft_ms: 40, itl_ms: 3, noise: {launch_sd: 0.01, request_sd: 0.03}}}}
matrix: {args.slowdown: [1.0, 1.2]}
workload: {prompts: {kind: random, tokens: 16}, output_tokens: 8, requests: 21}
design: {blocks: 5}
measure: [ttft, itl, throughput]
gate: {baseline: {args.slowdown: 1.0}, metrics: {ttft.p50: 5%, output_throughput: 5%}}
"""
# (title, slowdown of the new build, blocks)
SHOWN = (
    ("Red: the new build is 20 % slower", 1.2, 5),
    ("Green: nothing changed", 1.0, 5),
    ("Yellow: 20 % slower, but only two blocks", 1.2, 2),
)
HEAD = """\
# What the gate says

Three runs of one scenario on the simulated engine, made and written here by
`python -m tests.calibration.gallery --write`. `--enforce` was given: without it, and without an A/A study of the
machine, a PASS, FAIL or INCONCLUSIVE is advice: its first line begins with `ADVISORY`, and the exit code is 0. INVALID
is never advice: it says so in the same words and ends with 3 in either case.

```yaml
{scenario}```
"""


def main() -> None:
    """Print the page, or write it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write docs/gate.md")
    options = parser.parse_args()
    # Nothing is timed against anything else here; other runs need not wait for these.
    os.environ["FIRSTTOKEN_BESIDE_OTHERS"] = "1"
    with tempfile.TemporaryDirectory() as folder:
        text = page(Path(folder))
    if options.write:
        PAGE.write_text(text, encoding="utf-8")
    print(text)


def page(folder: Path) -> str:
    """The runs, and what each renderer says of them."""
    parts = [HEAD.format(scenario=SCENARIO)]
    runs = []
    for number, (title, slowdown, blocks) in enumerate(SHOWN):
        runs.append(measure(folder / str(number), slowdown, blocks))
        gate = judge(Run.open(runs[-1]), baselines=folder / "none", enforce=True)
        parts += [f"## {title}\n", f"Exit code {int(gate.exit_code)}.\n", *shown(gate)]
    parts += ["## pytest-benchmark's own compare-fail on a scenario\n", compare_fail(folder, runs[1], runs[0])]
    return "\n".join(parts)


def measure(results: Path, slowdown: float, blocks: int) -> Path:
    """Run the old build and a new one, slower or not."""
    scenario = Scenario.parse(SCENARIO, results / "build-check.yaml")
    old, new = scenario.variants
    args = new.engine.args | {"slowdown": slowdown}
    arms = [replace(old, id="old"), replace(new, id="new", engine=new.engine.model_copy(update={"args": args}))]
    return carry_out(scenario, Setting(results=results), in_blocks(arms, blocks, scenario.model.design.seed))


def shown(gate: Judgement) -> list[str]:
    """Terminal, Markdown and JUnit."""
    return [
        f"```text\n{sentences.render(gate)}\n```\n",
        f"As Markdown:\n\n{quoted(comment.render(gate))}\n",
        f"As JUnit XML:\n\n```xml\n{junit.render(gate)}\n```\n",
    ]


def quoted(text: str) -> str:
    """Markdown inside Markdown, its headings set off."""
    return "\n".join(f"> {line}".rstrip() for line in text.splitlines())


def compare_fail(folder: Path, before: Path, after: Path) -> str:
    """Save one run, compare another with it, as anybody would."""
    (folder / "build-check.yaml").write_text(SCENARIO)
    said = []
    for run, options in (
        (before, ["--benchmark-autosave"]),
        (after, ["--benchmark-compare=0001", "--benchmark-compare-fail=median:5%"]),
    ):
        renamed(run)
        command = ["build-check.yaml", *options, "--benchmark-columns=median,stddev,rounds", "-q"]
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", f"--scenario-run={run}", *command],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        # The comparison's failure ends pytest with a traceback of its own making; what it says comes before.
        output = (ended.stdout + ended.stderr).partition("Traceback")[0]
        output = output.replace(str(folder), "…").replace(str(PROJECT), "…")
        kept = [line for line in output.splitlines() if line.strip() and "sync" not in line and "warn" not in line]
        kept = [re.sub(r"-{20,}|={20,}", lambda found: found[0][:16], line) for line in kept]
        said.append(f"$ pytest {' '.join(command)}\n" + "\n".join(kept) + f"\n(exit code {ended.returncode})")
    return "```text\n" + "\n\n".join(said) + "\n```\n"


def renamed(run: Path) -> None:
    """Give the run's variants the names that the scenario itself gives them."""
    names = [variant.id for variant in Scenario.parse(SCENARIO).variants]
    for file in [run / "manifest.json", *run.glob("launches/*/launch.json")]:
        text = file.read_text()
        for label, name in zip(("old", "new"), names, strict=True):
            text = re.sub(f'"(id|variant)": "{label}"', rf'"\1": "{name}"', text)
        file.write_text(text)


if __name__ == "__main__":
    main()
