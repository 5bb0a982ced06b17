"""The trade: what a variant gains and loses against the reference, in figures and in words.

Speed, memory and energy come from the launches, paired by block; divergence and perplexity from the documents. A ratio
is "sure" when its 95 % interval leaves 1 out. What no interval says is "no difference found", never "no difference".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from bench.analyse import answers
from bench.analyse.divergence import Divergence, diverge
from bench.analyse.estimate import Estimate
from bench.errors import IncomparableError, UsageError
from bench.judge.comparable import variant_id
from bench.judge.compare import Comparison, Terms
from bench.judge.result import Result

if TYPE_CHECKING:
    from bench.analyse.run import Run

Certainty = Literal["sure", "no difference found", "exact", "unknown"]
MEASURED = ("output_throughput", "cold_ttft", "memory.peak", "energy.per_token")
# Metric → how it is called in a sentence, and what more and less of it are.
WORDS = {
    "ttft": ("TTFT", "slower", "faster"),
    "cold_ttft": ("cold TTFT", "slower", "faster"),
    "output_throughput": ("tokens/s", "more", "fewer"),
    "memory.peak": ("memory", "", ""),
    "energy.per_token": ("J/token", "", ""),
    "weights": ("weights on disk", "", ""),
    "perplexity": ("perplexity", "", ""),
}
MIB = 1 << 20
# One-sided: the intervals are of 95 %, as those over documents are.
ALPHA = 0.025


@dataclass(frozen=True, slots=True)
class Change:
    """One figure of a variant beside the reference's: both values, their ratio with its interval, how sure it is."""

    metric: str
    unit: str
    reference: float | None
    value: float | None
    ratio: float | None
    low: float | None
    high: float | None
    certainty: Certainty
    reason: str = ""

    @property
    def words(self) -> str:
        """The change as people say it: `TTFT 12 % slower, sure`."""
        family = self.metric.partition("[")[0].partition(".p50")[0]
        name, more, less = WORDS.get(family, (family, "", ""))
        if "[" in self.metric:
            name += f" at {self.metric.partition('[')[2].partition(']')[0]} tokens"
        if self.ratio is None:
            return f"{name} not known" + (f" ({self.reason})" if self.reason else "")
        if self.certainty == "no difference found":
            return f"{name} no difference found"
        share = 100 * (self.ratio - 1)
        places = 0 if abs(share) >= 0.95 else 1
        if round(share, places) == 0:
            return f"{name} the same"
        if more:
            told = f"{abs(share):.{places}f} % {more if share > 0 else less}"
        else:
            told = f"{share:+.{places}f} %".replace("-", "−")
        return f"{name} {told}" + (", sure" if self.certainty == "sure" else "" if self.certainty == "exact" else "?")


@dataclass(frozen=True, slots=True)
class Trade:
    """A variant against the reference. `status` is ok, or why there is nothing to compare: unsupported, failed…"""

    variant: str
    against: str
    status: str
    reason: str | None
    changes: tuple[Change, ...]
    quality: Divergence

    def __getitem__(self, name: str) -> Change | None:
        return next((change for change in self.changes if change.metric == name), None)

    @property
    def sentence(self) -> str:
        """All changes in one line."""
        if self.status != "ok":
            return f"{self.variant}: {self.status}: {self.reason}"
        kl = self.quality.kl
        told = "KL not known" + (f" ({kl.reason})" if kl.reason else "")
        if kl.value is not None:
            told = f"KL {'at least ' if self.quality.kl_kind == 'lower bound' else ''}{kl.value:.4f} nats a token"
        return f"{self.variant}: " + "; ".join([*(change.words for change in self.changes), told])


def reference(run: Run) -> str:
    """The variant that the scenario compares the answers with; UsageError if it asks for no quality."""
    asked = run.scenario.get("quality")
    if not isinstance(asked, dict) or not isinstance(asked.get("against"), dict):
        raise UsageError(
            f"the scenario {run.manifest.scenario!r} asks for no quality", hint="add `quality: {against: {…}}` to it"
        )
    return variant_id(run, asked["against"])


def trades(run: Run) -> list[Trade]:
    """Every variant but the reference, in the scenario's order; those that could not run are there with the reason."""
    against = reference(run)
    theirs = answers.of_variant(run, against)
    return [
        _trade(run, against, variant, diverge(theirs, answers.of_variant(run, variant)))
        for variant in run.variants
        if variant != against
    ]


def _trade(run: Run, against: str, variant: str, quality: Divergence) -> Trade:
    records = [launch.record for launch in run.all if launch.record.variant == variant]
    bad = next((record for record in records if record.status != "ok"), None)
    if not any(record.status == "ok" for record in records):
        status, reason = (bad.status, bad.reason) if bad else ("not launched", "the run ended before it")
        return Trade(variant, against, status, reason, (), quality)
    return Trade(
        variant,
        against,
        "ok",
        None,
        (*_measured(run, against, variant), *_still(run, against, variant, quality)),
        quality,
    )


def _measured(run: Run, against: str, variant: str) -> Iterator[Change]:
    names = (*(f"{name}.p50" for name in _lengths(run)), *MEASURED)
    try:
        compared = Comparison.on(Terms(metrics=names, alpha=ALPHA), run, against, variant)
    except IncomparableError as error:
        yield from (Change(name, "", None, None, None, None, None, "unknown", error.message) for name in names)
        return
    found: Mapping[str, Result] = {result.metric.id: result for result in compared.results}
    for name in names:
        result = found.get(name)
        if result is None:
            yield Change(name, "", None, None, None, None, None, "unknown", "not measured on both sides")
            continue
        low, high = result.bounds or (None, None)
        certainty: Certainty = "unknown"
        if low is not None and high is not None:
            certainty = "no difference found" if low <= 1 <= high else "sure"
        yield Change(name, result.metric.unit, result.a, result.b, result.ratio, low, high, certainty)


def _still(run: Run, against: str, variant: str, quality: Divergence) -> Iterator[Change]:
    """What does not vary from launch to launch: the weights' size, and perplexity over its documents."""
    theirs, ours = _weights(run, against), _weights(run, variant)
    ratio = ours / theirs if ours and theirs else None
    yield Change(
        "weights",
        "MiB",
        None if theirs is None else theirs / MIB,
        None if ours is None else ours / MIB,
        ratio,
        ratio,
        ratio,
        "unknown" if ratio is None else "exact",
        "" if ratio else "the size on disk is not recorded",
    )
    change: Estimate = quality.perplexity_ratio
    certainty: Certainty = "unknown"
    if change.low is not None and change.high is not None:
        certainty = "no difference found" if change.low <= 1 <= change.high else "sure"
    value = quality.perplexity.value
    before = value / change.value if value is not None and change.value else None
    yield Change("perplexity", "", before, value, change.value, change.low, change.high, certainty, change.reason or "")


def _weights(run: Run, variant: str) -> float | None:
    sizes = [launch.record.facts.get("checkpoint_bytes") for launch in run.all if launch.record.variant == variant]
    return next((float(size) for size in sizes if size and isinstance(size, int | float)), None)


def _lengths(run: Run) -> list[str]:
    names = {name for pool in run.reduction.pooled.values() for name in pool if name.startswith("ttft[")}
    return sorted(names, key=lambda name: int(name[5:-1])) or ["ttft"]
