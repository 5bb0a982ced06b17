"""Who answers, in each state of a hand-over, whoever dies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.run.switch import State, Switch


def begun(states: list[State] | None = None) -> Switch:
    switch = Switch(states.append) if states is not None else Switch()
    switch.serve("first")
    return switch


def test_new_requests_go_over_and_running_ones_end_where_they_began() -> None:
    states: list[State] = []
    switch = begun(states)
    assert switch.begin() == "first"
    switch.beside("second")
    assert switch.begin() == "first"
    switch.over()
    assert switch.begin() == "second"
    switch.end("first")
    assert switch.state == "draining"
    switch.end("first")
    assert states == ["both", "draining", "compiled"]
    assert switch.begin() == "second"


def test_nothing_drains_where_nothing_runs() -> None:
    states: list[State] = []
    switch = begun(states)
    switch.beside("second")
    switch.over()
    assert states == ["both", "compiled"]


def test_a_second_that_dies_leaves_the_first_serving() -> None:
    for draining in (False, True):
        switch = begun()
        switch.begin()
        switch.beside("second")
        if draining:
            switch.over()
        switch.gone("second")
        assert (switch.state, switch.begin()) == ("quick", "first")


def test_a_first_that_dies_beside_a_cold_second_leaves_nobody_until_that_is_warm() -> None:
    switch = begun()
    switch.beside("second")
    switch.gone("first")
    assert (switch.state, switch.begin()) == ("both", None)
    switch.over()
    assert (switch.state, switch.begin()) == ("compiled", "second")


def test_a_first_that_dies_while_it_drains_ends_the_hand_over() -> None:
    switch = begun()
    switch.begin()
    switch.beside("second")
    switch.over()
    switch.gone("first")
    switch.end("first")
    assert (switch.state, switch.begin()) == ("compiled", "second")


def test_one_that_takes_no_connection_is_passed_over_while_the_other_is_there() -> None:
    switch = begun()
    switch.begin()
    switch.beside("second")
    switch.over()
    assert switch.begin(frozenset({"second"})) == "first"
    assert switch.begin(frozenset({"second", "first"})) is None


def test_a_second_hand_over_starts_where_the_first_ended_and_not_before() -> None:
    switch = begun()
    switch.beside("second")
    with pytest.raises(ValueError, match="third cannot come"):
        switch.beside("third")
    switch.over()
    switch.beside("third")
    switch.gone("third")
    assert (switch.state, switch.begin()) == ("compiled", "second")
    with pytest.raises(ValueError, match="no engine"):
        switch.over()


@given(st.lists(st.sampled_from(["begin", "end", "beside", "over", "gone0", "gone1"]), max_size=40))
def test_whatever_happens_a_request_goes_to_one_that_lives_and_nobody_serves_only_where_nobody_can(
    steps: list[str],
) -> None:
    switch, living, warm, newest, open_ = begun(), {"first"}, {"first"}, 0, []
    for step in steps:
        if step == "begin":
            name = switch.begin()
            if name is not None:
                open_.append(name)
            # Only those that are warm and live may answer, and one of them does.
            assert name in living & warm if living & warm else name is None
        elif step == "end" and open_:
            switch.end(open_.pop(0))
        elif step == "beside" and switch.state not in ("both", "draining"):
            newest += 1
            switch.beside(f"engine {newest}")
            living.add(f"engine {newest}")
        elif step == "over" and switch.coming is not None:
            warm.add(switch.coming)
            switch.over()
        elif step.startswith("gone"):
            there = [one for one in (switch.serving, switch.coming, switch.leaving) if one is not None]
            if there:
                name = there[int(step[-1]) % len(there)]
                switch.gone(name)
                living.discard(name)
        # An engine that has drained is ended by whoever hears of it.
        living &= {switch.serving, switch.coming, switch.leaving}
        assert all(switch.running[name] == open_.count(name) for name in set(open_))
