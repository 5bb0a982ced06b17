"""What a run's launches say together of other programs on the processors."""

from __future__ import annotations

import pytest

from bench.analyse.crowd import crowd, crowded
from bench.record.launches import Check, LaunchRecord
from bench.record.schema import CheckStatus

WAITED = "the engine's threads waited for others {} ± 0.4 of their time"
BESIDE = "{} ± 0.4 of the machine's processor time"


def launch(contention: tuple[CheckStatus, str], foreign: tuple[CheckStatus, str]) -> LaunchRecord:
    record = LaunchRecord("000-00-a", "a", {}, 0, 0)
    record.checks = [Check("contention", *contention), Check("foreign_cpu", *foreign), Check("swap", "unknown", "no")]
    return record


ALONE = launch(("ok", WAITED.format("0.0%")), ("ok", BESIDE.format("0.3%")))
HOGGED = launch(("violated", WAITED.format("48.1%")), ("warning", BESIDE.format("49.8%")))
ON_GPU = launch(("warning", WAITED.format("8.0%")), ("warning", BESIDE.format("12.0%")))
BESIDES = launch(("ok", WAITED.format("0.1%")), ("warning", BESIDE.format("50.2%")))
SHORT = launch(("unknown", "30.0% ± 9; too short a window to tell"), ("ok", BESIDE.format("1.0%")))
STRANGE = launch(("unknown", "the engine ran in a container"), ("unknown", "the engine ran in a container"))


def test_alone_there_is_nothing_to_say() -> None:
    found = crowd([ALONE, ALONE])
    assert (found.contended, found.accompanied, found.unknown) == (None, None, None)


def test_the_largest_wait_is_named() -> None:
    assert crowd([ALONE, HOGGED, ON_GPU]).contended == (
        "in 2 of 3 launches the engine's threads waited for other programs' use of the processors, "
        "up to 48.1 % of their time"
    )


def test_neighbours_that_cost_no_wait_are_told_apart() -> None:
    found = crowd([BESIDES])
    assert found.contended is None
    assert found.accompanied == (
        "other programs ran beside the only launch, with up to 50.2 % of the machine's processor time"
    )


def test_what_nobody_knows_is_said_with_its_reason() -> None:
    assert crowd([ALONE, STRANGE]).unknown == (
        "whether other programs had the processors is not known of 1 of 2 launches: the engine ran in a container"
    )


def test_launches_that_nobody_judged_are_not_counted() -> None:
    assert crowd([LaunchRecord("000-00-a", "a", {}, 0, 0), HOGGED]).launches == 1


@pytest.mark.parametrize(
    ("record", "verdict"),
    [(ALONE, False), (HOGGED, True), (ON_GPU, True), (BESIDES, True), (SHORT, True), (STRANGE, False)],
)
def test_too_short_a_look_is_no_comfort_and_an_engine_out_of_sight_no_suspect(
    record: LaunchRecord, verdict: bool
) -> None:
    assert crowded(record) is verdict


def test_of_a_launch_that_failed_nothing_is_said_because_it_has_no_figure() -> None:
    failed = launch(("unknown", "processor time was read less than twice"), ("unknown", "read less than twice"))
    failed.status = "failed"
    assert crowd([failed]).unknown is None
    assert crowd([failed, ALONE]).launches == 1
