"""Recompute docs/calibration.md: `python -m tests.calibration [--repetitions N] [--write]`."""

from __future__ import annotations

import argparse
import os
import platform
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench.judge.aa import Rate
from tests.calibration.study import (
    BLOCKS,
    MODELS,
    POWER_TABLE,
    false_alarms,
    power,
    predicted,
    sequential,
)

PAGE = Path(__file__).parents[2] / "docs" / "calibration.md"
HEAD = """\
# How often the gate is wrong

Simulated, because only there the truth is known; the decisions are the product's own code (`bench.judge.decide`,
`bench.judge.predict`), the noise is drawn by `tests/calibration/noise.py`. Sixty requests per launch, {repetitions}
repetitions per cell, seed fixed. Recompute it with

    nox -s calibration -- --write

What the same gate does on a real engine is measured by `bench aa` and `bench inject`: see [statistics](statistics.md).
"""


def main() -> None:
    """Print the tables, or write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repetitions", type=int, default=4000)
    parser.add_argument("--write", action="store_true", help="write docs/calibration.md")
    options = parser.parse_args()
    text = "\n".join([HEAD.format(repetitions=options.repetitions), *page(options.repetitions), stamp(), ""])
    if options.write:
        PAGE.write_text(text, encoding="utf-8")
    print(text)


def page(repetitions: int) -> Iterator[str]:
    """The page, section by section."""
    yield "## With nothing changed\n"
    yield (
        '`change seen`: a two-sided t test at 5 % over blocks rejects "no change". `FAIL`: the gate\'s verdict at the\n'
        "default margin of 5 %. `FAIL at the margin`: the truth is a slowdown of exactly 5 %; nominal 5 %, less what\n"
        "leave-one-block-out takes away.\n"
    )
    yield "| noise | blocks | change seen | FAIL | FAIL at the margin |\n| --- | ---: | ---: | ---: | ---: |"
    for number, (name, noise) in enumerate(MODELS.items()):
        for blocks in BLOCKS:
            seen, failed, edge = false_alarms(noise, blocks, repetitions, 100 * number + blocks)
            yield f"| {name} | {blocks} | {share(seen)} | {share(failed)} | {share(edge)} |"
    yield (
        "\nWhere the second launch of a block is slower, the balanced order keeps that out of the mean and leaves\n"
        "it in the spread: the gate is then more careful than promised, never less.\n"
    )
    yield "\n## What it finds\n"
    yield (
        "Chance of FAIL by true slowdown at a margin of 5 %, and of PASS with nothing changed, each with launch SD\n"
        "2 % / 5 %. `interval alone` leaves leave-one-block-out away: what it costs is the difference. `left out at\n"
        "alpha` is what it would cost if the rest were judged at alpha and not, as it is, at twice alpha.\n"
    )
    yield "| blocks | quantile | rule | ×1.10 | ×1.15 | ×1.20 | PASS at ×1.00 |"
    yield "| ---: | --- | --- | ---: | ---: | ---: | ---: |"
    for blocks, q in POWER_TABLE:
        found = power(blocks, q, repetitions)
        for rule, cells in found.items():
            yield f"| {blocks} | p{100 * q:g} | {rule} | " + " | ".join(cells) + " |"
    yield "\n## Looking more than once\n"
    yield "Looks after 5, 8, 12 and 16 blocks at the levels of `power.spent_alpha`; the truth lies at the margin.\n"
    yield "| launch SD | stopped with FAIL in all | blocks used, mean |\n| ---: | ---: | ---: |"
    for launch_sd in (0.02, 0.05):
        rate, used = sequential(launch_sd, repetitions)
        yield f"| {launch_sd:.0%} | {share(rate)} | {used:.1f} |"
    yield "\n## Against stored sessions\n"
    yield (
        "`changed`: the share of unchanged sessions above the upper 5 % prediction limit; nominal 5 %. Days scatter\n"
        "by 3 %. Power is for a true slowdown of 5 % at margin 0.\n"
    )
    yield "| stored sessions | reference workload | changed | power at ×1.05 |\n| ---: | --- | ---: | ---: |"
    for k in (10, 20):
        for name, link in (
            ("none", None),
            ("feels the day alike", 1.0),
            ("half as sensitive", 0.5),
            ("unrelated", 0.0),
        ):
            alarm, found_share = predicted(k, link, repetitions)
            yield f"| {k} | {name} | {share(alarm)} | {found_share.share:.0%} |"
    yield ""


def share(rate: Rate) -> str:
    """A share with its interval."""
    low, high = rate.interval
    return f"{rate.share:.1%} ({low:.1%} – {high:.1%})"


def stamp() -> str:
    """Where and with what it was computed."""
    import scipy

    versions = f"Python {platform.python_version()}, numpy {np.__version__}, scipy {scipy.__version__}"
    return f"Computed on {platform.machine()}, {os.cpu_count()} threads, {versions}; no figure depends on its speed."


if __name__ == "__main__":
    main()
