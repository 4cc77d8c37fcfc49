"""What all figures share: palette, empty figure, axes, saving. They need matplotlib (extra ``report``) and no pyplot."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsespike.common.errors import ConfigError
from sparsespike.common.extras import require
from sparsespike.common.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette: told apart with any colour vision; hatches and markers tell apart in grey, too.
BLACK, ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = (
    "#000000",
    "#E69F00",
    "#56B4E9",
    "#009E73",
    "#0072B2",
    "#D55E00",
    "#CC79A7",
)
GREY = "#9A9A9A"
FORMATS = ("png", "svg", "pdf")


def empty_figure(width: float, height: float) -> Figure:
    """An empty figure of a size in inches; ``Figure`` itself, not pyplot: nothing global changes and no window opens.

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    figure: Figure = require("matplotlib.figure", extra="report").Figure(figsize=(width, height), dpi=150, layout="constrained")
    return figure


def axes_of(figure: Figure, rows: int, columns: int, **settings: Any) -> list[Axes]:
    """Axes of a figure, row by row, with a light grid behind the data and no frame above it."""
    axes: list[Axes] = figure.subplots(rows, columns, squeeze=False, **settings).ravel().tolist()
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.grid(axis="y", color="#DDDDDD", linewidth=0.7)
        ax.set_axisbelow(True)
    return axes


def plain(text: str) -> str:
    """Text that matplotlib neither reads as mathematics nor, for a leading underscore, hides from a legend."""
    return ("\u200b" + text if text.startswith("_") else text).replace("$", r"\$")


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a figure as PNG, SVG or PDF by the file's ending; a reader sees the old file or the whole new one.

    Raises
    ------
    ConfigError
        If the ending is another one, or the file cannot be written.
    """
    ending = Path(path).suffix.lstrip(".").lower()
    if ending not in FORMATS:
        raise ConfigError(f"figure {path}: found the ending {Path(path).suffix!r}, expected one of .{', .'.join(FORMATS)}")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=ending)
