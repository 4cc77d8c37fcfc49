"""What all commands share on the terminal: results on standard output, progress and messages on standard error."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

WIDTH_WITHOUT_TERMINAL = 126
ABSENT = "–"
LONGEST_WORD = 30

# Lines of text are left whole, so that commands and paths in them can be copied; tables and prose are fitted to the width.
out = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDTH_WITHOUT_TERMINAL, soft_wrap=True)
err = Console(stderr=True, soft_wrap=True)


def print_json(document: Any) -> None:
    """Print one JSON document on standard output, for programs to read; numbers that JSON does not have become null."""
    print(json.dumps(_plain(document), indent=2, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, caption: str | None = None) -> None:
    """Print a table; numbers are aligned right and integers get thousands separators.

    Text is folded where the terminal is narrow. A number is never broken: the lines of a table with many run over instead.
    """
    texts = [[cell(value) for value in row] for row in rows]
    cells = [[row[i] for row in texts] for i in range(len(columns))]
    numeric = [_is_numeric(column) for column in cells]
    natural = [max(map(len, [*column, *head.split("\n")])) for head, column in zip(columns, cells, strict=True)]
    least = [
        max(map(len, [*head.split(), *(column if numeric[i] or i == 0 else _words(column))]), default=0)
        for i, (head, column) in enumerate(zip(columns, cells, strict=True))
    ]
    between = 3 * len(columns) + 1
    table = Table(box=box.SIMPLE)
    for head, is_number, width in zip(columns, numeric, _widths(natural, least, out.width - between), strict=True):
        table.add_column(head, justify="right" if is_number else "left", overflow="fold", width=width)
    for row in texts:
        table.add_row(*map(escape, row))
    print_prose(f"[bold]{escape(title)}[/]")
    needed = sum(least) + between
    (out if needed <= out.width else Console(width=needed)).print(table, soft_wrap=False)
    if caption is not None:
        print_prose(escape(caption))


def _is_numeric(column: list[str]) -> bool:
    """Whether most of what a column holds begins like a number."""
    known = [text for text in column if text != ABSENT]
    return 2 * sum(text.lstrip("-+±")[:1].isdigit() for text in known) > len(known)


def _words(column: list[str]) -> list[str]:
    return [word[:LONGEST_WORD] for text in column for word in text.split()]


def _widths(natural: list[int], least: list[int], room: int) -> list[int]:
    """A width for each column: at least ``least``, up to ``natural`` where there is room, small needs first."""
    widths = list(least)
    for i in sorted(range(len(least)), key=lambda i: natural[i] - least[i]):
        widths[i] += max(0, min(natural[i] - least[i], room - sum(widths)))
    return widths


def print_prose(text: str) -> None:
    """Print text with markup, wrapped at words."""
    out.print(text, highlight=False, soft_wrap=False)


def cell(value: Any) -> str:
    """One table cell as text."""
    if value is None:
        return ABSENT
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if isinstance(value, float | np.floating):
        number = float(value)
        if not math.isfinite(number):
            return ABSENT
        return f"{number:,.4g}" if abs(number) < 1000 else f"{number:,.0f}"
    return str(value)
