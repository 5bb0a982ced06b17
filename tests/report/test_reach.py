"""What the article says of reaching a server is judged by a run that holds both sides of it, and by no other."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.analyse.run import Run
from bench.judge.added import CHAT, NUMBER, POLLING, STRAIGHT
from bench.record.manifest import PlannedStep
from bench.report import markdown
from bench.report.reach import HEALTH, NAME, WEBSOCKET, of_the_way
from tests.runs import Behaviour, synthetic_run


def run_of(folder: Path, warmup: str = "requests", blocks: int = 4, **behaviours: Behaviour) -> Run:
    named = {name.replace("_", "-"): how for name, how in behaviours.items()}
    run = Run.open(synthetic_run(folder, named, blocks=blocks))
    planned = run.manifest.variants
    planned[:] = [replace(one, warmup=[PlannedStep(warmup)]) for one in planned]
    return run


@pytest.mark.parametrize(
    ("polling_ms", "holds"), [(480.0, "holds"), (180.0, "does not hold"), (450.0, "not shown"), (90.0, "does not hold")]
)
def test_a_websocket_saves_what_the_page_says_it_saves(tmp_path: Path, polling_ms: float, holds: str) -> None:
    """The page takes 150 ms over its WebSocket: 330, 30, about 300 and −60 ms less than by polling."""
    spread = 0.01 if polling_ms == 450.0 else 0.0
    page, polled = Behaviour(ttft=150.0), Behaviour(ttft=polling_ms, launch_sd=spread)
    (found,) = of_the_way(run_of(tmp_path, chat=page, chat_polling=polled))
    assert (found.claim, found.holds) == (WEBSOCKET, holds)
    if not spread:
        assert found.evidence.startswith(f"{polling_ms - 150:.0f}".replace("-", "−"))
    assert found.evidence.endswith("4 blocks")


def test_a_name_that_costs_nothing_is_told_so(tmp_path: Path) -> None:
    straight = Behaviour(ttft=50.0, launch_sd=0.002)
    (found,) = of_the_way(run_of(tmp_path, straight=straight, number=Behaviour(ttft=50.0, launch_sd=0.002)))
    assert (found.claim, found.holds) == (NAME, "does not hold")
    (slow,) = of_the_way(run_of(tmp_path / "slow", straight=Behaviour(ttft=75.0), number=Behaviour(ttft=50.0)))
    assert (slow.holds, slow.evidence.split(" ms")[0]) == ("holds", "25.0")


@pytest.mark.parametrize(("first_ms", "holds", "ratio"), [(800.0, "does not hold", "8.00"), (150.0, "holds", "1.50")])
def test_health_means_ready_if_the_first_answer_comes_like_later_ones(
    tmp_path: Path, first_ms: float, holds: str, ratio: str
) -> None:
    (found,) = of_the_way(run_of(tmp_path, warmup="none", cold=Behaviour(first=first_ms, ttft=100.0)))
    assert (found.claim, found.holds) == (HEALTH, holds)
    assert found.evidence.startswith(f"{ratio} times later ones")
    assert "4 launches without a warm-up" in found.evidence


def test_after_a_warm_up_or_from_a_parent_nothing_is_said_of_health(tmp_path: Path) -> None:
    assert of_the_way(run_of(tmp_path, cold=Behaviour())) == ()
    run = run_of(tmp_path / "forked", warmup="none", cold=Behaviour())
    run.manifest.variants[0] = replace(run.manifest.variants[0], start="forked")
    assert of_the_way(run) == ()


def test_one_block_and_one_side_show_nothing(tmp_path: Path) -> None:
    (found,) = of_the_way(run_of(tmp_path, blocks=1, chat=Behaviour(), chat_polling=Behaviour()))
    assert (found.holds, found.evidence) == ("not shown", "1 block with both: no noise to judge by")
    (cold,) = of_the_way(run_of(tmp_path / "cold", warmup="none", blocks=1, cold=Behaviour()))
    assert (cold.holds, cold.evidence) == ("not shown", "8.00 times later ones, 1 launch: no interval")
    assert of_the_way(run_of(tmp_path / "side", straight=Behaviour(), chat=Behaviour())) == ()


def test_a_failed_way_says_why(tmp_path: Path) -> None:
    down = Behaviour(status=dict.fromkeys(range(4), ("failed", "not_ready", "no page came")))
    (found,) = of_the_way(run_of(tmp_path, chat=Behaviour(), chat_polling=down))
    assert (found.holds, found.evidence) == ("not shown", "no page came")


def test_the_report_has_the_sentences(tmp_path: Path) -> None:
    assert {STRAIGHT, NUMBER, CHAT, POLLING} == {"straight", "number", "chat", "chat-polling"}
    run = run_of(
        tmp_path, straight=Behaviour(ttft=50.0), chat=Behaviour(ttft=150.0), chat_polling=Behaviour(ttft=480.0)
    )
    page = markdown.render([run])
    assert "What holds of the founding article" in page
    assert "330 ms sooner" in page
