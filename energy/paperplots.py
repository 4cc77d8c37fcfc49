"""Figures 2 and 3 of the paper from records, and their numbers as tables. Figures need matplotlib (extra ``report``)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sparsespike.common.errors import ConfigError
from sparsespike.common.extras import require
from sparsespike.common.figures import BLACK, BLUE, GREEN, PURPLE, VERMILION, axes_of, empty_figure, plain
from sparsespike.energy.lag import LagPoint, LagStudy, LagSummary, lag_density
from sparsespike.energy.networks import Network, Pair

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SPARSE_COLORS = (VERMILION, BLUE, PURPLE, GREEN)
BOX: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.6}
METHOD_ORDER = ("cs-qcfs", "qcfs", "snm", "aec")
"""Columns in the paper's order; other methods follow."""


def accuracy_frame(pairs: Sequence[Pair]) -> pd.DataFrame:
    """Accuracy over T of every network of the pairs: the numbers of figure 2."""
    lines = []
    for pair, network in _networks(pairs):
        at = network.operating
        for time, accuracy in zip(network.times, network.accuracies, strict=True):
            lines.append(
                {
                    "dataset": pair.dataset,
                    "model": pair.model,
                    "method": pair.method,
                    "connectivity": network.connectivity,
                    "T_steps": time,
                    "SNN_accuracy_%": float(100 * accuracy),
                    "ANN_accuracy_%": float(100 * at.record.ann_accuracy),
                    "marked": time == at.time and at.settled,
                }
            )
    return pd.DataFrame(lines)


def accuracy_panels(pairs: Sequence[Pair]) -> Figure:
    """Figure 2: accuracy over inference steps T, one row a data set and model, one column a conversion method.

    Solid lines are the spiking networks (dense black, sparse in colour), dashed lines the networks that they were converted
    from, with their accuracy at the left; the maxima of the spiking networks stand at the right. A ring marks where accuracy
    saturates (rate methods) or is largest (AEC).

    Raises
    ------
    ConfigError
        If there is no pair.
    MissingExtraError
        If matplotlib is not installed.
    """
    if not pairs:
        raise ConfigError("figure 2: found no networks, expected at least one record")
    rows = list(dict.fromkeys((pair.dataset, pair.model) for pair in pairs))
    methods = sorted({pair.method for pair in pairs}, key=lambda name: (name not in METHOD_ORDER, _position(name), name))
    figure = empty_figure(4.1 * len(methods) + 0.4, 3.1 * len(rows) + 0.3)
    axes = axes_of(figure, len(rows), len(methods))
    for index, ax in enumerate(axes):
        (dataset, model), method = rows[index // len(methods)], methods[index % len(methods)]
        here = [pair for pair in pairs if (pair.dataset, pair.model, pair.method) == (dataset, model, method)]
        if index < len(methods):
            ax.set_title(plain(method), fontsize=10)
        if index % len(methods) == 0:
            ax.set_ylabel(plain(f"{dataset}, {model}\naccuracy (%)"))
        if index >= len(axes) - len(methods):
            ax.set_xlabel("inference steps T")
        if here:
            _accuracy_panel(ax, list(_networks(here)))
        else:
            ax.text(0.5, 0.5, "not run", ha="center", va="center", transform=ax.transAxes, color="#555555")
            ax.set_xticks([])
            ax.set_yticks([])
    return figure


def _accuracy_panel(ax: Axes, found: Sequence[tuple[Pair, Network]]) -> None:
    colors = iter(SPARSE_COLORS * len(found))
    labels: list[tuple[str, float, float]] = []
    for i, (_, network) in enumerate(found):
        color = next(colors) if network.sparse else BLACK
        values = np.array([float(100 * accuracy) for accuracy in network.accuracies])
        ann = float(100 * network.operating.record.ann_accuracy)
        marker = "" if network.rated else "o"
        label = plain(network.connectivity)
        ax.plot(network.times, values, color=color, linewidth=1.4, marker=marker, markersize=3, label=label)
        ax.axhline(ann, color=color, linestyle=(0, (5, 3)), linewidth=1.0)
        if network.operating.settled:
            time = network.operating.time
            height = values[network.times.index(time)]
            ax.plot(time, height, "o", markersize=9, markerfacecolor="none", markeredgecolor=color, markeredgewidth=1.5)
            away = (4, -18 - 11 * i)
            ax.annotate(f"T = {time}", (time, height), away, textcoords="offset points", color=color, fontsize=8, bbox=BOX)
        labels.append((color, ann, float(values.max())))
    ax.margins(x=0.04, y=0.08)
    _stacked(ax, 0.015, [(ann, color) for color, ann, _ in labels], above=True)
    _stacked(ax, 1.01, [(largest, color) for color, _, largest in labels], above=False)
    ax.legend(loc="lower right", frameon=False, fontsize=8)


def _stacked(ax: Axes, x: float, values: Sequence[tuple[float, str]], *, above: bool) -> None:
    """Numbers at their heights, pushed down where they would cover each other."""
    low, high = ax.get_ylim()
    place = high + 0.07 * (high - low)
    for value, color in sorted(values, reverse=True):
        place = min(value + (0.01 * (high - low) if above else 0.0), place - 0.07 * (high - low))
        style: dict[str, Any] = {"color": color, "fontsize": 8, "va": "bottom" if above else "center", "bbox": BOX}
        ax.text(x, place, f"{value:.2f}", transform=ax.get_yaxis_transform(), **style)


def lag_frame(study: LagStudy) -> pd.DataFrame:
    """Saturation times of every network: the numbers of figure 3; networks that do not saturate have none."""
    lines: list[dict[str, object]] = [
        {
            "network": point.network,
            "dataset": point.dataset,
            "sparse": point.sparse,
            "accuracy_saturation_steps": point.accuracy,
            "MASFR_saturation_steps": point.masfr,
            "lag_steps": point.lag,
            "not_saturated": "",
        }
        for point in study.points
    ]
    lines += [
        {
            "network": each.network,
            "dataset": each.dataset,
            "sparse": each.sparse,
            "not_saturated": " and ".join(each.curves),
        }
        for each in study.unsaturated
    ]
    frame = pd.DataFrame(lines)
    return frame.assign(**frame.select_dtypes("number").convert_dtypes())


def lag_panels(study: LagStudy) -> Figure:
    """Figure 3: saturation times of firing rate and accuracy, and the distribution of positive lags.

    Left and middle: one dot for networks with the same two times, coloured by their number; above the line y = x firing rates
    saturate first. Right: kernel density estimates of positive lags, with their means.

    Raises
    ------
    ConfigError
        If no network has a lag.
    MissingExtraError
        If matplotlib is not installed.
    """
    if not study.points:
        raise ConfigError("figure 3: found no network that saturates within its T, expected at least one; run more steps")
    summary = study.summary()
    figure = empty_figure(12.6, 4.6)
    dense, sparse, density = axes_of(figure, 1, 3)
    largest = 1.08 * max(max(point.accuracy, point.masfr) for point in study.points)
    counts = Counter((point.sparse, point.masfr, point.accuracy) for point in study.points)
    locator = require("matplotlib.ticker", extra="report").MaxNLocator
    for ax, which, name in ((dense, False, "dense"), (sparse, True, "sparse")):
        points = [point for point in study.points if point.sparse == which]
        dots = _scatter(ax, points, max(counts.values()), largest)
        ax.set_title(
            f"({'ab'[which]}) {name}: {len(points)} networks, {summary.positive['sparse' if which else 'dense']} above y = x"
        )
    figure.colorbar(dots, ax=[dense, sparse], label="networks at one point", ticks=locator(integer=True), shrink=0.85, pad=0.01)
    _densities(density, study, summary)
    density.set_title("(c) positive lags", fontsize=10)
    figure.supxlabel(plain(summary.describe()), fontsize=7, color="#333333", ha="left", x=0.02)
    return figure


def _scatter(ax: Axes, points: Sequence[LagPoint], most: int, largest: float) -> Any:
    counts = Counter((point.masfr, point.accuracy) for point in points)
    ends = np.array([0.0, largest])
    ax.fill_between(ends, ends, [largest, largest], color=GREEN, alpha=0.12, linewidth=0)
    ax.plot(ends, ends, color="#777777", linestyle="--", linewidth=1)
    dots = ax.scatter(
        [masfr for masfr, _ in counts],
        [accuracy for _, accuracy in counts],
        c=list(counts.values()),
        s=30,
        cmap="viridis_r",
        vmin=1,
        vmax=max(2, most),
        edgecolors=BLACK,
        linewidths=0.4,
        zorder=3,
    )
    ax.set(xlim=(0, largest), ylim=(0, largest), aspect="equal")
    ax.set_xlabel("MASFR saturation (steps)")
    ax.set_ylabel("accuracy saturation (steps)")
    return dots


def _densities(ax: Axes, study: LagStudy, summary: LagSummary) -> None:
    every = study.lags(positive=True)
    at = np.linspace(0, 1.3 * (every.max() if len(every) else 1) + 2, 300)
    for group, color in (("dense", BLACK), ("sparse", VERMILION)):
        lags = study.lags("dense" if group == "dense" else "sparse", positive=True)
        curve = lag_density(lags, at)
        mean = summary.mean_positive_lag_steps["dense" if group == "dense" else "sparse"]
        label = f"{group}: {len(lags)} networks" + ("" if mean is None else f", mean {mean:.3g}")
        if curve is not None:
            ax.plot(at, curve, color=color, linewidth=1.5, label=label)
            ax.fill_between(at, curve, color=color, alpha=0.1, linewidth=0)
        else:
            ax.plot([], [], color=color, label=label + " (too few for a density)")
        if mean is not None:
            ax.axvline(mean, color=color, linestyle="--", linewidth=1.1)
    ax.set_xlim(0, at[-1])
    ax.set_ylim(bottom=0)
    ax.set_xlabel("time lag (steps)")
    ax.set_ylabel("density (per step)")
    ax.legend(frameon=False, fontsize=8)


def _networks(pairs: Sequence[Pair]) -> list[tuple[Pair, Network]]:
    """Networks of pairs, each once: pairs may share their dense one."""
    found: dict[int, tuple[Pair, Network]] = {}
    for pair in pairs:
        for network in (pair.dense, pair.sparse):
            if network is not None:
                found.setdefault(id(network), (pair, network))
    return list(found.values())


def _position(method: str) -> int:
    return METHOD_ORDER.index(method) if method in METHOD_ORDER else len(METHOD_ORDER)
