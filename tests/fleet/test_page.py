"""A fleet run's page, sessions of its boards, and what five hundred would cost."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from bench.errors import UsageError
from bench.fleet import ledger, page, scale, sessions
from bench.fleet.ledger import Account, Fate, Ledger, Member
from bench.judge import baseline
from tests.fleet.test_order import order
from tests.runs import Behaviour, synthetic_run


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Ledger]:
    """Six boards: TTFT of 100 ms and 5 % between boards put in, the second variant a tenth slower on each; one board in
    another power mode is half as fast, one never came back."""
    folder = tmp_path_factory.mktemp("fleet")
    draw = np.random.default_rng(4)
    members = []
    for number in range(1, 7):
        alias = f"orin-{number}"
        level = 100 * math.exp(draw.normal(0, 0.05)) * (2 if number == 6 else 1)
        variants = {"a": Behaviour(ttft=level, launch_sd=0.01), "b": Behaviour(ttft=1.1 * level, launch_sd=0.01)}
        run = synthetic_run(folder / "boards" / alias, variants, scenario="tiny", blocks=4, requests=4, seed=number)
        manifest = json.loads((run / "manifest.json").read_text())
        manifest["fingerprint"] = {
            "host_class": "jetson-orin-nx-16gb",
            "jetson": {"part": "p3767", "power_mode": "15W" if number == 6 else "MAXN", "l4t": "36.4"},
        }
        (run / "manifest.json").write_text(json.dumps(manifest))
        members.append(
            Member(
                *(alias, "finished", None, "jetson-orin-nx-16gb", -420.0 if number == 2 else 0.0),
                outcomes=[Fate("tiny", "d", 0, f"tiny/{run.name}", 8, 8, 0)],
                size_bytes=200_000,
                began="2026-01-01T10:00:00+00:00",
                ended="2026-01-01T10:10:00+00:00",
            )
        )
    members.append(Member("orin-7", "lost", "no answer; its run goes on by itself"))
    accounts = [Account("look", 7, 14.0, 140.0), Account("fetch", 6, 6.0, None)]
    found = Ledger("shelf", "job-1", ledger.now(), {"tiny": "d"}, members, 7, 5, 7, accounts=accounts)
    ledger.save(folder, found)
    return folder, found


def test_each_board_has_its_row_and_nothing_is_pooled(fleet: tuple[Path, Ledger], tmp_path: Path) -> None:
    text = page.write(*fleet, tmp_path).read_text()

    assert "6 of 7 boards finished." in text
    for number in range(1, 8):
        assert f"orin-{number}" in text
    assert "no answer; its run goes on by itself" in text


def test_the_spread_between_boards_is_the_one_that_was_put_in(fleet: tuple[Path, Ledger]) -> None:
    found = page.shelf_of(*fleet)
    del found.runs["tiny"]["orin-6"]  # type: ignore[attr-defined]
    between = found.spread("tiny", "a", "ttft.p50").between

    assert between.low is not None
    assert between.high is not None
    assert between.low < 0.05 < between.high


def test_the_board_that_stands_apart_is_named_with_the_line_in_which_it_differs(
    fleet: tuple[Path, Ledger], tmp_path: Path
) -> None:
    text = page.write(*fleet, tmp_path).read_text()

    assert "orin-6 stands apart: TTFT p50 of a is" in text
    assert "It differs from the others in jetson.power_mode." in text
    assert "orin-6: 15W" in text


def test_a_clock_that_is_off_is_told(fleet: tuple[Path, Ledger], tmp_path: Path) -> None:
    assert "The clock of orin-2 is 7.0 min behind." in page.write(*fleet, tmp_path).read_text()


def test_variants_are_paired_within_each_board(fleet: tuple[Path, Ledger], tmp_path: Path) -> None:
    """The boards differ by far more than the variants; within each board the difference is a tenth all the same."""
    text = page.write(*fleet, tmp_path).read_text()
    part = text[text.rindex("against a, within each board") :]
    first = part[part.index("TTFT p50") :]

    change = float(first[first.index("+") + 1 :].split("\u00a0")[0])
    assert change == pytest.approx(10, abs=1.5)


def test_each_board_has_a_baseline_of_its_own_and_the_class_one_of_all(
    fleet: tuple[Path, Ledger], tmp_path: Path
) -> None:
    said = list(sessions.add(*fleet, tmp_path))
    own = baseline.load(tmp_path / "boards" / "orin-1" / "jetson-orin-nx-16gb" / "tiny--a.json")
    together = baseline.load(tmp_path / "jetson-orin-nx-16gb" / "tiny--a.json")

    assert len(own.sessions) == 1
    # Runs of one second have one name here, so that the class takes one of them; the sixth is in another power mode.
    assert together.sessions[0].values["ttft.p50"] == pytest.approx(own.sessions[0].values["ttft.p50"])
    assert any("orin-6: not added" in line and "does not belong" in line for line in said)


def test_five_hundred_boards_are_reckoned_from_what_was_measured(fleet: tuple[Path, Ledger], tmp_path: Path) -> None:
    wanted = order(tmp_path, "fleet: shelf\ninventory: hosts.ini\nscenarios: [tiny.yaml]\nserial: 50\n")
    found = scale.expect(fleet[1], wanted, 500)

    assert (found.boards, found.batches, found.measured_boards) == (500, 10, 6)
    assert found.bytes_here == 500 * 200_000
    assert found.minutes_measuring == 10 * 10
    # Two seconds a look and one a fetch, for each board, beside ten batches of ten minutes.
    assert found.minutes == pytest.approx(100 + 500 * 3 / 60)
    assert found.controller_mib == pytest.approx(140 / 7 * 50)


def test_nothing_is_reckoned_where_no_board_has_finished(tmp_path: Path) -> None:
    wanted = order(tmp_path, "fleet: shelf\ninventory: hosts.ini\nscenarios: [tiny.yaml]\n")
    empty = Ledger("shelf", "j", ledger.now(), {}, [Member("a")], 1, 1, 1)

    with pytest.raises(UsageError, match="nothing to reckon from"):
        scale.expect(empty, wanted, 500)


def test_the_example_of_the_documentation_is_right() -> None:
    from bench.fleet.order import Order

    assert Order.load(Path("docs/shelf/fleet.yaml")).model.classes == ["jetson-orin-nx"]
