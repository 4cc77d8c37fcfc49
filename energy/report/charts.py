"""Geometry of the charts: data to coordinates of a drawing of fixed size, which the page scales to its width."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from sparsespike.energy.report.blocks import Chart, Raster, show

WIDTH, HEIGHT = 560, 300
LEFT, RIGHT, TOP, BOTTOM = 62, 14, 32, 44
ROW, GAP = 0.9, 24
"""Height of one neuron's line in a raster, and room between populations, for a name."""


class Tick(NamedTuple):
    """A mark of an axis: where, and its text."""

    at: float
    text: str


class Curve(NamedTuple):
    """A series in coordinates."""

    name: str
    style: int
    mark: str
    path: str
    points: tuple[tuple[float, float], ...]


class Drawing(NamedTuple):
    """A chart in coordinates."""

    width: int
    height: int
    left: int
    right: int
    top: int
    bottom: int
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    curves: tuple[Curve, ...]


class BandDrawing(NamedTuple):
    """One population of a raster in coordinates."""

    name: str
    top: float
    height: float
    positive: str
    negative: str


class RasterDrawing(NamedTuple):
    """A raster in coordinates."""

    width: int
    height: float
    left: int
    right: int
    bottom: float
    bands: tuple[BandDrawing, ...]
    x_ticks: tuple[Tick, ...]


def draw(chart: Chart) -> Drawing:
    """Place a chart's curves and axes."""
    points = [point for series in chart.series for point in series.points]
    x_marks = ticks(min(x for x, _ in points), max(x for x, _ in points), whole=True)
    y_marks = ticks(min(y for _, y in points), max(y for _, y in points))
    xs = [x for x, _ in points]
    low_x, high_x = min(xs), max(max(xs), min(xs) + 1e-9)
    low_y, high_y = y_marks[0], y_marks[-1]

    def place(x: float, y: float) -> tuple[float, float]:
        across = (x - low_x) / (high_x - low_x)
        up = (y - low_y) / (high_y - low_y)
        return (
            round(LEFT + across * (WIDTH - LEFT - RIGHT), 2),
            round(HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM), 2),
        )

    curves = []
    for series in chart.series:
        placed = tuple(place(x, y) for x, y in series.points)
        path = "M" + " L".join(f"{x:g} {y:g}" for x, y in placed)
        curves.append(Curve(series.name, series.style, series.mark, path, placed))
    return Drawing(
        width=WIDTH,
        height=HEIGHT,
        left=LEFT,
        right=WIDTH - RIGHT,
        top=TOP,
        bottom=HEIGHT - BOTTOM,
        x_ticks=tuple(Tick(place(x, low_y)[0], show(_whole(x))) for x in _from(low_x, x_marks) if x <= high_x),
        y_ticks=tuple(Tick(place(low_x, y)[1], show(_whole(y))) for y in y_marks),
        curves=tuple(curves),
    )


def ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Round numbers that span a range, about five of them; on request whole ones only.

    >>> ticks(0, 1)
    [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    >>> ticks(7, 7, whole=True)
    [6.0, 7.0, 8.0]
    """
    if high <= low:
        low, high = low - 1, high + 1
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(step * power for step in (1, 2, 5, 10) if step * power >= raw * 0.999)
    step = max(step, 1.0) if whole else step
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def draw_raster(raster: Raster) -> RasterDrawing:
    """Place the spikes of a raster: a dash for each, as wide as a step."""
    step = (WIDTH - LEFT - RIGHT) / raster.steps
    bands, top = [], 0.0
    for band in raster.bands:
        height = max(24.0, band.rows * ROW)
        line = height / band.rows
        positive, negative = (_dashes(spikes, top + GAP, line, step) for spikes in (band.positive, band.negative))
        bands.append(BandDrawing(band.name, top + GAP, height, positive, negative))
        top += GAP + height
    marks = [t for t in _from(1, ticks(1, max(raster.steps, 2), whole=True)) if t <= raster.steps]
    return RasterDrawing(
        width=WIDTH,
        height=top + BOTTOM,
        left=LEFT,
        right=WIDTH - RIGHT,
        bottom=top,
        bands=tuple(bands),
        x_ticks=tuple(Tick(round(LEFT + (t - 0.5) * step, 2), show(int(t))) for t in marks),
    )


def _dashes(spikes: Sequence[tuple[int, int]], top: float, line: float, step: float) -> str:
    """One path of many dashes: where each begins, and its length."""
    return "".join(f"M{LEFT + t * step:.1f} {top + (row + 0.5) * line:.1f}h{0.8 * step:.1f}" for t, row in spikes)


def _from(low: float, marks: Sequence[float]) -> list[float]:
    """Marks of an axis that begins at ``low``, which gets a mark of its own where there is room."""
    step = marks[1] - marks[0]
    return [low, *(mark for mark in marks if mark > low + step / 2)]


def _whole(value: float) -> int | float:
    return int(value) if float(value).is_integer() else value
