"""Which launch is next, without launching anything: blocks by an injected clock, attempts by what came of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bench.plan.blocks import Plan
from bench.plan.budget import TimeLimit
from bench.record.launches import LaunchRecord
from bench.record.manifest import PlannedLaunch
from bench.run.attempts import Attempt, Blocks, Endings, attempts

FOLDER = Path("results/small/20260101-000000")
MINUTE = 60.0


@dataclass
class Clock:
    """Says what it is told, seconds."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Story:
    """A run that is only told: what each launch comes to, how long it takes, and what was said on the way."""

    variants: str = "ab"
    blocks: int = 1
    retries: int = 1
    launch_s: float = 1.0
    # By the launch's id: why it is invalid. All others are ok.
    invalid: Mapping[str, str] = field(default_factory=dict)
    done: dict[str, LaunchRecord] = field(default_factory=dict)
    clock: Clock = field(default_factory=Clock)
    noted: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    @property
    def plan(self) -> Plan:
        launches = [
            PlannedLaunch(block, at, name, 7) for block in range(self.blocks) for at, name in enumerate(self.variants)
        ]
        return Plan((), tuple(launches), 7)

    def told(self, rules: Blocks | None = None) -> Iterator[Attempt]:
        blocks = rules or Blocks(FOLDER, self.noted.append, clock=self.clock)
        for attempt in attempts(self.plan, self.done, blocks, self.retries, self.said.append):
            yield attempt
            self.clock.now += self.launch_s
            kind = self.invalid.get(attempt.id)
            self.done[attempt.id] = LaunchRecord(
                attempt.id,
                attempt.planned.variant,
                {},
                attempt.planned.block,
                attempt.planned.position,
                attempt.attempt,
                status="invalid" if kind else "ok",
                reason_kind=kind,
                reason=f"{kind} it was" if kind else None,
            )

    def ids(self, rules: Blocks | None = None) -> list[str]:
        return [attempt.id for attempt in self.told(rules)]


def test_every_launch_of_the_plan_has_its_turn_and_its_number() -> None:
    told = [(attempt.id, attempt.number, attempt.of, attempt.attempt) for attempt in Story(blocks=2).told()]
    assert told == [("000-00-a", 1, 4, 1), ("000-01-b", 2, 4, 1), ("001-00-a", 3, 4, 1), ("001-01-b", 4, 4, 1)]


def test_what_is_on_the_disk_already_has_no_second_turn() -> None:
    story = Story(blocks=2)
    list(story.told())
    assert Story(blocks=2, done=story.done).ids() == []
    del story.done["001-00-a"]
    assert Story(blocks=2, done=story.done).ids() == ["001-00-a"]


def test_an_invalid_launch_is_repeated_until_it_is_valid() -> None:
    story = Story(retries=3, invalid={"000-00-a": "steal", "000-00-a~2": "swap"})
    assert story.ids() == ["000-00-a", "000-00-a~2", "000-00-a~3", "000-01-b"]
    assert story.said == [
        "000-00-a is invalid (steal it was) and is repeated",
        "000-00-a~2 is invalid (swap it was) and is repeated",
    ]


def test_a_launch_that_stays_invalid_is_given_up_after_its_retries() -> None:
    story = Story(retries=1, invalid={"000-00-a": "steal", "000-00-a~2": "steal"})
    assert story.ids() == ["000-00-a", "000-00-a~2", "000-01-b"]
    assert len(story.said) == 1


def test_what_stayed_invalid_is_not_repeated_for_the_same_reason_in_later_blocks() -> None:
    story = Story("a", 3, invalid={"000-00-a": "steal", "000-00-a~2": "steal", "001-00-a": "steal", "002-00-a": "swap"})
    assert story.ids() == ["000-00-a", "000-00-a~2", "001-00-a", "002-00-a", "002-00-a~2"]
    assert "001-00-a is invalid as before (steal it was) and is not repeated" in story.said


def test_a_valid_launch_in_between_makes_repeating_worth_its_time_again() -> None:
    story = Story("a", 3, invalid={"000-00-a": "steal", "000-00-a~2": "steal", "002-00-a": "steal"})
    assert story.ids() == ["000-00-a", "000-00-a~2", "001-00-a", "002-00-a", "002-00-a~2"]


def test_going_on_remembers_what_the_launches_on_the_disk_came_to() -> None:
    invalid = {"000-00-a": "steal", "000-00-a~2": "steal", "001-00-a": "steal"}
    first = Story("a", 1, invalid=invalid)
    list(first.told())
    assert Story("a", 2, invalid=invalid, done=first.done).ids() == ["001-00-a"]


@pytest.mark.parametrize(("minutes", "blocks"), [(0.5, 1), (1.0, 1), (2.0, 2), (3.9, 3), (4.0, 4), (60.0, 5)])
def test_a_block_begins_only_if_one_as_long_as_the_longest_ends_in_time(minutes: float, blocks: int) -> None:
    story = Story("ab", 5, launch_s=MINUTE / 2)
    limit = TimeLimit(minutes, f"the budget of {minutes:g} minutes")
    assert len(story.ids(Blocks(FOLDER, story.noted.append, limits=[limit], clock=story.clock))) == 2 * blocks
    left = f"stopped before block {blocks + 1}: another block would not end within the budget of {minutes:g} minutes"
    assert story.noted == ([left] if blocks < 5 else [])


def test_the_longest_block_so_far_is_what_the_next_is_taken_to_cost() -> None:
    clock, noted = Clock(), list[str]()
    blocks = Blocks(FOLDER, noted.append, limits=[TimeLimit(10.0, "ten minutes")], clock=clock)
    clock.now = 4 * MINUTE
    assert blocks.another(1)
    clock.now = 6 * MINUTE
    assert blocks.another(2), "6 minutes are gone and 4 more fit"
    clock.now = 7 * MINUTE
    assert not blocks.another(3), "7 minutes are gone and 4 more do not"
    assert blocks.seconds == [4 * MINUTE, 2 * MINUTE, 1 * MINUTE]


def test_of_two_limits_the_tighter_one_is_named() -> None:
    clock, noted = Clock(), list[str]()
    limits = [TimeLimit(60.0, "this part"), TimeLimit(1.0, "the whole")]
    blocks = Blocks(FOLDER, noted.append, limits=limits, clock=clock)
    clock.now = MINUTE
    assert not blocks.another(1)
    assert noted == ["stopped before block 2: another block would not end within the whole"]


def test_a_stop_rule_sees_the_folder_between_blocks_and_is_heard_before_the_budget() -> None:
    seen: list[Path] = []

    def enough(folder: Path) -> str | None:
        seen.append(folder)
        return "decided" if len(seen) == 2 else None

    story = Story("ab", 5)
    none_left = TimeLimit(1e9, "eternity")
    assert (
        len(
            story.ids(
                Blocks(FOLDER, story.noted.append, limits=[none_left], endings=Endings(stop=enough), clock=story.clock)
            )
        )
        == 4
    )
    assert seen == [FOLDER, FOLDER]
    assert story.noted == ["stopped before block 3: decided"]


def test_a_retired_variant_has_no_further_turn_and_is_named_once() -> None:
    story = Story("abcd", 3)

    def retire(folder: Path) -> dict[str, str]:
        return {"b": "slow", "d": "slow"} if len(story.done) < 8 else {"b": "slow", "d": "slow", "c": "dear"}

    ids = story.ids(Blocks(FOLDER, story.noted.append, endings=Endings(retire=retire), clock=story.clock))
    # Once b and d are out after the first block, the second ends with six launches: c stays.
    assert ids == ["000-00-a", "000-01-b", "000-02-c", "000-03-d", "001-00-a", "001-02-c", "002-00-a", "002-02-c"]
    assert story.noted == ["not launched from block 2 on: b, d (slow)"]


def test_each_reason_to_leave_is_a_sentence_of_its_own() -> None:
    noted: list[str] = []
    out = {"b": "slow", "c": "dear", "d": "slow"}
    blocks = Blocks(FOLDER, noted.append, endings=Endings(retire=lambda folder: out))
    assert blocks.another(1)
    assert noted == ["not launched from block 2 on: b, d (slow)", "not launched from block 2 on: c (dear)"]
    assert blocks.retired == out


def test_no_launch_begins_that_does_not_fit_and_none_after_it() -> None:
    story = Story(blocks=2)
    told: list[str] = []

    def fits(variant: str) -> str | None:
        told.append(variant)
        return "no time" if len(told) == 3 else None

    rules = Blocks(FOLDER, story.noted.append, endings=Endings(fits=fits), clock=story.clock)
    assert story.ids(rules) == ["000-00-a", "000-01-b"]
    assert story.noted == ["stopped before 001-00-a: no time"]
