"""Rules about clients on other hosts: the way to them, their clocks, and whether each of them kept up."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bench.analyse import way
from bench.analyse.estimate import quantile
from bench.judge.evidence import Evidence, Said, rule
from bench.judge.traffic import CLIENT_CORE
from bench.phrases import counted
from bench.record.launches import RemoteClient
from bench.record.schema import CheckStatus

STEADY_MS, STEADY_SHARE = 0.5, 0.1
LOST_SHARE = 0.01
QUICK, FEWEST = 0.25, 5
CLOCK_MS, COLD_SHARE, GAP_SHARE = 1.0, 0.05, 0.1
STALL_MS = 1000.0
LATE_MS, LATE_SHARE = 1.0, 0.02


@rule(
    limit=f"round trip at p99, and under load, within max({STEADY_MS} ms, {STEADY_SHARE:.0%} of TTFT) of its median at "
    f"rest; ≤ {LOST_SHARE:.0%} of packets sent again",
    remedy="a cable instead of radio, a link that nobody else uses, shorter answers, or the client on this machine",
)
def link(e: Evidence) -> Said | None:
    """The way between client and engine took of the figures more than can be taken off again."""
    remotes = e.record.client.remotes
    if not remotes:
        return None
    return _worst(_link(e, number, remote) for number, remote in enumerate(remotes))


def _link(e: Evidence, number: int, remote: RemoteClient) -> Said:
    trips, mine = way.round_trips_ms(remote), _of(e, number)
    rest = quantile(trips, 0.5).value
    if rest is None or remote.before is None:
        return "unknown", f"{remote.host}: the way was not timed"
    ttft = mine["ttft_ms"].drop_null().to_numpy()
    limit = max(STEADY_MS, STEADY_SHARE * float(np.median(ttft))) if len(ttft) else STEADY_MS
    words, status = [f"{remote.host}: round trip {rest:.2f} ms"], "ok"
    if (tail := float(np.quantile(trips, 0.99)) - rest) > limit:
        words.append(f"at p99 {tail:.2f} ms more, limit {limit:.2f}")
        status = "violated"
    before, during = way.echoes_ms(remote, e.window)
    if len(before) >= FEWEST and len(during) >= FEWEST:
        # What waits in a queue makes the quick ones slow as well; a busy processor only the slow ones slower.
        longer = float(np.quantile(during, QUICK) - np.quantile(before, QUICK))
        words.append(f"{longer:+.2f} ms under load")
        if longer > limit:
            words.append(f"limit {limit:.2f}: the link was the bottleneck")
            status = "violated"
    lost = remote.before.lost + (remote.after.lost if remote.after else 0)
    if lost > LOST_SHARE * (lost + len(trips)):
        words.append(f"{lost} of {counted(lost + len(trips), 'handshake')} lost a packet")
        status = "violated"
    if remote.resent and remote.resent > max(1.0, LOST_SHARE * len(mine)):
        words.append(f"{counted(remote.resent, 'packet')} sent again over {counted(len(mine), 'request')}")
        status = "violated"
    if remote.after is None:
        words.append("not timed again afterwards")
        status = "warning" if status == "ok" else status
    return _status(status), ", ".join(words)


@rule(
    limit=f"known to max({CLOCK_MS:g} ms, {COLD_SHARE:.0%} of cold TTFT); for several hosts of an open load to "
    f"max({CLOCK_MS:g} ms, {GAP_SHARE:.0%} of the gap between arrivals)",
    remedy="a shorter way to the client's host, chrony on both; or leave `startup` out of `measure`: what a request "
    "takes needs no common clock",
)
def client_clock(e: Evidence) -> Said | None:
    """Stamps of another host stand beside ours: whether its clock is known well enough for what needs it."""
    remotes = e.record.client.remotes
    if not remotes:
        return None
    known = [(way.doubt_ms(remote), remote.host) for remote in remotes]
    doubts = [(doubt, host) for doubt, host in known if doubt is not None]
    if not doubts:
        return "unknown", "no clock was compared"
    doubt, host = max(doubts)
    words = f"{host}'s clock is known to ± {doubt:.2f} ms"
    gap = _gap_ms(e)
    if len(doubts) > 1 and gap is not None and doubt > (limit := max(CLOCK_MS, GAP_SHARE * gap)):
        return "violated", f"{words}: arrivals of {len(doubts)} hosts are {gap:.1f} ms apart, limit {limit:.2f}"
    stamps = e.record.stamps
    spawn, first = stamps.get("spawn"), stamps.get("first_token")
    if spawn is not None and first is not None:
        cold = (first - spawn) / 1e6
        if doubt > (limit := max(CLOCK_MS, COLD_SHARE * cold)):
            asked = e.scenario.get("measure")
            needs = asked is None or (isinstance(asked, list) and "startup" in asked)
            return ("violated" if needs else "warning"), f"{words}, of a cold TTFT of {cold:.0f} ms; limit {limit:.2f}"
    return "ok", words


@rule(
    limit=f"none stopped or silent for {STALL_MS / 1000:g} s; each dispatched within max({LATE_MS:g} ms, "
    f"{LATE_SHARE:.0%} of TTFT) at p99 and used ≤ {CLIENT_CORE} of a core",
    remedy="a quiet host with a free core; `bench selfcheck --client HOST` shows what it can carry",
)
def client_hosts(e: Evidence) -> Said | None:
    """Each of the hosts did its share, in time."""
    remotes = e.record.client.remotes
    if not remotes:
        return None
    return _worst(_host(e, number, remote) for number, remote in enumerate(remotes))


def _host(e: Evidence, number: int, remote: RemoteClient) -> Said:
    mine = _of(e, number)
    words: list[str] = []
    wrong: list[str] = []
    delays = mine["client_delay_ms"].drop_null().to_numpy()
    ttft = mine["ttft_ms"].drop_null().to_numpy()
    if len(delays):
        limit = max(LATE_MS, LATE_SHARE * float(np.median(ttft))) if len(ttft) else LATE_MS
        late = float(np.quantile(delays, 0.99))
        (wrong if late > limit else words).append(f"dispatched {late:.2f} ms late at p99, limit {limit:.1f}")
    if remote.cpu_s is not None and remote.wall_s:
        used = remote.cpu_s / remote.wall_s
        (wrong if used > CLIENT_CORE else words).append(f"{used:.2f} of a core")
    _, during = way.echoes_ms(remote, e.window)
    if len(during) and (silent := float(during.max())) > STALL_MS:
        wrong.append(f"silent for {silent / 1000:.1f} s")
    if remote.stopped:
        wrong.append("its load generator was stopped")
    if wrong:
        return "violated", f"{remote.host}: {', '.join(wrong)}"
    if remote.stopped is None:
        return "unknown", f"{remote.host} gave no account at the end"
    return "ok", f"{remote.host}: {', '.join([counted(len(mine), 'request'), *words])}"


def _of(e: Evidence, number: int) -> pa.Table:
    """The steady requests of one host."""
    return e.steady.filter(pc.fill_null(pc.equal(e.steady["client"], number), False))


def _gap_ms(e: Evidence) -> float | None:
    """From one arrival of an open load to the next, on the mean; None for a closed one."""
    arrivals = e.workload.get("arrivals")
    due = e.steady["intended_ns"].to_numpy()
    if not isinstance(arrivals, dict) or arrivals.get("closed") is not None or len(due) < 2:
        return None
    return float(due.max() - due.min()) / (len(due) - 1) / 1e6


def _worst(said: Iterator[Said]) -> Said:
    """Of several hosts: the gravest status, and the words of all that have it."""
    all_of_them = list(said)
    status = max((one for one, _ in all_of_them), key=("ok", "unknown", "warning", "violated").index)
    return status, "; ".join(words for one, words in all_of_them if one == status)


def _status(word: str) -> CheckStatus:
    return "violated" if word == "violated" else "warning" if word == "warning" else "ok"
