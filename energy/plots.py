"""Figures of accuracy, events and energy. They need matplotlib (extra ``report``) and touch no global state of it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsespike.common.errors import ConfigError
from sparsespike.common.extras import require
from sparsespike.common.figures import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    SKY,
    VERMILION,
    axes_of,
    empty_figure,
    plain,
    save_figure,
)
from sparsespike.energy.entry import Entry
from sparsespike.energy.ledger import Ledger
from sparsespike.energy.model import Energy, TermKind

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["AccuracyCurve", "accuracy_figure", "energy_figure", "events_figure", "save_figure"]

CURVES = ((BLACK, "o"), (VERMILION, "s"), (BLUE, "^"), (GREEN, "D"), (PURPLE, "v"), (ORANGE, "P"))
BACKENDS = (BLUE, SKY, GREEN, PURPLE)
PARTS: Mapping[TermKind, tuple[str, str, str]] = {
    "MAC": ("first layer (MAC)", BLUE, ""),
    "AC": ("other layers (AC)", ORANGE, "//"),
    "update": ("neuron updates", GREEN, ".."),
    "message": ("spike messages", GREY, "xx"),
}


@dataclass(frozen=True, eq=False, kw_only=True)
class AccuracyCurve:
    """Accuracy of one converted network over time.

    Parameters
    ----------
    label : str
        Such as "dense" or "sparse 99 %".
    snn : array, shape (points,)
        Accuracy of the spiking network, 0..1.
    ann : float
        Accuracy of the network it was converted from, 0..1.
    steps : integer array, shape (points,), optional
        T of each point; 1, 2, 3 ... by default.
    mark : int, optional
        A T to be marked on the curve, such as the saturation time.

    Raises
    ------
    ConfigError
        If lengths differ, or an accuracy lies outside 0..1.
    """

    label: str
    snn: ArrayLike
    ann: float
    steps: ArrayLike | None = None
    mark: int | None = None

    def __post_init__(self) -> None:
        snn, steps = self.points
        if snn.ndim != 1 or len(snn) == 0 or snn.shape != steps.shape:
            raise ConfigError(
                f"accuracy curve {self.label!r}: found {snn.shape} accuracies at {steps.shape} steps, expected one for each"
            )
        if not np.all((snn >= 0) & (snn <= 1)) or not 0 <= self.ann <= 1:
            raise ConfigError(f"accuracy curve {self.label!r}: found accuracies outside 0..1, expected fractions, not percent")
        if self.mark is not None and self.mark not in steps:
            raise ConfigError(f"accuracy curve {self.label!r}: found mark = {self.mark}, expected one of the curve's steps")

    @property
    def points(self) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Accuracies and their steps."""
        snn = np.asarray(self.snn, dtype=np.float64)
        steps = np.arange(1, snn.size + 1) if self.steps is None else np.asarray(self.steps)
        return snn, steps.astype(np.int64)


def accuracy_figure(curves: Sequence[AccuracyCurve], *, title: str = "") -> Figure:
    """Accuracy over inference steps T: converted networks as curves, the networks they came from as dashed lines.

    Raises
    ------
    ConfigError
        If there is no curve.
    MissingExtraError
        If matplotlib is not installed.
    """
    if not curves:
        raise ConfigError("accuracy figure: found no curves, expected at least one")
    figure = empty_figure(7.0, 4.2)
    figure.suptitle(plain(title), fontsize=11)
    (ax,) = axes_of(figure, 1, 1)
    for i, curve in enumerate(curves):
        color, marker = CURVES[i % len(CURVES)]
        snn, steps = curve.points
        every = max(1, len(steps) // 12)
        label = f"{curve.label}: SNN, at most {100 * snn.max():.1f} %"
        ax.plot(steps, 100 * snn, color=color, marker=marker, markersize=4, markevery=(i % every, every), label=plain(label))
        label = f"{curve.label}: ANN, {100 * curve.ann:.1f} %"
        ax.axhline(100 * curve.ann, color=color, linestyle=(0, (4 + 2 * i, 2)), linewidth=1.1, label=plain(label))
        if curve.mark is not None:
            at = (curve.mark, 100 * snn[steps == curve.mark][0])
            ax.plot(*at, marker, markersize=10, markerfacecolor="none", markeredgecolor=color, markeredgewidth=1.6)
            ax.annotate(f"T = {curve.mark}", at, (0, -16), textcoords="offset points", color=color, ha="center", fontsize=8)
    ax.set_xlabel("inference steps T")
    ax.set_ylabel("accuracy (%)")
    ax.margins(x=0.02)
    ax.xaxis.set_major_locator(require("matplotlib.ticker", extra="report").MaxNLocator(integer=True))
    ax.legend(loc="lower right", frameon=False, fontsize=8)
    return figure


def events_figure(ledger: Ledger, *, log: bool = False, title: str = "") -> Figure:
    """Events of each projection: every backend's count beside analytic + covariance, and below the covariance in percent.

    Bars of a backend that computed its count instead of measuring it are hatched and named so.

    Parameters
    ----------
    ledger : Ledger
    log : bool
        Logarithmic events.
    title : str

    Raises
    ------
    ConfigError
        If the backends fired different spikes.
    MissingExtraError
        If matplotlib is not installed.
    """
    entries = [ledger.entry(*projection.key) for projection in ledger.graph.projections]
    figure = empty_figure(max(6.5, 1.7 * len(entries) + 2.5), 5.2)
    top, bottom = axes_of(figure, 2, 1, sharex=True, height_ratios=(3, 1))
    width = 0.84 / (len(ledger.backends) + 1)
    at = np.arange(len(entries)) - 0.42 + width / 2
    for i, backend in enumerate(ledger.backends):
        _backend_bars(top, entries, backend, at + i * width, 0.94 * width, BACKENDS[i % len(BACKENDS)], ledger.images)
    _analytic_bars(top, entries, at + len(ledger.backends) * width, 0.94 * width, ledger.images)
    if log:
        top.set_yscale("log")
        heights = [bar.get_height() for bars in top.containers for bar in bars if bar.get_height() > 0]
        top.set_ylim(min(heights, default=1) / 3, 2 * max(heights, default=1))
    else:
        top.yaxis.set_major_formatter(require("matplotlib.ticker", extra="report").EngFormatter())
    top.set_ylabel("synaptic events per image")
    _legend(figure, top, title, columns=3)

    percent = [100 * float(e.covariance / e.analytic_graph) if e.analytic_graph else 0.0 for e in entries]
    bars = bottom.bar(np.arange(len(entries)), percent, width=0.5, color=VERMILION, hatch="//", edgecolor="white")
    bottom.bar_label(
        bars,
        labels=["0" if not e.covariance else f"{p:+.2g} %" for e, p in zip(entries, percent, strict=True)],
        padding=2,
        fontsize=8,
    )
    bottom.axhline(0, color=BLACK, linewidth=0.8)
    bottom.set_ylabel("covariance /\nanalytic (%)")
    bottom.margins(y=0.5)
    if not any(percent):
        bottom.set_ylim(-1, 1)
    bottom.set_xticks(np.arange(len(entries)), [f"{entry.pre}\n→ {entry.post}" for entry in entries])
    return figure


def _backend_bars(
    ax: Axes, entries: Sequence[Entry], backend: str, at: NDArray[np.float64], width: float, color: str, images: int
) -> None:
    for kind, values in (
        ("measured", [entry.measured.get(backend) for entry in entries]),
        ("computed, not measured", [entry.reported.get(backend) for entry in entries]),
    ):
        where = [i for i, value in enumerate(values) if value is not None]
        if where:
            heights = [float(value) / images for value in values if value is not None]
            face: dict[str, Any] = (
                {"color": color} if kind == "measured" else {"facecolor": "white", "edgecolor": color, "hatch": "xxx"}
            )
            ax.bar(at[where], heights, width, label=plain(f"{backend}: {kind}"), **face)


def _analytic_bars(ax: Axes, entries: Sequence[Entry], at: NDArray[np.float64], width: float, images: int) -> None:
    analytic = np.array([float(entry.analytic_graph / images) for entry in entries])
    covariance = np.array([float(entry.covariance / images) for entry in entries])
    ax.bar(at, analytic, width, color=GREY, label="analytic, T · LASFR · nnz")
    # A negative term hangs from the analytic bar's top: what is left below it is the count.
    where = covariance != 0
    if where.any():
        low, height = np.minimum(analytic, analytic + covariance)[where], np.abs(covariance)[where]
        style: dict[str, Any] = {"color": VERMILION, "alpha": 0.85, "hatch": "//", "edgecolor": "white"}
        ax.bar(at[where], height, width, bottom=low, label="covariance term, N · cov(s, d)", **style)


def energy_figure(energies: Mapping[str, Energy], *, title: str = "") -> Figure:
    """Energy per image of several networks side by side, stacked by operation: in joules, and as shares of each network's own.

    Parameters
    ----------
    energies : mapping of label to Energy
        Under one model, such as ``{"dense": ..., "sparse 99 %": ...}``.
    title : str

    Raises
    ------
    ConfigError
        If there is no energy, or models differ.
    MissingExtraError
        If matplotlib is not installed.
    """
    if not energies:
        raise ConfigError("energy figure: found no energies, expected at least one")
    models = {label: energy.model for label, energy in energies.items()}
    first = next(iter(models.values()))
    if any(model != first for model in models.values()):
        listed = "".join(f"\n  {label}: {model.describe()}" for label, model in models.items())
        raise ConfigError(f"energy figure: found different energy models, expected one for all bars{listed}")
    figure = empty_figure(7.0, 4.2)
    left, right = axes_of(figure, 1, 2)
    joules = require("matplotlib.ticker", extra="report").EngFormatter(unit="J", places=None)
    at = np.arange(len(energies))
    total = np.array([float(energy.total_pj / energy.images) * 1e-12 for energy in energies.values()])
    base, share_base = np.zeros(len(at)), np.zeros(len(at))
    for operation, (label, color, hatch) in PARTS.items():
        part = np.array([float(energy.share_pj(operation) / energy.images) * 1e-12 for energy in energies.values()])
        if not part.any():
            continue
        style: dict[str, Any] = {"width": 0.6, "color": color, "hatch": hatch, "edgecolor": "white"}
        left.bar(at, part, bottom=base, label=label, **style)
        share = 100 * np.divide(part, total, out=np.zeros_like(part), where=total > 0)
        right.bar(at, share, bottom=share_base, **style)
        for x, low, height in zip(at, share_base, share, strict=True):
            if height >= 5:
                box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "boxstyle": "round,pad=0.2"}
                right.text(x, low + height / 2, f"{height:.1f} %", ha="center", va="center", fontsize=8, bbox=box)
        base, share_base = base + part, share_base + share
    for x, value in zip(at, total, strict=True):
        left.annotate(
            f"{joules.format_eng(float(f'{value:.4g}'))}",
            (x, value),
            (0, 3),
            textcoords="offset points",
            ha="center",
            fontsize=9,
        )
    left.yaxis.set_major_formatter(joules)
    left.set_ylabel("energy per image (J)")
    left.margins(y=0.1)
    right.set_ylabel("share of the network's energy (%)")
    labels = [plain(f"{label}\nT = {energy.steps}") for label, energy in energies.items()]
    for ax in (left, right):
        ax.set_xticks(at, labels)
        ax.set_xlim(-0.6, len(at) - 0.4)
    _legend(figure, left, title, columns=4)
    figure.supxlabel(plain(_caption(first.describe())), fontsize=6.5, color="#555555")
    return figure


def _legend(figure: Figure, ax: Axes, title: str, *, columns: int) -> None:
    """The title and, below it, what the bars of ``ax`` are, above all axes."""
    handles, labels = ax.get_legend_handles_labels()
    place: dict[str, Any] = {"loc": "outside upper center", "ncols": columns, "frameon": False}
    figure.legend(handles, labels, title=plain(title), fontsize=8, title_fontsize=11, **place)


def _caption(text: str) -> str:
    """A long line broken in two or more, at spaces."""
    return "\n".join(textwrap.wrap(text, 130))
