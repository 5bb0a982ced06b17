"""What the dashboards' formats share: per variant and headline metric, one value per valid launch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bench.analyse.metrics import METRICS, Metric
from bench.analyse.run import Run
from bench.judge.compare import HEADLINE


@dataclass(frozen=True, slots=True)
class PerLaunch:
    """A metric of a variant, a value per launch."""

    variant: str
    metric: Metric
    values: tuple[float, ...]

    @property
    def name(self) -> str:
        """`variant ttft.p50`."""
        return f"{self.variant} {self.metric.id}"


def per_launch(run: Run) -> Iterator[PerLaunch]:
    """Every headline metric that was measured."""
    launches = run.per_launch
    for variant in run.variants:
        valid = launches[(launches["variant"] == variant) & (launches["status"] == "ok")] if len(launches) else launches
        for name in (name for name in HEADLINE if name in valid):
            if values := tuple(float(value) for value in valid[name].dropna()):
                yield PerLaunch(variant, METRICS[name], values)
