"""Days come and go, and clocks are set: a journal for each day, and records for as long as they are to be kept."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bench import Run
from bench.service.days import keep
from bench.service.journal import FOLDER, Journal, lines
from bench.service.watch import Watch
from bench.service.watchlist import parse

WATCH = "watch: edge\nendpoints:\n  e: {url: 'http://127.0.0.1:1'}\n"
NOON = datetime(2026, 3, 28, 12, 0, 0, tzinfo=UTC)
MIDNIGHT = datetime(2026, 3, 29, tzinfo=UTC)


def event(now: datetime, name: str = "state") -> dict[str, Any]:
    return {"endpoint": "e", "wall": now.isoformat(), "kind": "event", "t_ns": 5, "name": name, "detail": "{}"}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / FOLDER).glob("*"))


def test_at_midnight_a_new_journal_begins_and_the_old_one_becomes_a_launch(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    last, first = MIDNIGHT - timedelta(milliseconds=1), MIDNIGHT + timedelta(seconds=5)
    journal.write(NOON, event(NOON, "noon"))
    assert not journal.rolled(last)
    journal.write(last, event(last, "last"))
    assert journal.finished() == []
    assert journal.rolled(MIDNIGHT)
    assert not journal.rolled(MIDNIGHT), "it is closed already"
    assert journal.finished() == ["20260328T120000-0.jsonl"]
    journal.write(first, event(first, "first"))
    assert names(tmp_path) == ["20260328T120000-0.jsonl", "20260329T000005-0.jsonl"]
    assert [line["name"] for line in lines(tmp_path / FOLDER / names(tmp_path)[0])] == ["noon", "last"]
    made = keep(tmp_path, WATCH, 30, journal.finished(), lambda: first)
    assert made == ["20260328T120000-0-e"]
    assert names(tmp_path) == ["20260329T000005-0.jsonl"], "what is written to stays"
    journal.close()
    keep(tmp_path, WATCH, 30, journal.finished(), lambda: first)
    blocks = {launch.id: launch.record.block for launch in Run.open(tmp_path).all}
    assert blocks["20260329T000005-0-e"] == blocks["20260328T120000-0-e"] + 1
    assert sorted(Run.open(tmp_path).events["name"]) == ["first", "last", "noon"]


def test_a_clock_that_is_set_back_writes_over_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write(NOON, event(NOON, "before"))
    journal.close()
    journal.write(NOON, event(NOON, "the same second again"))
    yesterday = NOON - timedelta(days=1)
    assert journal.rolled(yesterday)
    journal.write(yesterday, event(yesterday, "yesterday"))
    assert names(tmp_path) == ["20260327T120000-0.jsonl", "20260328T120000-0.jsonl", "20260328T120000-1.jsonl"]
    journal.close()
    keep(tmp_path, WATCH, 30, journal.finished(), lambda: NOON)
    assert sorted(Run.open(tmp_path).events["name"]) == ["before", "the same second again", "yesterday"]


def test_records_are_kept_for_as_many_days_as_asked(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for age in (31, 30, 29, 0):
        at = NOON - timedelta(days=age)
        journal.write(at, event(at, f"{age} days old"))
        journal.close()
    keep(tmp_path, WATCH, 30, journal.finished(), lambda: NOON)
    assert sorted(Run.open(tmp_path).events["name"]) == ["0 days old", "29 days old", "30 days old"]
    keep(tmp_path, WATCH, 1, [], lambda: NOON)
    assert list(Run.open(tmp_path).events["name"]) == ["0 days old"]
    # Other people's folders are none of its business.
    (tmp_path / "launches" / "notes").mkdir()
    keep(tmp_path, WATCH, 1, [], lambda: NOON + timedelta(days=100))
    assert [path.name for path in (tmp_path / "launches").iterdir()] == ["notes"]


@pytest.mark.asyncio
async def test_the_tokens_of_a_day_are_counted_anew_at_midnight_alone() -> None:
    watched = parse(WATCH)
    watch = Watch("e", watched.endpoints["e"], None, lambda _: None, lambda *_: None, lambda _: None)
    watch.spent = watched.endpoints["e"].tokens_per_day
    watch._day = "2026-03-28"
    assert watch.begin(MIDNIGHT - timedelta(seconds=1)) is None
    assert watch.skipped["budget"] == 1
    begun = watch.begin(MIDNIGHT)
    assert begun is not None
    begun.cancel()
    assert watch.spent == 0
