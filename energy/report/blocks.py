"""What a page is made of: headings, tables, charts and notes, as plain values. Text is text: the template escapes all of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple, TypeAlias

Cell: TypeAlias = str | int | float | None
Tone = Literal["plain", "good", "bad"]
ABSENT = "–"


class Column(NamedTuple):
    """Head of a column, its unit below it, and the decimals of its numbers (by size, if none are given)."""

    head: str
    unit: str = ""
    decimals: int | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table whose first column names the rows.

    Attributes
    ----------
    caption : str
    columns : tuple of Column
    rows : tuple of rows of cells
    total : bool
        Whether the last row adds up the others.
    note : str
        Below the table.
    """

    caption: str
    columns: tuple[Column, ...]
    rows: tuple[tuple[Cell, ...], ...]
    total: bool = False
    note: str = ""
    kind: Literal["table"] = "table"


class Part(NamedTuple):
    """A piece of a bar: what it stands for, how much, and its style (a class of the style sheet)."""

    name: str
    value: float
    style: str


class Bar(NamedTuple):
    """One bar: its label, the pieces that it is made of, and what is written behind it."""

    label: str
    parts: tuple[Part, ...]
    text: str


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Bars in groups, on one scale from 0 to ``largest``."""

    caption: str
    groups: tuple[tuple[str, tuple[Bar, ...]], ...]
    note: str = ""
    kind: Literal["bars"] = "bars"

    @property
    def largest(self) -> float:
        """What a bar of full width stands for."""
        sums = [sum(part.value for part in bar.parts) for _, bars in self.groups for bar in bars]
        return max(sums, default=0.0) or 1.0

    @property
    def legend(self) -> tuple[tuple[str, str], ...]:
        """Style and name of every kind of piece."""
        parts = [part for _, bars in self.groups for bar in bars for part in bar.parts]
        return tuple(dict.fromkeys((part.style, part.name) for part in parts))


class Series(NamedTuple):
    """One curve: its points, its style (1..6), and whether it is a line, a dashed level or points alone."""

    name: str
    points: tuple[tuple[float, float], ...]
    style: int
    mark: Literal["line", "dashed", "points"] = "line"


@dataclass(frozen=True, kw_only=True)
class Chart:
    """Curves over a number; ``summary`` says in words what is to be seen."""

    caption: str
    x: str
    y: str
    series: tuple[Series, ...]
    summary: str
    kind: Literal["chart"] = "chart"


class Band(NamedTuple):
    """Spikes of one population: (step, row) of each, rows counted over the neurons shown."""

    name: str
    neurons: int
    rows: int
    positive: tuple[tuple[int, int], ...]
    negative: tuple[tuple[int, int], ...]


@dataclass(frozen=True, kw_only=True)
class Raster:
    """Spikes of one image in every population; ``picture`` is the image as a data URI, if it has rows and columns."""

    caption: str
    steps: int
    bands: tuple[Band, ...]
    picture: str | None
    alt: str
    kind: Literal["raster"] = "raster"


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure as a data URI, with what it shows in words."""

    uri: str
    alt: str
    caption: str
    kind: Literal["picture"] = "picture"


@dataclass(frozen=True, kw_only=True)
class Facts:
    """Names and values."""

    rows: tuple[tuple[str, Cell], ...]
    kind: Literal["facts"] = "facts"


@dataclass(frozen=True, kw_only=True)
class Text:
    """A paragraph; ``tone`` tells good news from bad."""

    text: str
    tone: Tone = "plain"
    kind: Literal["text"] = "text"


@dataclass(frozen=True, kw_only=True)
class Items:
    """A list of remarks."""

    caption: str
    lines: tuple[str, ...]
    kind: Literal["items"] = "items"


@dataclass(frozen=True, kw_only=True)
class Commands:
    """Command lines to be copied."""

    caption: str
    lines: tuple[str, ...]
    kind: Literal["commands"] = "commands"


@dataclass(frozen=True, kw_only=True)
class Missing:
    """Something that the folder does not hold, and the command that makes it."""

    what: str
    command: str
    kind: Literal["missing"] = "missing"


@dataclass(frozen=True, kw_only=True)
class Heading:
    """A heading within a section."""

    text: str
    kind: Literal["heading"] = "heading"


Block: TypeAlias = Table | Bars | Chart | Raster | Picture | Facts | Text | Items | Commands | Missing | Heading


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section with a heading; ``id`` is unique on the page."""

    id: str
    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, kw_only=True)
class Chapter:
    """Sections about one network, or about the whole folder."""

    id: str
    title: str
    sections: tuple[Section, ...]


@dataclass(frozen=True, kw_only=True)
class Page:
    """The whole report."""

    title: str
    lead: str
    chapters: tuple[Chapter, ...]


def show(value: Cell, decimals: int | None = None) -> str:
    """A cell as text: thousands separators, as many decimals as given, else four significant digits.

    >>> show(1234567), show(0.012345), show(41417.93), show(12.0, 2), show(None), show(0.0)
    ('1,234,567', '0.01235', '41,418', '12.00', '–', '0')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ABSENT
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if decimals is not None:
        return f"{value:,.{decimals}f}"
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return str(value)
    if value and abs(value) < 1e-4:
        return f"{value:.3g}"
    return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.1f}" if abs(value) < 10_000 else f"{value:,.0f}"


def number(value: object) -> float | int | None:
    """A number of a table, a rational or pandas' missing value as a cell."""
    if value is None or str(value) in ("<NA>", "nan"):
        return None
    if isinstance(value, Fraction):
        return int(value) if value.denominator == 1 else float(value)
    real = float(str(value))
    return int(real) if real.is_integer() and abs(real) < 2**53 else real
