"""Scenarios as pytest items: `pytest scenarios/quick.yaml`.

Each variant's metrics are items measured through pytest-benchmark's `benchmark` fixture, one round per launch, so that
`--benchmark-json`, `--benchmark-autosave`, `--benchmark-compare` and `--benchmark-compare-fail=median:5%` work on them.
A scenario with a gate has one item more, which fails on a regression. The fixtures `scenario`, `run` and `engine` are
for tests of one's own.

Only files named on the command line are collected (or every scenario under a named folder, with `--scenarios`), so a
YAML file that happens to lie among tests is left alone. Nothing heavy is imported until an item runs.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from bench.analyse.run import Run
    from bench.engines.engine import Endpoint
    from bench.scenario.load import Scenario

_SCENARIO = re.compile(r"^scenario\s*:", re.MULTILINE)
# What a scenario's `measure` shows as times; rates, memory and energy travel in `extra_info`.
TIMES = {
    "ttft": ("ttft.p50",),
    "tpot": ("tpot.p50",),
    "itl": ("itl.p50",),
    "e2el": ("e2el.p50",),
    "startup": ("startup", "cold_ttft"),
}
SECONDS = {"s": 1.0, "ms": 1e-3, "µs": 1e-6}


class AdvisoryFail(pytest.PytestWarning):
    """A gate that says FAIL, and whose word does not bind yet."""


def is_scenario(path: Path) -> bool:
    """Whether a YAML file calls itself a scenario: a top-level key `scenario`."""
    if path.suffix not in {".yaml", ".yml"}:
        return False
    try:
        return bool(_SCENARIO.search(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError):
        return False


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the plug-in."""
    group = parser.getgroup("firsttoken", "benchmark scenarios")
    group.addoption("--scenarios", action="store_true", help="collect every scenario under the folders named, too")
    group.addoption("--scenario-results", metavar="DIR", help="folder that runs are kept in (default: results)")
    group.addoption("--scenario-run", metavar="RUN", help="take this recorded run instead of launching anything")
    group.addoption("--scenario-enforce", action="store_true", help="let a gate bind without an A/A study behind it")


def pytest_configure(config: pytest.Config) -> None:
    """Make our marker known."""
    config.addinivalue_line("markers", "scenario(path): the scenario that `scenario`, `run` and `engine` are about")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """A scenario named on the command line, or any with `--scenarios`."""
    named = parent.session.isinitpath(file_path) or parent.config.getoption("--scenarios", default=False)
    if named and is_scenario(file_path):
        return ScenarioFile.from_parent(parent, path=file_path)
    return None


class RecordedTimes:
    """A timer that tells recorded durations: each call of `step` takes as long as the next launch did."""

    def __init__(self) -> None:
        self.now = 0.0
        self.left: list[float] = []

    def read(self) -> float:
        """The time, for pytest-benchmark's `timer`."""
        return self.now

    def step(self) -> None:
        """Let the next recorded duration pass; past the last one time stands still."""
        if self.left:
            self.now += self.left.pop(0)


class Sessions:
    """Runs of this pytest session, each scenario carried out once."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.runs: dict[Path, Run] = {}

    def run(self, path: Path) -> Run:
        """The scenario's run; BenchError if it could not be started."""
        from bench.analyse.run import Run

        if path not in self.runs:
            given = self.config.getoption("--scenario-run", default=None)
            self.runs[path] = Run.open(given or self._carry_out(path))
        return self.runs[path]

    def _carry_out(self, path: Path) -> Path:
        from bench.judge.stopping import stop_rule
        from bench.judge.validity import judge_folder
        from bench.run.conductor import Rules, Setting, carry_out
        from bench.scenario.load import Scenario

        loaded = Scenario.load(path)
        results = Path(self.config.getoption("--scenario-results", default=None) or self.config.rootpath / "results")
        return carry_out(loaded, Setting(results=results, rules=Rules(judge_folder, stop_rule(loaded))))


_SESSIONS = pytest.StashKey[Sessions]()


def sessions(config: pytest.Config) -> Sessions:
    """The runs of this pytest session."""
    if _SESSIONS not in config.stash:
        config.stash[_SESSIONS] = Sessions(config)
    return config.stash[_SESSIONS]


class ScenarioFile(pytest.File):
    """A scenario: an item per variant and time, and one for the gate."""

    @cached_property
    def scenario(self) -> Scenario:
        """The scenario, read once."""
        from bench.scenario.load import Scenario

        return Scenario.load(self.path)

    @property
    def run(self) -> Run:
        """Its run, carried out when first asked for; a test failure in words if it could not be."""
        from bench.errors import BenchError

        try:
            return sessions(self.config).run(self.path)
        except BenchError as error:
            pytest.fail(str(error), pytrace=False)

    def collect(self) -> Iterator[pytest.Item]:
        """The items; a scenario that is wrong is a collection error with every place."""
        from bench.errors import BenchError

        try:
            model, variants = self.scenario.model, self.scenario.variants
        except BenchError as error:
            raise self.CollectError(str(error)) from error
        for variant in variants:
            for name in (name for family in model.measure for name in TIMES.get(family, ())):
                if not self.config.pluginmanager.hasplugin("benchmark"):
                    yield self._item(f"{variant.id}[{name}]", unshown)
                    continue
                times = RecordedTimes()
                item = self._item(f"{variant.id}[{name}]", measured(self, variant.id, name, times))
                item.add_marker(pytest.mark.benchmark(group=f"{model.scenario} {name}", timer=times.read))
                yield item
        if model.gate is not None:
            yield self._item("gate", gated(self))

    def _item(self, name: str, call: Callable[..., None]) -> pytest.Function:
        item = ScenarioItem.from_parent(self, name=name, callobj=call)
        if self.config.pluginmanager.hasplugin("timeout"):
            # The first item carries out the whole run, which has limits of its own.
            item.add_marker(pytest.mark.timeout(0))
        return item


class ScenarioItem(pytest.Function):
    """One measured metric, or the gate."""

    def reportinfo(self) -> tuple[Path, int, str]:
        """Where it stands: in the scenario."""
        return self.path, 0, self.name


def measured(file: ScenarioFile, variant: str, name: str, recorded: RecordedTimes) -> Callable[[Any], None]:
    """The test of one metric: every valid launch is a round."""

    def test(benchmark: Any) -> None:
        from bench.analyse.metrics import METRICS

        launches = file.run.per_launch
        rows = launches[launches["variant"] == variant]
        valid = rows[rows["status"] == "ok"]
        times = (valid[name].dropna() * SECONDS[METRICS[name].unit]).tolist()
        if not times:
            reasons = "; ".join(sorted({str(reason) for reason in rows["reason"].dropna()}))
            pytest.fail(f"no valid launch of {variant} has {name}: {reasons or 'not measured'}", pytrace=False)
        others = {
            metric.id: float(valid[metric.id].median())
            for metric in METRICS.values()
            if metric.kind == "launch" and metric.id in valid and valid[metric.id].notna().any()
        }
        benchmark.extra_info.update(variant=variant, metric=name, run=file.run.manifest.run_id, **others)
        recorded.left = times
        benchmark.pedantic(recorded.step, rounds=len(times), iterations=1)

    return test


def unshown() -> None:
    """The test of a metric where nothing is there to show it."""
    pytest.skip("times are shown by pytest-benchmark: pip install 'firsttoken[pytest]'")


def gated(file: ScenarioFile) -> Callable[[], None]:
    """The test of the gate: fails on a regression or an invalid measurement, is skipped where the data do not say.

    A FAIL that is advice only passes with a warning that names it.
    """

    def test() -> None:
        from bench.errors import BenchError
        from bench.judge.decide import Verdict
        from bench.judge.gate import judge
        from bench.report.verdicts import sentences

        try:
            enforce = bool(file.config.getoption("--scenario-enforce", default=False))
            verdict = judge(file.run, baselines=file.config.rootpath / "results" / "baselines", enforce=enforce)
        except BenchError as error:
            pytest.fail(str(error), pytrace=False)
        if verdict.exit_code in {1, 3}:
            pytest.fail(sentences.render(verdict), pytrace=False)
        if verdict.verdict is Verdict.FAIL:
            warnings.warn(AdvisoryFail(sentences.render(verdict)), stacklevel=1)
        elif verdict.verdict is not Verdict.PASS:
            pytest.skip(sentences.render(verdict))

    return test


@pytest.fixture
def scenario(request: pytest.FixtureRequest) -> Scenario:
    """The scenario named by `@pytest.mark.scenario(path)`, relative to pytest's root folder."""
    from bench.scenario.load import Scenario

    return Scenario.load(_named(request))


@pytest.fixture
def run(request: pytest.FixtureRequest) -> Run:
    """The marked scenario's run, carried out once per session: `run.per_launch`, `run.requests`, `run.summary()`."""
    return sessions(request.config).run(_named(request))


@pytest.fixture
def engine(scenario: Scenario, tmp_path: Path) -> Iterator[Endpoint]:
    """The marked scenario's first variant, started and warm for one test; an endpoint with host, port and model."""
    from bench.engines.server import free_port
    from bench.run.progress import Silent
    from bench.run.serving import serving
    from bench.warmup.predecessor import predecessor

    variant = scenario.variants[0]
    with serving(scenario, variant, free_port(), tmp_path, Silent()) as kept:
        if predecessor(variant) is not None:
            kept.take_over(scenario, variant)
        assert kept.ready is not None
        yield kept.ready.endpoint


def _named(request: pytest.FixtureRequest) -> Path:
    marker = request.node.get_closest_marker("scenario")
    if marker is None or not marker.args:
        pytest.fail("mark the test with @pytest.mark.scenario('scenarios/….yaml')", pytrace=False)
    return Path(request.config.rootpath, marker.args[0])
