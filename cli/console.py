"""What all commands share on the terminal: results on standard output, progress and messages on standard error."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from rich import box
from rich.console import Console, JustifyMethod
from rich.table import Table

WIDTH_WITHOUT_TERMINAL = 126

out = Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDTH_WITHOUT_TERMINAL)
err = Console(stderr=True)


def print_json(document: Any) -> None:
    """Print one JSON document on standard output, for programs to read."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.generic | np.ndarray):
            return value.tolist()
        raise TypeError(f"{type(value).__name__} has no JSON form")

    print(json.dumps(document, indent=2, default=plain))


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]], *, caption: str | None = None) -> None:
    """Print a table; numbers are aligned right and integers get thousands separators."""
    left: JustifyMethod = "left"
    table = Table(title=title, caption=caption, title_justify=left, caption_justify=left, title_style="bold", box=box.SIMPLE)
    rows = [list(row) for row in rows]
    for i, column in enumerate(columns):
        numeric = any(isinstance(row[i], int | float | np.number) or str(row[i])[:1].isdigit() for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold", no_wrap=i == 0)
    for row in rows:
        table.add_row(*(cell(value) for value in row))
    out.print(table)


def cell(value: Any) -> str:
    """One table cell as text."""
    if value is None:
        return "–"
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return f"{value:,}"
    if isinstance(value, float | np.floating):
        number = float(value)
        return f"{number:,.4g}" if abs(number) < 1000 else f"{number:,.0f}"
    return str(value)
