"""The product's decisions over simulated noise, counted."""

from __future__ import annotations

import math

import numpy as np

from bench.analyse.estimate import needed
from bench.judge.aa import Rate
from bench.judge.decide import LOOKS, Verdict, decide, deciding_block, p_above, spent_alpha, t_interval
from bench.judge.predict import judge_new, predict
from tests.calibration.noise import Array, Noise, medians

MARGIN = 0.05
LIMIT = math.log1p(MARGIN)
REQUESTS = 60
BLOCKS = (5, 8, 12)
MODELS = {
    "launch SD 2 %": Noise(0.02),
    "launch SD 5 %": Noise(0.05),
    "launch SD 2 %, session drift 5 %": Noise(0.02, drift=0.05),
    "launch SD 5 %, session drift 5 %": Noise(0.05, drift=0.05),
    "launch SD 2 %, second position +3 %": Noise(0.02, position=0.03),
    "launch SD 2 %, 10 % of launches +10 %": Noise(0.02, contaminated=0.1),
    "launch SD 2 %, heavy tails (t, 3 df)": Noise(0.02, heavy=True),
}
POWER_TABLE = ((3, 0.5), (5, 0.5), (8, 0.5), (12, 0.5), (8, 0.95))


def differences(noise: Noise, blocks: int, repetitions: int, ratio: float, seed: int, q: float = 0.5) -> Array:
    """Log ratios per block: shape (repetitions, blocks)."""
    requests = REQUESTS if q == 0.5 else needed(q)
    found = medians(noise, repetitions, blocks, requests, ratio, seed, q)
    apart: Array = found[..., 1] - found[..., 0]
    return apart


def verdict(d: Array, limit: float = LIMIT, alpha: float = 0.05) -> Verdict:
    """The gate's verdict on one repetition."""
    return decide(dict(enumerate(d.tolist())), limit, alpha).verdict


def rejected(d: Array) -> bool:
    """Whether the two-sided test at 5 % sees a change."""
    above = p_above(float(d.mean()), float(d.std(ddof=1)), len(d), 0.0)
    return 2 * min(above, 1 - above) < 0.05


def false_alarms(noise: Noise, blocks: int, repetitions: int, seed: int) -> tuple[Rate, Rate, Rate]:
    """Without a change: (change seen, FAIL); with one of exactly the margin: FAIL."""
    same = differences(noise, blocks, repetitions, 1.0, seed)
    edge = same + LIMIT
    return (
        Rate(sum(map(rejected, same)), repetitions),
        Rate(sum(verdict(d) is Verdict.FAIL for d in same), repetitions),
        Rate(sum(verdict(d) is Verdict.FAIL for d in edge), repetitions),
    )


def power(blocks: int, q: float, repetitions: int) -> dict[str, list[str]]:
    """Rows of the power table: the gate, the interval without leave-one-block-out, and with a stricter one."""
    rules = {"gate": verdict, "interval alone": interval_says, "left out at alpha": strict}
    cells: dict[str, list[list[float]]] = {rule: [] for rule in rules}
    for launch_sd in (0.02, 0.05):
        same = differences(Noise(launch_sd), blocks, repetitions, 1.0, round(1000 * launch_sd) + blocks, q)
        for rule, says in rules.items():
            cells[rule].append(
                [
                    sum(says(d + math.log(ratio)) is wanted for d in same) / repetitions
                    for ratio, wanted in (
                        (1.10, Verdict.FAIL),
                        (1.15, Verdict.FAIL),
                        (1.20, Verdict.FAIL),
                        (1.0, Verdict.PASS),
                    )
                ]
            )
    return {rule: [f"{a:.2f} / {b:.2f}" for a, b in zip(*rows, strict=True)] for rule, rows in cells.items()}


def interval_says(d: Array, limit: float = LIMIT) -> Verdict:
    """The verdict by the t interval only."""
    interval = t_interval(float(d.mean()), float(d.std(ddof=1)), len(d), 0.05)
    if interval.low > limit:
        return Verdict.FAIL
    return Verdict.PASS if interval.high < limit else Verdict.INCONCLUSIVE


def strict(d: Array) -> Verdict:
    """The verdict if leave-one-block-out were judged at alpha, and not at twice alpha as the product does."""
    said = interval_says(d)
    return said if deciding_block(d, LIMIT, 0.025, said) is None else Verdict.INCONCLUSIVE


def sequential(launch_sd: float, repetitions: int) -> tuple[Rate, float]:
    """A group-sequential plan with the truth at the margin: how often it ends with FAIL, and after how many blocks."""
    d = differences(Noise(launch_sd), LOOKS[-1], repetitions, 1.0, 77) + LIMIT
    fails, used = 0, 0
    for one in d:
        for look, level in zip(LOOKS, spent_alpha(LOOKS), strict=True):
            said = interval_at(one[:look], level)
            if said is not Verdict.INCONCLUSIVE or look == LOOKS[-1]:
                fails += said is Verdict.FAIL
                used += look
                break
    return Rate(fails, repetitions), used / repetitions


def interval_at(d: Array, level: float) -> Verdict:
    """The gate's verdict at a look's level."""
    return verdict(d, LIMIT, level)


def predicted(k: int, link: float | None, repetitions: int) -> tuple[Rate, Rate]:
    """Alarms on unchanged sessions, and on sessions 5 % slower. `link` is how much of a day the reference feels."""
    draw = np.random.default_rng(k + (0 if link is None else round(10 * link) + 1))
    alarms, hits = 0, 0
    for _ in range(repetitions):
        day = draw.normal(0, 0.03, k + 1)
        y = day + draw.normal(0, 0.01, k + 1)
        r = None
        if link is not None:
            felt = link * day if link else draw.normal(0, 0.03, k + 1)
            r = felt + draw.normal(0, 0.01, k + 1)
        made = predict(y[:k], None if r is None else r[:k], None if r is None else float(r[k]))
        alarms += judge_new(float(y[k]), made, k, 0.0, 1).verdict is Verdict.FAIL
        hits += judge_new(float(y[k]) + math.log(1.05), made, k, 0.0, 1).verdict is Verdict.FAIL
    return Rate(alarms, repetitions), Rate(hits, repetitions)
