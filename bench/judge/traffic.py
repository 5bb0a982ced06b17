"""Rules about the load and its answers: who asked, what came back, and how it was spread over time.

Those on the opening wave, on populations and on first tokens let go together warn and never make a launch invalid: what
they find is how the server behaved, and every figure has it inside.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from bench.analyse import steady, waves
from bench.analyse.pace import unobserved
from bench.judge.evidence import Evidence, Said, rule
from bench.phrases import counted

# An opening wave this many times as slow as what follows, or as fast, moves the tails.
OPENING = 1.25
# Populations whose prompts, or whose uncached parts, differ by this much are explained by it.
EXPLAINED = 1.5
CLIENT_CORE = 0.7
BUNCHED = 0.5


@rule(
    limit=f"the first request of each stream within {OPENING} times the TTFT of later ones",
    remedy="read the tails beside the opening wave, which the report shows apart; more requests, or an open load",
)
def opening_wave(e: Evidence) -> Said | None:
    """Every stream's first request left at once, into an engine that had drained."""
    arrivals = e.workload.get("arrivals")
    if not isinstance(arrivals, dict) or (arrivals.get("closed") or 1) < 2:
        return None
    seen = waves.opening(e.steady.to_pandas())
    if seen is None:
        return "unknown", "no request was answered after each stream's first"
    words = (
        f"TTFT p50 {seen.ttft_ms:.1f} ms in the first {seen.requests}, {seen.later_ms:.1f} ms in the {seen.later} later"
    )
    ratio = seen.ttft_ms / seen.later_ms if seen.later_ms > 0 else 1.0
    return ("ok" if 1 / OPENING < ratio < OPENING else "warning"), words


@rule(
    limit="TTFT has one peak, or what was to be computed explains two",
    remedy="look at the distribution and not at one figure: a queue, a stall, or a cache that only some requests met",
)
def one_population(e: Evidence) -> Said | None:
    """TTFT has two peaks: a median stands for one of them, and a mean for neither."""
    table = e.steady.to_pandas()
    found = waves.modes(table)
    if found is None:
        return None if len(waves.answered(table)) < 4 * waves.FEWEST else ("ok", "TTFT has one peak")
    words = (
        f"two populations: {found.fast} requests around {found.fast_ms:.1f} ms, {found.slow} around {found.slow_ms:.1f}"
    )
    if reason := _explained(waves.answered(table), found):
        return "ok", f"{words}; {reason}"
    return "warning", words


def _explained(seen: pd.DataFrame, found: waves.Modes) -> str | None:
    """Whether the slower ones simply had more to compute."""
    slow = seen["request_id"].isin(found.slow_ids)
    work = seen["prompt_tokens"].astype(float) - seen["cached_tokens"].astype(float).fillna(0.0)
    more, less = float(np.nanmedian(work[slow])), float(np.nanmedian(work[~slow]))
    if work.isna().any() or more < EXPLAINED * max(less, 1.0):
        return None
    return f"the slower ones had {more:.0f} uncached prompt tokens, the others {less:.0f}"


@rule(
    limit=f"first tokens within 1 ms as seldom as in all of {waves.DEALS} random deals",
    remedy="something stalls the server and lets go of several at once: look at what it does at that time",
)
def released_together(e: Evidence) -> Said | None:
    """First tokens of requests that left apart came in the same millisecond: something held them and let them go."""
    table = e.steady.to_pandas()
    if len(waves.answered(table)) < 2 * waves.FEWEST:
        return None
    found = waves.released(table)
    if found is None:
        return "ok", "first tokens came together no more often than by chance"
    return "warning", (
        f"{found.requests} first tokens came in {found.groups} groups within 1 ms, up to {found.largest} at once, from "
        f"requests that left apart ({found.pairs} pairs, by chance at most {found.chance}); "
        f"their TTFT p50 is {found.ttft_ms:.1f} ms"
    )


@rule(
    limit="TTFT neither drifts nor settles only past the middle",
    remedy="a cool-down, a lower power mode, a longer warm-up, or fewer neighbours",
)
def steadiness(e: Evidence) -> Said | None:
    """Answers that came later and later, or settled only past the middle: no median stands for such a launch."""
    seen = steady.of_requests(e.requests)
    if seen.kind == "too short":
        return None
    moved = seen.drift or seen.change or 0.0
    if seen.kind in ("slowdown", "not steady"):
        return "warning", f"{seen.kind}: TTFT changed by {moved:+.1%} over {counted(seen.n, 'request')}"
    return "ok", f"{seen.kind}: steady from request {(seen.first or 0) + 1} on of {seen.n}"


@rule(
    limit=f"dispatched within max(1 ms, 2 % of TTFT) at p99, ≤ {CLIENT_CORE} of a core",
    remedy="a lower rate or fewer streams; `bench selfcheck` shows what this client can carry here",
)
def client_saturation(e: Evidence) -> Said | None:
    """The load generator itself was the bottleneck."""
    if e.window is None:
        return None
    used = e.rate("tree", "harness_cpu_s")
    delays = e.steady["client_delay_ms"].drop_null().to_numpy()
    ttft = e.steady["ttft_ms"].drop_null().to_numpy()
    limit = max(1.0, 0.02 * float(np.median(ttft))) if len(ttft) else 1.0
    words, status = [], "ok"
    # In a closed loop a request is meant to be sent when it is sent; an open one shows a client that falls behind.
    if len(delays):
        late = float(np.quantile(delays, 0.99))
        words.append(f"dispatched {late:.2f} ms late at p99, limit {limit:.1f}")
        held = e.steady["cap_delay_ms"].drop_null().to_numpy()
        if len(held) and (most := float(held.max())) > limit:
            words.append(f"max_in_flight held requests back by up to {most:.0f} ms, which is not the client's delay")
        status = "violated" if late > limit else status
    if used is not None:
        words.append(f"harness used {used:.2f} of a core")
        status = "violated" if used > CLIENT_CORE else status
    if not words:
        return "unknown", "neither dispatch delays nor the harness's processor time were recorded"
    return ("violated" if status == "violated" else "ok"), "; ".join(words)


@rule(
    limit="every answer as long as asked for",
    remedy="an engine that honours ignore_eos and min_tokens, or `workload.ignore_eos: false`",
)
def tokens(e: Evidence) -> Said | None:
    """The server generated what was asked for."""
    if e.workload.get("ignore_eos", True) is not True:
        return None
    done = e.steady.filter(e.steady["ok"])
    if not len(done):
        return None
    given, asked = done["completion_tokens"], done["output_tokens_asked"]
    if given.null_count or asked.null_count:
        return "unknown", f"{given.null_count} of {len(done)} answers came without a count"
    wrong = int(pc.sum(pc.not_equal(given, asked)).as_py())
    if wrong:
        return "violated", f"{wrong} of {len(done)} answers have another length than asked for"
    return "ok", f"{len(done)} answers, all as long as asked for"


@rule(
    limit="every answer came token by token",
    remedy="no proxy that buffers; a smaller stream interval; `stream_options: {continuous_usage_stats: true}` where "
    "the server knows it",
)
def pace(e: Evidence) -> Said | None:
    """The answers came token by token, so that their pace could be seen."""
    done = e.steady.filter(e.steady["ok"])
    if not len(done):
        return None
    words = [f"{n} of {len(done)}: {why}" for why, n in unobserved(done["pace_reason"].to_pylist()).items()]
    # The end of a stream comes in up to three events more, often with the last token's read.
    chunks = done["chunks"].to_numpy()
    bunched = int(np.sum((chunks > 1) & (done["coalesced"].to_numpy() - 3 > BUNCHED * chunks)))
    if bunched:
        words.append(f"{bunched} of {len(done)} came in bunches: gaps between their tokens are those of the way here")
    return ("warning", "; ".join(words)) if words else ("ok", f"{len(done)} answers, token by token")


@rule(limit="no count contradicts what was seen", remedy="a server or proxy that counts its tokens right")
def counts(e: Evidence) -> Said | None:
    """What the server counted can be true beside what was seen."""
    done = e.steady.filter(e.steady["ok"])
    wrong = Counter(reason for reason in done["count_reason"].to_pylist() if reason)
    if not len(done):
        return None
    if not wrong:
        return "ok", "no count contradicts what was seen"
    return "warning", "; ".join(f"{n} of {len(done)}: {why}" for why, n in wrong.most_common(3))


@rule(limit="no failed request", remedy="engine.log of the launch has the reason")
def failed_requests(e: Evidence) -> Said | None:
    """A request that fails is a result, and not one of latency."""
    if not len(e.steady):
        return None
    bad = Counter(kind for kind in e.steady["error_kind"].to_pylist() if kind is not None)
    if bad:
        return "violated", ", ".join(f"{n} × {kind}" for kind, n in bad.most_common())
    return "ok", f"all {len(e.steady)} succeeded"


@rule(
    limit="≤ 5 % of prompt tokens from a cache beyond a declared shared prefix",
    remedy="`enable_prefix_caching: false` among the engine's args, or `workload.unique: true`",
)
def cache_contamination(e: Evidence) -> Said | None:
    """Prompts that were to be new and were found in a prefix cache."""
    if e.workload.get("unique", True) is not True:
        return None
    done = e.steady.filter(e.steady["ok"])
    cached, prompt = pc.sum(done["cached_tokens"]).as_py(), pc.sum(done["prompt_tokens"]).as_py()
    source = "the server counted"
    if cached is None:
        cached, prompt = e.growth("engine", "prefix_hits"), e.growth("engine", "prefix_queries")
        source = "the engine's metrics count"
    if cached is None or not prompt:
        return "unknown", "the server does not say how many prompt tokens were cached"
    words = f"{source} {cached:.0f} of {prompt:.0f} prompt tokens cached ({cached / prompt:.1%})"
    if shared := _shared_prefix(e) * len(done):
        words += f", of {shared} that the scenario's shared prefix makes alike"
    # What prompts were declared to have in common may come from a cache; anything beyond it was to be new.
    beyond = max(0.0, cached - shared)
    return ("violated" if beyond / prompt > 0.05 else "warning" if beyond else "ok"), words


def _shared_prefix(e: Evidence) -> int:
    """Tokens that the scenario has prompts begin with alike."""
    prompts = e.workload.get("prompts")
    shared = prompts.get("shared_prefix") if isinstance(prompts, dict) else None
    tokens = shared.get("tokens") if isinstance(shared, dict) else None
    return tokens if isinstance(tokens, int) else 0


@rule(
    limit="client − server ≤ max(5 ms, 20 %)",
    remedy="time goes between engine and client: a proxy, the HTTP front-end, or a busy event loop",
)
def server_agrees(e: Evidence) -> Said | None:
    """The server's own mean TTFT against ours: its clock starts later and stops earlier, by milliseconds."""
    total, count = e.growth("engine", "ttft_sum_s"), e.growth("engine", "ttft_count")
    # What the way to a client elsewhere takes is nobody's disagreement.
    column = "ttft_near_ms" if e.record.client.remotes else "ttft_ms"
    ours = e.steady.filter(e.steady["ok"])[column].drop_null().to_numpy()
    if total is None or not count or not len(ours):
        return None
    # The pages around the window may hold a request more: only means of about as many can be compared.
    if abs(count - len(ours)) > max(2, 0.2 * len(ours)):
        return "unknown", f"its page counts {counted(round(count), 'request')} in the window, the client {len(ours)}"
    server, client = 1000 * total / count, float(ours.mean())
    words = f"server {server:.1f} ms, client {client:.1f} ms on the mean"
    apart = client - server
    return ("warning" if apart > max(5.0, 0.2 * client) or apart < -max(1.0, 0.05 * client) else "ok"), words
