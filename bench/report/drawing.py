"""Matplotlib figures as inline SVG that follows the page: its fonts, its colours in light and dark, its width."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure as Drawing

from bench.report import elements
from bench.report.view import COLOURS

# Stands before every id of a drawing; the page puts its own name space there.
SPACE = "@@"
WIDE, NARROW = 900, 360

# Stand-ins that matplotlib can draw with; in the page they become CSS variables.
INK, MUTED, GRID, PAPER, BAD = "#010101", "#020202", "#030303", "#040404", "#050505"
PHASE = tuple(f"#0606{index:02x}" for index in range(6))
_VARIANT = tuple(f"#0707{index:02x}" for index in range(COLOURS))
_VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    GRID: "grid",
    PAPER: "paper",
    BAD: "bad",
    **{colour: f"p{index}" for index, colour in enumerate(PHASE)},
    **{colour: f"v{index}" for index, colour in enumerate(_VARIANT)},
}
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "d")

# Typed loosely: the stubs of some matplotlib versions list every key.
_STYLE: Any = {
    "svg.fonttype": "none",
    # Names are shown as they are, also with a dollar sign.
    "text.parse_math": False,
    "font.size": 12,
    "font.family": "DejaVu Sans",
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.titlesize": 12,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 11.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "lines.linewidth": 1.8,
    "text.color": INK,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "xtick.labelsize": 11.5,
    "ytick.labelsize": 11.5,
    "legend.frameon": False,
    "legend.fontsize": 11.5,
    "path.simplify": True,
}

# Paints a figure of a width in pixels.
Paint = Callable[[Drawing, int], None]


def colour(index: int) -> str:
    """The stand-in for a variant's colour."""
    return _VARIANT[index % COLOURS]


def figure(paint: Paint, heights: tuple[int, int], caption: str, alt: str) -> elements.Figure:
    """A figure painted twice, for a wide and for a narrow page; heights in pixels."""
    wide, narrow = (partial(_svg, paint, *size) for size in zip((WIDE, NARROW), heights, strict=True))
    return elements.Figure(wide, narrow, caption, alt)


def edge_marks(axes: Axes, places: npt.ArrayLike, height: float) -> None:
    """Crosses at places along the axis, at a height from 0 (lower edge) to 1 (upper edge)."""
    heights = np.full(np.size(places), height)
    (marks,) = axes.plot(places, heights, "x", color=BAD, transform=axes.get_xaxis_transform(), clip_on=False)
    # Their axes-relative height confuses the layout, which needs no room for them.
    marks.set_in_layout(False)


def milliseconds(axes: Axes, along: str = "x") -> None:
    """Label a logarithmic axis with plain numbers instead of powers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axis = axes.xaxis if along == "x" else axes.yaxis
    low, high = axis.get_view_interval()
    wide = high / max(low, 1e-9) > 30
    axis.set_major_locator(
        LogLocator(subs=(1.0,) if high / max(low, 1e-9) > 3000 else (1.0, 3.0) if wide else (1, 2, 5))
    )
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}".replace(",", "\u202f")))
    axis.set_minor_locator(NullLocator())


def _svg(paint: Paint, width: int, height: int) -> str:
    with mpl.rc_context(_STYLE | {"svg.hashsalt": "firsttoken"}):
        # One point is one pixel of the page's narrowest rendering.
        drawing = Drawing(figsize=(width / 72, height / 72), dpi=72, layout="constrained")
        FigureCanvasSVG(drawing)
        paint(drawing, width)
        # Laid out once and by hand: left to itself, savefig would draw the whole figure a second time for it.
        if (layout := drawing.get_layout_engine()) is not None:
            layout.execute(drawing)
            drawing.set_layout_engine("none")
        buffer = io.StringIO()
        drawing.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return themed(buffer.getvalue())


def themed(svg: str) -> str:
    """Matplotlib's SVG without prolog and size; ids that nothing refers to are gone, colours are variables."""
    body = svg[svg.index("<svg") :].strip()
    body = re.sub(r"<metadata>.*?</metadata>\s*", "", body, flags=re.DOTALL)
    body = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", body, count=1)
    body = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", body, count=1)
    used = set(re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', body))
    body = re.sub(r' id="([^"]*)"', lambda match: f' id="{SPACE}{match[1]}"' if match[1] in used else "", body)
    body = re.sub(r'(xlink:href="#|url\(#)', rf"\g<1>{SPACE}", body)
    body = re.sub(r"<[^>]+>", _tag, body)
    return re.sub(r">\s+<", "><", body)


def _tag(match: re.Match[str]) -> str:
    tag = re.sub(r"#0[1-7][0-9a-f]{4}\b", lambda found: f"var(--{_VARIABLES.get(found[0], 'ink')})", match[0])
    tag = tag.replace("'DejaVu Sans'", "inherit").replace(", 'DejaVu Sans'", "")
    return re.sub(r"(\d\.\d\d)\d+", r"\1", tag)
