"""What `bench aa` and `bench inject` share: arms of one variant, launched in turns and judged by the same margins."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.output import margins

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bench.scenario.load import Scenario
    from bench.scenario.variant import Variant


Chosen = Annotated[str | None, typer.Option(help="variant to try it with; the first by default")]
Sessions = Annotated[int, typer.Option(min=1, help="sessions, each judged as a run of its own")]
Blocks = Annotated[int | None, typer.Option(min=3, help="blocks per session; the scenario's own by default")]
Margins = Annotated[list[str] | None, typer.Option(help="metric=5%; the gate's, or the usual ones, by default")]
Resume = Annotated[bool, typer.Option(help="go on with the newest unfinished study of this scenario")]
ResumeIfAny = Annotated[bool, typer.Option("--resume-if-any", help="the same if there is one, and else start anew")]


def launch_arms(
    scenario: Scenario,
    arms: Sequence[Variant],
    blocks: int,
    results: Path,
    resume: bool,
    resume_if_any: bool,
    *,
    quiet: bool,
) -> Path:
    """Launch the arms in random blocks, or go on with it; the run's folder."""
    from bench.cli.progress import watch
    from bench.cli.signals import ends_on_term
    from bench.judge.validity import judge_folder
    from bench.plan.blocks import in_blocks
    from bench.run.conductor import Rules, Setting, carry_out

    with ends_on_term(), watch(quiet=quiet) as progress:
        setting = Setting(
            results=results,
            progress=progress,
            rules=Rules(judge_folder),
            resume="always" if resume else "if any" if resume_if_any else "never",
        )
        return carry_out(scenario, setting, in_blocks(arms, blocks, scenario.model.design.seed))


def variant_of(scenario: Scenario, name: str | None) -> Variant:
    """The variant to try it with; the first by default."""
    return scenario.variants[0] if name is None else scenario.variant(name)


def margins_of(scenario: Scenario, given: list[str] | None) -> Mapping[str, float]:
    """The margins given, else the gate's, else the usual ones, by metric."""
    from bench.analyse.metrics import metric
    from bench.judge.baseline import DEFAULT_MARGINS
    from bench.scenario.measures import margin

    gate = scenario.model.gate
    asked = margins(given or ()) or ({name: margin(text) for name, text in gate.metrics.items()} if gate else {})
    return {metric(name).id: share for name, share in asked.items()} or {
        name: share for name, share in DEFAULT_MARGINS.items() if scenario.model.workload.requests > metric(name).needs
    }
