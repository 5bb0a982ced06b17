"""Numbers as people read them: as many digits as they carry, the same in a whole column, a dash for null.

A result's change, interval and margin have two typographies: plain for terminals and CI (`-5.0%`), and that of a page
(`−5.0 %`, `×3.2`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from bench.judge.result import Result, amount
from bench.phrases import numbered

NULL = "–"
_THIN, _TO = "\u202f", "\u00a0to\u00a0"


def decimals(values: Iterable[float | None], significant: int = 3) -> int:
    """How many decimals show the typical value of a column with that many significant digits; at most 4."""
    sizes = sorted(abs(value) for value in values if value is not None and math.isfinite(value) and value != 0)
    if not sizes:
        return 0
    return min(4, max(0, significant - 1 - math.floor(math.log10(sizes[len(sizes) // 2]))))


def number(value: float | None, places: int | None = None) -> str:
    """The value with grouped thousands and a real minus; a dash for null and for what is not finite."""
    if value is None or not math.isfinite(value):
        return NULL
    text = f"{value:,.{decimals([value]) if places is None else places}f}"
    if not text.strip("-0.,"):
        # Rounded to nothing: zero has no sign.
        text = text.removeprefix("-")
    return text.replace(",", _THIN).replace("-", "−")


def quantity(value: float | None, unit: str, places: int | None = None) -> str:
    """A number with its unit; ratios without one are percentages."""
    if value is None or not math.isfinite(value):
        return NULL
    if unit == "":
        return f"{number(100 * value, 1 if places is None else places)} %"
    if unit == "ms" and abs(value) >= 10_000 and places is None:
        return quantity(value / 1000, "s")
    return f"{number(value, places)} {unit}"


def interval(low: float | None, high: float | None, places: int | None = None) -> str:
    """Two ends as `low–high`; nothing at all where there is no interval."""
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    places = decimals([low, high]) if places is None else places
    # A dash beside a minus would be read as another minus.
    return f"{number(low, places)}{_TO if low < 0 else '–'}{number(high, places)}"


def change(ratio: float | None) -> str:
    """A ratio as a change: +38.7 %; as a multiple from threefold on."""
    if ratio is None or not math.isfinite(ratio):
        return NULL
    return f"×{number(ratio)}" if ratio >= 3 else f"{100 * (ratio - 1):+.1f}\u00a0%".replace("-", "−")


def changes(bounds: tuple[float, float] | None) -> str:
    """The interval of a ratio as changes; one of more is not in percent on one end and a multiple on the other."""
    if bounds is None:
        return ""
    low, high = bounds
    first = f"×{number(low)}" if 1 < low < 3 <= high else change(low)
    return f"{first}{_TO}{change(high)}"


def moved(result: Result, *, page: bool = False) -> str:
    """A result's change: of the ratio from one, or of a share in points."""
    if result.shift is not None:
        return _set(amount(result, result.shift, "+"), page=page)
    if page:
        return change(result.ratio)
    return "" if result.ratio is None else amount(result, result.ratio - 1, "+")


def span(result: Result, *, page: bool = False) -> str:
    """The interval of a result's change; nothing where there is none."""
    if result.shifts is None and page:
        return changes(result.bounds)
    ends = result.shifts or [end - 1 for end in result.bounds or ()]
    return (" to " if page else " … ").join(_set(amount(result, end, "+"), page=page) for end in ends)


def allowed(margin: float | None, *, points: bool = False, page: bool = False) -> str:
    """A relative margin; `points` where it is of a share's difference, and plain figures beyond 100 %."""
    if margin is None:
        return NULL if page else ""
    if margin > 1:
        return number(margin) if page else f"{margin:.3g}"
    if page:
        return f"{100 * margin:g} {'points' if points else '%'}"
    return f"{100 * margin:.1f} points" if points else f"{margin:.1%}"


def detectable(result: Result, *, page: bool = False) -> str:
    """The change that these data would have found with 80 %; nothing known is a dash on a page."""
    if result.mde is None:
        return NULL if page else ""
    if result.metric.by_difference:
        return amount(result, result.mde)
    return f"{100 * result.mde:.1f} %" if page else f"{result.mde:.0%}"


def _set(text: str, *, page: bool) -> str:
    return text.replace("-", "−") if page else text


def duration(seconds: float | None) -> str:
    """Seconds in the unit that suits: 850 ms, 12.1 s, 4 min 10 s, 2 h 5 min."""
    if seconds is None or not math.isfinite(seconds):
        return NULL
    if seconds < 1:
        return f"{number(1000 * seconds)} ms"
    if seconds < 120:
        return f"{number(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def count(amount: int, noun: str) -> str:
    """`1 launch`, `3 launches`, `1 200 requests`."""
    return f"{number(amount, 0)} {numbered(amount, noun)}"
