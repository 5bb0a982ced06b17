"""What a report is made of: sections of blocks, which the HTML page and the Markdown file render each in its way."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

Tone = Literal["", "good", "bad", "warn", "muted"]


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell: its text, a smaller second line, and how it is meant. `colour` numbers a variant's swatch."""

    text: str
    note: str = ""
    tone: Tone = ""
    colour: int | None = None


@dataclass(frozen=True, slots=True)
class Heading:
    """A column's heading, its unit or explanation beneath, and whether it holds numbers."""

    title: str
    note: str = ""
    numeric: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells under columns."""

    columns: tuple[Heading, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing for a wide and for a narrow page, made as SVG when asked for, and what it shows in words."""

    wide: Callable[[], str]
    narrow: Callable[[], str]
    caption: str
    alt: str


@dataclass(frozen=True, slots=True)
class Prose:
    """Paragraphs."""

    paragraphs: tuple[str, ...]
    lead: bool = False


@dataclass(frozen=True, slots=True)
class Note:
    """One remark: what, and what follows from it."""

    text: str
    detail: str = ""
    tone: Tone = ""


@dataclass(frozen=True, slots=True)
class Notes:
    """A list of remarks."""

    items: tuple[Note, ...]


@dataclass(frozen=True, slots=True)
class Facts:
    """Names and values, perhaps under a title."""

    pairs: tuple[tuple[str, str], ...]
    title: str = ""


@dataclass(frozen=True, slots=True)
class Printed:
    """Lines of output, verbatim."""

    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Timeline:
    """Data of the interactive timeline."""

    data: Mapping[str, Any]
    caption: str


@dataclass(frozen=True, slots=True)
class Fold:
    """Blocks behind a heading that opens them."""

    title: str
    blocks: tuple[Block, ...]


Block = Table | Figure | Prose | Notes | Facts | Printed | Timeline | Fold


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the report with a heading; `id` is its anchor."""

    id: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class Page:
    """A whole report. `banner` is stamped across it."""

    title: str
    subtitle: str
    sections: tuple[Section, ...]
    variants: tuple[str, ...]
    banner: str | None = None
    foot: str = ""
