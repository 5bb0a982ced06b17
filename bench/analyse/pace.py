"""The pace of an answer after its first token (TPOT), and why there is none where it could not be observed.

docs/metrics.md, "Pace", says the same in words.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Values = npt.NDArray[np.float64]

# Below this many ms a token (10 000 tokens/s in one stream) the answer was not computed while it was sent: it had been
# held back, by the engine or on the way, and was let go at once.
FASTEST_MS = 0.1
# A burst takes the time of its writing: where it is this small a share of the wait before it, this pace is none either.
_BURST_MS, _BURST_SHARE = 0.3, 0.01
# Taking one token out of N for the first event may put the pace wrong by this share before it is given up.
_WRONG = 0.1

ONE_TOKEN = "one token has no pace"
NO_COUNT = "the server did not say how many tokens"
ONE_PIECE = "the answer came in one piece"
FIRST_EVENT = "the first event brought several tokens, uncounted"
TOOL_CALL = "the answer is a tool call"


def with_pace(requests: pa.Table) -> pa.Table:
    """The requests with `tpot_ms`, (t_last − t_tok)/(N − the first event's tokens), and `pace_reason` where it is null.

    The first event counts as one token unless the server says otherwise; where its share of the text says that this is
    wrong by more than a tenth, there is no pace.
    """
    n = _floats(requests, "completion_tokens")
    said, share, chunks = (_floats(requests, name) for name in ("first_tokens", "first_share", "chunks"))
    first = np.where(np.isnan(said), 1.0, said)
    wait = _span_ms(requests, "sent_ns", "first_token_ns")
    decode = _span_ms(requests, "first_token_ns", "last_token_ns")
    with np.errstate(divide="ignore", invalid="ignore"):
        pace = decode / (n - first)
        burst = (pace < _BURST_MS) & (decode < _BURST_SHARE * wait)
        likely = np.clip(share * n, 1.0, n - chunks + 1.0)
        misled = np.isnan(said) & (chunks < n - 1) & ((n - 1.0) > (1.0 + _WRONG) * (n - likely))
    many = (n > 1) | (np.isnan(n) & (chunks > 1))
    # The first that holds is the reason.
    conditions = {
        TOOL_CALL: np.isnan(decode),
        ONE_TOKEN: n <= 1,
        ONE_PIECE: many & ((chunks <= 1) | (decode <= 0) | (first >= n) | (pace < FASTEST_MS) | burst),
        NO_COUNT: np.isnan(n),
        FIRST_EVENT: misled,
    }
    names = [*conditions, None]
    which = np.argmax([*conditions.values(), np.ones(len(n), dtype=bool)], axis=0) if len(n) else np.empty(0, int)
    pace = np.where(which == len(conditions), pace, np.nan)
    requests = requests.append_column("tpot_ms", pa.array(pace, pa.float64(), from_pandas=True))
    return requests.append_column("pace_reason", pa.array([names[place] for place in which], pa.string()))


def unobserved(reasons: Iterable[str | None]) -> dict[str, int]:
    """How many requests have no pace, by reason, most frequent first; a single token needs none."""
    counts = Counter(reason for reason in reasons if reason is not None and reason != ONE_TOKEN)
    return dict(counts.most_common())


@dataclass(slots=True)
class Gaps:
    """What the steady, successful answers of some launches do not tell: answers in all, and how many lack what, why."""

    answers: int = 0
    pace: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)

    def add(self, requests: pa.Table) -> None:
        """The steady, successful ones of a launch's requests."""
        steady = requests.filter(pc.and_(requests["measured"], requests["ok"]))
        self.answers += len(steady)
        self.pace.update(unobserved(steady["pace_reason"].to_pylist()))
        self.counts.update(reason for reason in steady["count_reason"].to_pylist() if reason)

    @property
    def uncounted(self) -> str | None:
        """The commonest of the reasons for a missing count, with how often there is one."""
        return _commonest(self.counts, self.answers)

    @property
    def unpaced(self) -> str | None:
        """The same for the pace."""
        return _commonest(self.pace, self.answers)


def _commonest(reasons: Counter[str], answers: int) -> str | None:
    return f"{reasons.most_common(1)[0][0]} ({reasons.total()} of {answers} answers)" if reasons else None


def _floats(requests: pa.Table, name: str) -> Values:
    return np.asarray(requests[name].cast(pa.float64()).to_numpy(), dtype=np.float64)


def _span_ms(requests: pa.Table, begin: str, end: str) -> Values:
    """Stamps are subtracted as integers: they need more digits than a float has."""
    return np.asarray(pc.cast(pc.subtract(requests[end], requests[begin]), pa.float64()).to_numpy() / 1e6)
