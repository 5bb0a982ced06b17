"""Is a deployed folder as quick as what was measured? Both are asked, block by block, by the load generator of a run.

A block is one start of the folder and one launch of the variant that it was made from, asked the same prompts in
random order: what the day does to the machine it does to both. The folder is asked through its own front door, as a
server that runs already; that it started, and how it became ready, is its own business.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from bench.analyse.run import Run
from bench.engines.ports import free_port
from bench.errors import LaunchError, ProvisionError, RecordError
from bench.judge.compare import Comparison, compare
from bench.judge.validity import rule
from bench.plan.blocks import in_blocks
from bench.run import execute
from bench.run.progress import Progress
from bench.scenario.load import Scenario
from bench.scenario.model import Engine
from bench.scenario.variant import Variant, WarmupStep
from bench.service.deploy import asked

# A verdict on a ratio needs at least so many.
BLOCKS = 3
METRICS = ("ttft.p50", "tpot.p50", "e2el.p50")
MARGIN = 0.05
LOOK_S = 0.2
DEPLOYED = "deployed"


@dataclass(frozen=True, slots=True)
class Verified:
    """The comparison (a: launched as measured, b: the folder), and what the run itself had said of each metric."""

    comparison: Comparison
    then: Mapping[str, float | None]
    runs: tuple[Path, ...]


def verify(folder: Path, source: Run, results: Path, blocks: int, progress: Progress) -> Verified:
    """Start the folder, ask it beside a fresh launch of its variant, and compare; BenchError if it does not start."""
    settings = read(folder)
    name = settings["made_from"]["variant"]
    scenario, variant = asked(source, name)
    runs: list[Path] = []
    frames: list[pd.DataFrame] = []
    for block in range(blocks):
        port = free_port()
        progress.preparing(f"starting {folder.name} ({block + 1} of {blocks})")
        with started(folder, port, settings["ready"]["timeout_s"]):
            door = _through(variant, settings, port)
            plan = in_blocks((variant, door), 1, scenario.model.design.seed + block)
            path = execute(
                _one(scenario), results=results, plan=plan, progress=progress, judge=rule(), check_client=False
            )
        runs.append(path)
        # Each run has one block; among them they are told apart.
        frames.append(Run.open(path).per_launch.assign(block=block))
    rows = pd.concat(frames, ignore_index=True)
    sides = rows[rows["variant"] == name], rows[rows["variant"] == DEPLOYED]
    margins = {METRICS[0]: MARGIN}
    compared = compare(*sides, labels=(f"{name}, launched", DEPLOYED), margins=margins, metrics=METRICS[1:])
    summary = source.summary()
    mine = summary[summary["variant"] == name].set_index("metric")["value"]
    then = {metric: None if pd.isna(mine[metric]) else float(mine[metric]) for metric in METRICS}
    return Verified(compared, then, tuple(runs))


def read(folder: Path) -> dict[str, Any]:
    """service.json of a deployed folder; RecordError if there is none."""
    try:
        settings: dict[str, Any] = json.loads((folder / "service.json").read_text(encoding="utf-8"))
        _ = settings["made_from"]["variant"], settings["made_from"]["path"], settings["ready"]["timeout_s"]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise RecordError(
            f"{folder} is no deployed folder: {error}", hint="`bench deploy RUN FOLDER` makes one"
        ) from error
    return settings


@contextmanager
def started(
    folder: Path, port: int, timeout_s: float, clock: Callable[[], float] = time.monotonic
) -> Iterator[subprocess.Popen[str]]:
    """The folder's service on a port, ready; ended with all its children. ProvisionError with its last words else."""
    mark = folder / "state" / "ready"
    mark.unlink(missing_ok=True)
    command = [sys.executable, "-I", "-S", str(folder / "serve.py"), "--once", "--port", str(port)]
    said = folder / "logs" / "verify.log"
    with said.open("w", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, text=True, start_new_session=True)
    try:
        end = clock() + timeout_s + 30
        while not mark.exists():
            if process.poll() is not None or clock() > end:
                tail = "\n".join(f"    {line}" for line in said.read_text(errors="replace").splitlines()[-8:])
                raise ProvisionError(f"{folder} did not become ready", hint=f"it said\n{tail}")
            time.sleep(LOOK_S)
        yield process
        if process.poll() is not None:
            raise LaunchError("crash_while_serving", f"{folder} ended while it was asked")
    finally:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGTERM)
        process.wait()


def _one(scenario: Scenario) -> Scenario:
    """The scenario without its gate and quality questions, which speak of its own variants."""
    return replace(scenario, model=scenario.model.model_copy(update={"gate": None, "quality": None}))


def _through(variant: Variant, settings: Mapping[str, Any], port: int) -> Variant:
    """The folder's front door as a variant: a server that runs, and that its own warm-up has warmed."""
    engine = Engine(
        engine="openai",
        base_url=f"http://{settings['host']}:{port}",
        served_model=settings["ready"]["model"],
        api_key_env=settings["ready"]["key_env"],
        args={name: value for name, value in variant.engine.args.items() if name in ("token_ids", "body")},
    )
    return replace(
        variant,
        id=DEPLOYED,
        factors={**variant.factors, "engine": DEPLOYED},
        engine_name=DEPLOYED,
        engine=engine,
        warmup_name="none",
        warmup=(WarmupStep("none"),),
        page_cache="leave",
    )
