"""Is a deployed folder as quick as what was measured? Both are asked, block by block, by the load generator of a run.

A block is one start of the folder and one launch of the variant that it was made from, asked the same prompts in
random order: what the day does to the machine it does to both. The folder is asked through its own front door, as a
server that runs already; that it started, and how it became ready, is its own business.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import pandas as pd

from bench.analyse.run import Run
from bench.engines.ports import free_port
from bench.errors import LaunchError, ProvisionError, RecordError, UsageError
from bench.judge.compare import Comparison, Terms, compare
from bench.judge.validity import judge_folder
from bench.plan.blocks import in_blocks
from bench.run.conductor import Rules, Setting, carry_out
from bench.run.progress import Progress
from bench.scenario.load import Scenario
from bench.scenario.model import EngineSetting
from bench.scenario.variant import Variant, WarmupStep
from bench.service.deploy import asked
from bench.warmup.predecessor import predecessor

# A verdict on a ratio needs at least so many.
BLOCKS = 3
METRICS = ("ttft.p50", "tpot.p50", "e2el.p50")
MARGIN = 0.05
LOOK_S = 0.2
# Beyond the engine's own time to stop.
STOP_S = 60.0
DEPLOYED = "deployed"


@dataclass(frozen=True, slots=True)
class Verified:
    """The comparison (a: launched as measured, b: the folder), and what the run itself had said of each metric."""

    comparison: Comparison
    then: Mapping[str, float | None]
    runs: tuple[Path, ...]


def verify(folder: Path, source: Run, results: Path, size: tuple[int, int], progress: Progress) -> Verified:
    """Start the folder, ask it beside a fresh launch of its variant, and compare; BenchError if it does not start.

    `size`: starts of each side, and requests of each start where the scenario has fewer.
    """
    settings = read(folder)
    blocks, requests = size
    name = settings["made_from"]["variant"]
    scenario, variant = asked(source, name)
    if variant.start == "restored":
        raise UsageError(
            f"{name} is restored from an image, and one image is one engine at a time: no launch beside it"
        )
    if predecessor(variant) is not None:
        raise UsageError(
            f"{name} is ready before its own engine has taken over, so the two could not be told apart from outside",
            hint="`bench run` measures the hand-over again",
        )
    runs: list[Path] = []
    frames: list[pd.DataFrame] = []
    for block in range(blocks):
        port = free_port()
        progress.preparing(f"starting {folder.name} ({block + 1} of {blocks})")
        with started(folder, port, settings["ready"]["timeout_s"]):
            door = _through(variant, settings, port)
            plan = in_blocks((variant, door), 1, scenario.model.design.seed + block)
            setting = Setting(results=results, progress=progress, rules=Rules(judge_folder), check_client=False)
            path = carry_out(_one(scenario, requests), setting, plan)
        runs.append(path)
        # Each run has one block; among them they are told apart.
        frames.append(Run.open(path).per_launch.assign(block=block))
    rows = pd.concat(frames, ignore_index=True)
    sides = rows[rows["variant"] == name], rows[rows["variant"] == DEPLOYED]
    compared = compare(*sides, Terms({METRICS[0]: MARGIN}, METRICS[1:]), (f"{name}, launched", DEPLOYED))
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
    if (folder / "compose.yaml").is_file():
        raise UsageError(
            f"{folder} is kept by compose, which serves it on its own port only",
            hint=f"start it there and ask it: `engine: openai, base_url: http://{settings['host']}:{settings['port']}` "
            "beside the variant in one scenario",
        )
    return settings


class Detached:
    """A program that is no child of this one: what it computes must not be taken for the load generator's work."""

    _FORK = (
        "import os, sys\nif os.fork():\n    os._exit(0)\nos.setsid()\n"
        "os.write(int(sys.argv[1]), str(os.getpid()).encode())\nos.close(int(sys.argv[1]))\n"
        "os.execv(sys.argv[2], sys.argv[2:])"
    )

    def __init__(self, command: Sequence[str], log: IO[str]) -> None:
        told, tells = os.pipe()
        with os.fdopen(told, "rb") as answer:
            words = [sys.executable, "-I", "-S", "-c", self._FORK, str(tells), *command]
            subprocess.run(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(tells,), check=True)
            os.close(tells)
            self.pid = int(answer.read())
        self._handle = os.pidfd_open(self.pid)

    def ended(self, within_s: float = 0.0) -> bool:
        """Whether it has ended, or does in so many seconds."""
        return bool(select.select([self._handle], [], [], within_s)[0])

    def end(self) -> None:
        """Ask it to end, and insist after a while."""
        for number, patience_s in ((signal.SIGTERM, STOP_S), (signal.SIGKILL, None)):
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, number)
            if patience_s is None or self.ended(patience_s):
                break
        os.close(self._handle)


@contextmanager
def started(
    folder: Path, port: int, timeout_s: float, clock: Callable[[], float] = time.monotonic
) -> Iterator[Detached]:
    """The folder's service on a port, ready; ended with all its children. ProvisionError with its last words else."""
    mark = folder / "state" / "ready"
    mark.unlink(missing_ok=True)
    own = ["--once", "--port", str(port), "--owner", str(os.getpid())]
    said = folder / "logs" / "verify.log"
    with said.open("w", encoding="utf-8") as log:
        process = Detached([sys.executable, "-I", "-S", str(folder / "serve.py"), *own], log)
    try:
        end = clock() + timeout_s + 30
        while not mark.exists():
            if process.ended() or clock() > end:
                tail = "\n".join(f"    {line}" for line in said.read_text(errors="replace").splitlines()[-8:])
                raise ProvisionError(f"{folder} did not become ready", hint=f"it said\n{tail}")
            time.sleep(LOOK_S)
        yield process
        if process.ended():
            raise LaunchError("crash_while_serving", f"{folder} ended while it was asked")
    finally:
        process.end()


def _one(scenario: Scenario, requests: int) -> Scenario:
    """The scenario without its gate and quality questions, which speak of its own variants; with enough requests."""
    workload = scenario.model.workload
    # A trace has only so many, where it is not repeated.
    if workload.prompts.kind == "random":
        workload = workload.model_copy(update={"requests": max(workload.requests, requests)})
    changed = {"gate": None, "quality": None, "workload": workload}
    return replace(scenario, model=scenario.model.model_copy(update=changed))


def _through(variant: Variant, settings: Mapping[str, Any], port: int) -> Variant:
    """The folder's front door as a variant: a server that runs, and that its own warm-up has warmed."""
    engine = EngineSetting(
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
        start="exec",
    )
