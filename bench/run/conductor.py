"""From a scenario to a recorded run: every launch in its order, each kept once it is over, resumed after a break."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import plugins
from bench.engines.engine import Checkpoint, form
from bench.engines.images import Origins
from bench.environments.environment import install, needed, provisioned
from bench.errors import RecordError, UsageError
from bench.home import home, locked
from bench.loadgen.selfcheck import selfcheck
from bench.phrases import listed
from bench.plan.blocks import Plan, draw
from bench.plan.budget import TimeLimit
from bench.probes.cooldown import idle_reference
from bench.probes.fingerprint import fingerprint
from bench.probes.machine import Machine, machine
from bench.probes.power_mode import applied, verify
from bench.record.launches import Check, LaunchRecord
from bench.record.store import RunFolder
from bench.run import folders
from bench.run.attempts import Attempt, Blocks, Endings, Fits, Retire, StopRule, attempts
from bench.run.clients import Reached, ready
from bench.run.launch import launch
from bench.run.progress import Progress, Silent
from bench.run.refusals import require
from bench.run.seen import Seen, Stand
from bench.run.succession import weights_of
from bench.scenario.load import Scenario
from bench.scenario.model import ClientPlace
from bench.scenario.sources import REMOTE
from bench.warmup.predecessor import predecessor

# What makes a finished launch invalid, from its folder.
Judge = Callable[[Path], Sequence[Check]]

# From a run's folder and a variant: how long a launch of it may take to its first token, s.
Patience = Callable[[Path, str], float | None]

# Set to 1 where runs do not disturb each other: tests of the harness itself, or a GPU for each.
BESIDE = "FIRSTTOKEN_BESIDE_OTHERS"


@dataclass(frozen=True, slots=True)
class Rules:
    """Judgements handed down from the head, which the hands may not import; each sees a folder, and so what is on disk.

    `judge` makes a finished launch invalid, `stop` says why the blocks so far are enough, `retire` which variants need
    no more of them, and why. `fits` says, before each launch, why no further one begins. `patience` is how many seconds
    after its spawn a launch of a variant may take to its first token before it is stopped; None for as long as it
    takes. `limit` is what the run may take beside the scenario's own budget.
    """

    judge: Judge | None = None
    stop: StopRule | None = None
    retire: Retire | None = None
    limit: TimeLimit | None = None
    fits: Fits | None = None
    patience: Patience | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Where and how a run is carried out.

    `install` installs the engine environments that are missing. `apply` sets the power mode and clocks that the
    scenario declares, and puts them back at the end. `check_client` measures the load generator's own error once,
    before the first launch. `client` is where the load comes from, this machine by default. `note` is what readers of
    the run should know of its purpose.
    """

    results: Path
    progress: Progress = field(default_factory=Silent)
    rules: Rules = field(default_factory=Rules)
    resume: folders.Resume = "never"
    install: bool = False
    emulate: str | None = None
    apply: bool = False
    check_client: bool = True
    client: ClientPlace | None = None
    note: str | None = None


def carry_out(scenario: Scenario, setting: Setting, plan: Plan | None = None) -> Path:
    """Run a scenario by its own plan or another, or go on with a run; its folder. BenchError if none could be started.

    A run that is complete already, where the setting asks for such a one, is left as it is.
    """
    plan, progress = plan or draw(scenario), setting.progress
    earlier = folders.earlier(setting.results, scenario, plan, setting.resume, setting.emulate)
    if earlier is not None and earlier.manifest.state == "complete":
        progress.note(f"{scenario.name} is finished: {earlier.path}")
        return earlier.path
    if setting.install:
        for name in sorted({name for variant in plan.variants if (name := needed(variant.engine))}):
            install(name, progress=progress.preparing)
    require(scenario)
    with ExitStack() as around:
        host = around.enter_context(_host(scenario, setting))
        weights = _weights(plan, progress)
        # What was fetched just now may be too short for the prompts.
        require(scenario)
        reached = _clients(scenario, setting, earlier)
        notes = [setting.note] if setting.note else []
        folder = around.enter_context(earlier or folders.new(setting.results, scenario, plan, host, notes))
        around.enter_context(folders.under_way(folder))
        _note_client(folder, setting, reached)
        parents = around.enter_context(Origins())
        stand = _stand(scenario, setting, host, parents, plan)
        if reached is not None:
            stand = dataclasses.replace(stand, clients=reached.clients)
        _Run(stand, plan, weights, folder, setting.rules).launches()
    return folder.path


def _clients(scenario: Scenario, setting: Setting, earlier: RunFolder | None) -> Reached | None:
    """The hosts that the load comes from, looked at; None for this machine."""
    wanted = setting.client or scenario.model.client
    names = None if wanted is None else list(wanted.hosts)
    begun = earlier.manifest.fingerprint if earlier is not None and earlier.finished() else {"clients": names}
    if begun.get("clients") != names:
        raise RecordError(
            f"the run was begun with the load from {listed(begun.get('clients') or ['this machine'])}",
            hint="the same --client, or a new run without --resume",
        )
    if wanted is None:
        return None
    check = setting.check_client and "client" not in begun
    setting.progress.preparing(f"reaching {listed(wanted.hosts)}" + ", and checking the client there" * check)
    return ready(wanted, scenario, check=check)


def _note_client(folder: RunFolder, setting: Setting, reached: Reached | None) -> None:
    """Where the load comes from, and the client's own error there, in the run's fingerprint."""
    known = folder.manifest.fingerprint
    if reached is not None:
        known["clients"] = list(reached.clients.hosts)
        if reached.checks:
            known["client"] = {"readings": next(iter(reached.checks.values())), "hosts": reached.checks}
    elif setting.check_client and "client" not in known:
        setting.progress.preparing("checking the client against a scripted server")
        known["client"] = dataclasses.asdict(selfcheck(quick=True))
    folder.save(folder.manifest)


@dataclass(frozen=True, slots=True)
class _Run:
    """A run under way."""

    stand: Stand
    plan: Plan
    weights: Mapping[str, Checkpoint]
    folder: RunFolder
    rules: Rules

    def launches(self) -> None:
        """Carry out what the plan has and the folder has not."""
        design, progress, done = self.stand.scenario.model.design, self.stand.progress, self.folder.finished()
        limits = [] if self.rules.limit is None else [self.rules.limit]
        if design.budget_minutes is not None:
            limits.append(TimeLimit(design.budget_minutes, f"the budget of {design.budget_minutes:g} minutes"))
        endings = Endings(self.rules.stop, self.rules.retire, self.rules.fits)
        blocks = Blocks(self.folder.path, self._left_out, limits=limits, endings=endings)
        for attempt in attempts(self.plan, done, blocks, design.retries, progress.note):
            progress.launch(attempt.planned, attempt.number, attempt.of, attempt.attempt)
            done[attempt.id] = record = self._recorded(attempt)
            progress.finished(record)

    def _left_out(self, words: str) -> None:
        self.folder.manifest.notes.append(words)
        self.stand.progress.note(words)

    def _recorded(self, attempt: Attempt) -> LaunchRecord:
        """Carry out a launch and put it on disk; judged last, from what is on the disk."""
        seen = self._seen(attempt)
        record, weights = seen.record, self.weights[attempt.planned.variant]
        record.launch_id, record.attempt = attempt.id, attempt.attempt
        record.facts |= {"checkpoint_digest": weights.digest, "checkpoint_bytes": weights.size_bytes}
        path = self.folder.finish(attempt.id, record, seen.tables)
        if self.rules.judge is not None:
            record.checks += self.rules.judge(path)
            violated = [check for check in record.checks if check.status == "violated"]
            if violated and record.status == "ok":
                record.status, record.reason_kind = "invalid", violated[0].name
                record.reason = "; ".join(f"{check.name}: {check.evidence}" for check in violated)
            self.folder.amend(record)
        return record

    def _seen(self, attempt: Attempt) -> Seen:
        planned = attempt.planned
        # Whole, because engines work in folders of their own.
        partial = self.folder.begin(attempt.id).resolve()
        try:
            with _turn(self.stand.progress):
                variant, asked = self.plan.variant(planned.variant), self.rules.patience
                patience = asked(self.folder.path, planned.variant) if asked else None
                stand = dataclasses.replace(self.stand, patience_s=patience)
                return launch(stand, planned, variant, self.weights[planned.variant], partial)
        except BaseException:
            self.folder.abandon(attempt.id)
            raise


@contextmanager
def _turn(progress: Progress) -> Iterator[None]:
    """Hold the machine for one launch, for two engines at once would measure each other.

    Waits, and says for whom, while another run of this user has it.
    """
    if os.environ.get(BESIDE) == "1":
        yield
        return
    with locked(home() / "measuring.lock", lambda words: progress.note(f"{words}: another run measures")):
        yield


@contextmanager
def _host(scenario: Scenario, setting: Setting) -> Iterator[Machine]:
    """The machine, in the state that the scenario declares; UsageError if it is another one."""
    with ExitStack() as around:
        host = around.enter_context(machine(setting.emulate))
        if setting.apply:
            for change in around.enter_context(applied(scenario.model.host, host.roots)):
                setting.progress.note(change)
            host = dataclasses.replace(host, fingerprint=fingerprint(host.roots))
        _require(scenario, host)
        yield host


def _require(scenario: Scenario, host: Machine) -> None:
    """UsageError unless the machine is what the scenario declares; what cannot be known is refused as well."""
    checks = verify(scenario.model.host, host.fingerprint)
    failed = [check for check in checks if check.status != "ok"]
    if failed:
        raise UsageError(
            "this is not the machine that the scenario asks for:\n"
            + "\n".join(f"  {check.name}: asked for {check.limit}, found {check.evidence}" for check in failed),
            hint="; ".join(check.remedy for check in failed if check.remedy),
        )


def _weights(plan: Plan, progress: Progress) -> dict[str, Checkpoint]:
    """Weights and interpreters of every variant, before the first launch: a missing one is found here."""
    found: dict[str, Checkpoint] = {}
    known: dict[tuple[str, str, str], Checkpoint] = {}
    for variant in plan.variants:
        ahead = predecessor(variant)
        if ahead is not None and ahead.model != variant.model:
            progress.preparing(f"model {ahead.model.source} as {ahead.quantization}")
            weights_of(ahead, progress.preparing)
        wanted = form(plugins.load("engines", variant.engine.engine))
        if name := needed(variant.engine):
            provisioned(name)
        key = (variant.model_name, variant.quantization, wanted)
        if key not in known:
            if variant.model.source != REMOTE:
                progress.preparing(f"model {variant.model.source} as {variant.quantization}")
            known[key] = weights_of(variant, progress.preparing)
        found[variant.id] = known[key]
    return found


def _stand(scenario: Scenario, setting: Setting, host: Machine, parents: Origins, plan: Plan) -> Stand:
    idle_c: Mapping[str, float] = {}
    if scenario.model.design.cool_down is not None:
        setting.progress.preparing("taking the idle temperature")
        idle_c = idle_reference(host.roots)
    caches = home() / "caches" / scenario.model.scenario
    return Stand(scenario, host, caches, setting.progress, parents, plan.variants, idle_c)
