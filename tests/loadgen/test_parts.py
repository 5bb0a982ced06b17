"""A load dealt out to several hosts is the same load."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.loadgen.job import Job, schedule
from bench.loadgen.parts import shares
from bench.scenario.model import Arrivals
from tests.loadgen.jobs import job


@pytest.mark.parametrize("hosts", [1, 2, 3, 4, 16])
@pytest.mark.parametrize("arrivals", [Arrivals(rate=100.0), Arrivals(poisson=50.0)])
def test_an_open_load_arrives_as_from_one_host(hosts: int, arrivals: Arrivals) -> None:
    whole = job(1, 37, arrivals=arrivals, seed=5)
    due = schedule(arrivals, whole.requests, 5).offsets_ns
    seen = {}
    for share in shares(whole, hosts):
        assert len(share.plan.offsets_ns) == len(share.job.requests)
        for request, offset in zip(share.job.requests, share.plan.offsets_ns, strict=True):
            assert request.request_id % hosts == share.number
            seen[request.request_id] = offset
    assert seen == dict(enumerate(due))


def test_many_requests_from_sixteen_hosts_are_due_when_they_are_from_one() -> None:
    # A million of them: tests/benchmarks/test_fleet_scale.py.
    whole = job(1, 1)
    many = replace(whole, requests=tuple(replace(whole.requests[0], request_id=n) for n in range(16_000)))
    many = replace(many, arrivals=Arrivals(poisson=10_000.0), seed=3)
    dealt = shares(many, 16)
    due = schedule(many.arrivals, many.requests, 3).offsets_ns
    assert [len(share.job.requests) for share in dealt] == [1_000] * 16
    assert all(share.plan.offsets_ns == due[share.number :: 16] for share in dealt)


def test_closed_streams_are_shared_and_so_are_the_conversations_of_each() -> None:
    dealt = shares(job(1, 20, arrivals=Arrivals(closed=5)), 2)
    assert [share.plan.streams for share in dealt] == [3, 2]
    ids = [[request.request_id for request in share.job.requests] for share in dealt]
    # Streams 0, 2 and 4 are the first host's.
    assert ids == [[n for n in range(20) if n % 5 in (0, 2, 4)], [n for n in range(20) if n % 5 in (1, 3)]]


def test_a_conversation_stays_where_it_began() -> None:
    whole = job(1, 6, chat=True, arrivals=Arrivals(rate=10.0))
    turned = tuple(
        replace(request, after=request.request_id - 2 if request.request_id >= 2 else None)
        for request in whole.requests
    )
    ids = [[request.request_id for request in share.job.requests] for share in shares(_of(whole, turned), 2)]
    assert ids == [[0, 2, 4], [1, 3, 5]]


def test_who_has_nothing_to_send_is_left_out() -> None:
    assert [share.number for share in shares(job(1, 2, arrivals=Arrivals(rate=1.0)), 4)] == [0, 1]


def _of(whole: Job, requests: tuple[object, ...]) -> Job:
    return replace(whole, requests=requests)  # type: ignore[arg-type]
