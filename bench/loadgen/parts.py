"""One load from several hosts: who sends what, by the request's place, so that it arrives as it would from one."""

from __future__ import annotations

from dataclasses import dataclass, replace

from bench.loadgen.job import Job, Request, Schedule, schedule


@dataclass(frozen=True, slots=True)
class Part:
    """What one host does of a job; its place among the hosts is `number`."""

    number: int
    job: Job
    plan: Schedule


def shares(job: Job, hosts: int) -> list[Part]:
    """The job dealt out in turn, conversation by conversation; who gets nothing is left out.

    An open load's times are drawn once for all and dealt out with the requests. Of a closed one each host has every
    `hosts`-th stream, and each stream the conversations that are its by turns: none takes over what another is late
    with. An open load with a cap cannot be dealt out, for who is next depends on answers elsewhere.
    """
    plan = schedule(job.arrivals, job.requests, job.seed)
    owners: dict[int, int] = {}
    mine: list[list[Request]] = [[] for _ in range(hosts)]
    times: list[list[int]] = [[] for _ in range(hosts)]
    begun = 0
    for request in job.requests:
        if request.after is None:
            owner = (begun if plan.streams is None else begun % plan.streams) % hosts
            if plan.streams is None:
                times[owner].append(plan.offsets_ns[begun])
            begun += 1
        else:
            owner = owners[request.after]
        owners[request.request_id] = owner
        mine[owner].append(request)
    return [
        Part(number, replace(job, requests=tuple(mine[number])), _plan(plan, number, hosts, tuple(times[number])))
        for number in range(hosts)
        if mine[number]
    ]


def _plan(whole: Schedule, number: int, hosts: int, offsets_ns: tuple[int, ...]) -> Schedule:
    if whole.streams is None:
        return replace(whole, offsets_ns=offsets_ns)
    return replace(whole, streams=len(range(number, whole.streams, hosts)))
