"""Figures of topologies and of their evolution. They need matplotlib (extra ``report``) and touch no global state of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import zeta

from sparsespike.ann.topology import Topology
from sparsespike.ann.topology.science import PowerLaw, fit_power_law
from sparsespike.common.errors import ModelError
from sparsespike.common.extras import require
from sparsespike.common.figures import BLACK, BLUE, GREEN, GREY, VERMILION, axes_of, empty_figure, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIDES: Mapping[str, Callable[[Topology], NDArray[np.int64]]] = {
    "in-degree of outputs": lambda layer: layer.in_degree,
    "out-degree of inputs": lambda layer: layer.out_degree,
}
BINS = 40


def degree_figure(final: Sequence[Topology], initial: Sequence[Topology] | None = None, *, title: str = "") -> Figure:
    """Degree distributions of every layer (columns): outputs above, inputs below; initial links in grey, final in colour.

    Parameters
    ----------
    final, initial : sequence of Topology
        The layers after and, if known, before evolution.
    title : str

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """

    def draw(ax: Axes, degrees: NDArray[np.int64], before: NDArray[np.int64] | None) -> None:
        largest = max(int(values.max()) for values in (degrees, before) if values is not None)
        edges = np.arange(0, largest + 2) if largest < BINS else np.linspace(0, largest + 1, BINS + 1)
        if before is not None:
            ax.hist(before, bins=edges.tolist(), color=GREY, label="initial")
        ax.hist(degrees, bins=edges.tolist(), color=BLUE, histtype="step", linewidth=1.5, label="final")
        # Nodes without links and hubs differ by orders of magnitude in number.
        ax.set_yscale("log")
        ax.set_ylim(bottom=0.7)

    return _by_layer(final, initial, title, draw, "degree", "neurons")


def ccdf_figure(final: Sequence[Topology], initial: Sequence[Topology] | None = None, *, title: str = "") -> Figure:
    """Share of neurons with at least k links, on two logarithmic axes, with the power law fitted to the tail.

    Parameters and errors as for :func:`degree_figure`.
    """

    def draw(ax: Axes, degrees: NDArray[np.int64], before: NDArray[np.int64] | None) -> None:
        if before is not None:
            ax.plot(*_ccdf(before), color=GREY, linestyle="--", label="initial")
        ax.plot(*_ccdf(degrees), color=BLUE, label="final")
        law = _power_law(degrees)
        if law is not None:
            k = np.unique(np.geomspace(law.minimum, degrees.max(), 50).astype(np.int64))
            fit = law.tail / degrees.size * zeta(law.exponent, k) / zeta(law.exponent, law.minimum)
            ax.plot(k, fit, color=VERMILION, linestyle=":", linewidth=2, label="power law of the tail")
            note = f"γ = {law.exponent:.2f}, k ≥ {law.minimum}, KS {law.distance:.3f}"
            ax.text(0.03, 0.04, note, transform=ax.transAxes, fontsize=7, color=VERMILION)
        ax.set_xscale("log")
        ax.set_yscale("log")
        # Ticks at 1, 2, 5 ... read well where degrees span less than a decade.
        ticker = require("matplotlib.ticker", extra="report")
        ax.xaxis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.xaxis.set_major_formatter(ticker.FormatStrFormatter("%d"))
        ax.xaxis.set_minor_locator(ticker.NullLocator())

    return _by_layer(final, initial, title, draw, "degree k", "share with ≥ k links")


def epochs_figure(metrics: Mapping[str, ArrayLike], *, title: str = "") -> Figure:
    """Active neurons, overlap and sparsity over the epochs, and below them the accuracies.

    Parameters
    ----------
    metrics : mapping of str to array, shape (epochs,)
        The columns of ``metrics.csv`` (:class:`~sparsespike.ann.run_folder.EpochRecord`); NaN where there is no validation.
    title : str

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    columns = {name: np.asarray(values, dtype=np.float64) for name, values in metrics.items()}
    epoch = columns["epoch"]
    # Without a change of topology there is no overlap to speak of.
    overlap = np.where(columns["update_seconds"] > 0, columns["overlap"], np.nan)
    figure = empty_figure(7.0, 5.4)
    figure.suptitle(plain(title), fontsize=11)
    top, bottom = axes_of(figure, 2, 1, sharex=True)
    top.plot(epoch, 100 * columns["anp"], color=BLUE, label="active neurons (ANP)")
    top.plot(epoch, 100 * overlap, color=VERMILION, linestyle="--", label="overlap (regrown links just removed)")
    top.plot(epoch, 100 * columns["sparsity"], color=GREY, linestyle=":", label="sparsity")
    top.set_ylabel("%")
    top.set_ylim(-3, 103)
    bottom.plot(epoch, 100 * columns["train_accuracy"], color=BLACK, linestyle="--", label="training, as trained on")
    if np.isfinite(columns["validation_accuracy"]).any():
        bottom.plot(epoch, 100 * columns["validation_accuracy"], color=GREEN, label="validation")
    bottom.set_ylabel("accuracy (%)")
    bottom.set_xlabel("epoch")
    bottom.xaxis.set_major_locator(require("matplotlib.ticker", extra="report").MaxNLocator(integer=True))
    for ax in (top, bottom):
        ax.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    return figure


def _by_layer(
    final: Sequence[Topology],
    initial: Sequence[Topology] | None,
    title: str,
    draw: Callable[[Axes, NDArray[np.int64], NDArray[np.int64] | None], None],
    xlabel: str,
    ylabel: str,
) -> Figure:
    """One column of axes for a layer, one row for a side; one legend for all."""
    figure = empty_figure(max(5.0, 2.6 * len(final) + 0.6), 5.2)
    axes = axes_of(figure, 2, len(final))
    for row, (side, degrees) in enumerate(SIDES.items()):
        for column, layer in enumerate(final):
            ax = axes[row * len(final) + column]
            draw(ax, degrees(layer), None if initial is None else degrees(initial[column]))
            ax.set_xlabel(f"{side.split()[0]}: {xlabel}" if column else f"{side}: {xlabel}", fontsize=8)
            ax.tick_params(labelsize=7)
            if row == 0:
                ax.set_title(f"layer {column + 1}: {layer.shape[1]} to {layer.shape[0]}", fontsize=9)
            if column == 0:
                ax.set_ylabel(ylabel, fontsize=8)
    handles = {label: handle for ax in axes for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    place: dict[str, Any] = {"loc": "outside upper center", "ncols": 3, "frameon": False}
    figure.legend(list(handles.values()), list(handles), title=plain(title), fontsize=8, title_fontsize=11, **place)
    return figure


def _ccdf(degrees: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Positive degrees, and the share of all nodes with at least as many links."""
    values, counts = np.unique(degrees[degrees > 0], return_counts=True)
    return values, np.cumsum(counts[::-1])[::-1] / degrees.size


def _power_law(degrees: NDArray[np.int64]) -> PowerLaw | None:
    try:
        return fit_power_law(degrees)
    except ModelError:
        return None
