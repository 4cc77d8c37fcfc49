"""Figures of a diagnosis. They need matplotlib (extra ``report``)."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

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
)
from sparsespike.export.diagnosis.report import Diagnosis

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAUSE_STYLES = {"clipping": (PURPLE, "xx"), "levels": (SKY, ""), "integers": (VERMILION, "//"), "unevenness": (ORANGE, "..")}
CURVES = ((BLUE, "o"), (GREEN, "s"), (ORANGE, "^"), (VERMILION, "D"), (PURPLE, "v"), (SKY, "P"))
COLUMNS = 4


def stages_figure(diagnosis: Diagnosis) -> Figure:
    """Accuracy of every stage, and over time steps where it has some."""
    figure = empty_figure(10.5, 4.2)
    left, right = axes_of(figure, 1, 2, width_ratios=(1, 1.2))
    figure.suptitle(f"Accuracy from the ANN to the graph, {diagnosis.images:,} images, T = {diagnosis.steps}", fontsize=11)
    percent = [100 * stage.accuracy for stage in diagnosis.stages]
    worst = diagnosis.worst_stage
    at = np.arange(len(percent))
    colors = [VERMILION if worst is not None and stage.name == worst.name else BLUE for stage in diagnosis.stages]
    bars = left.barh(at, percent, color=colors, height=0.65)
    left.bar_label(bars, [f"{value:.2f}" for value in percent], padding=3, fontsize=8)
    left.set_yticks(at, [plain(stage.name) for stage in diagnosis.stages], fontsize=8)
    left.invert_yaxis()
    left.set_xlim(0, 112)
    left.grid(axis="y", visible=False)
    left.set_xlabel("accuracy (%)" + ("; red: the stage that loses most" if worst is not None else ""))

    curves = [stage for stage in diagnosis.stages if stage.over_time]
    for i, stage in enumerate(curves):
        color, marker = CURVES[i % len(CURVES)]
        values = 100 * np.array(stage.correct) / stage.images
        every = max(1, len(values) // 10)
        style: dict[str, Any] = {"marker": marker, "markersize": 4, "markevery": (i % every, every), "linewidth": 1.3}
        right.plot(np.arange(1, len(values) + 1), values, color=color, label=plain(stage.name), **style)
    ann = diagnosis.stages[0]
    right.axhline(100 * ann.accuracy, color=BLACK, linestyle="--", linewidth=1.1, label=plain(ann.name))
    right.set_xlabel("time steps T")
    right.set_ylabel("accuracy (%)")
    right.xaxis.set_major_locator(require("matplotlib.ticker", extra="report").MaxNLocator(integer=True))
    right.legend(loc="best", frameon=False, fontsize=8)
    return figure


def layers_figure(diagnosis: Diagnosis) -> Figure:
    """Own error of every layer, by cause, and below it the accuracy of the ANN when it takes over after the layer."""
    layers = diagnosis.layers
    figure = empty_figure(max(6.5, 0.9 * len(layers) + 2.5), 5.6)
    top, bottom = axes_of(figure, 2, 1, sharex=True, height_ratios=(2, 1))
    at, base = np.arange(len(layers)), np.zeros(len(layers))
    units = np.array([layer.activation or math.inf for layer in layers])
    for cause, (color, hatch) in CAUSE_STYLES.items():
        part = 100 * np.array([layer.causes.get(cause, 0.0) for layer in layers]) / units
        if part.any():
            top.bar(at, part, bottom=base, width=0.6, color=color, hatch=hatch, edgecolor="white", label=cause)
        base = base + part
    own = 100 * np.array([layer.own_error for layer in layers]) / units
    top.plot(at, own, linestyle="none", marker="D", color=BLACK, markersize=5, label="own error")
    top.set_ylabel("error of the layer itself\n(% of its mean activation)")
    top.margins(y=0.1)
    handles, labels = top.get_legend_handles_labels()
    title = f"Where rates miss the ANN, T = {diagnosis.steps}, {diagnosis.images:,} images (parts may cancel)"
    place: dict[str, Any] = {"loc": "outside upper center", "ncols": 5, "frameon": False}
    figure.legend(handles, labels, title=title, fontsize=8, title_fontsize=11, **place)

    known = [(i, 100 * layer.accuracy) for i, layer in enumerate(layers) if layer.accuracy is not None]
    snn = 100 * diagnosis.stage(diagnosis.graph_stage).accuracy
    bottom.plot([i for i, _ in known] + [len(layers) - 1], [value for _, value in known] + [snn], color=BLUE, marker="o")
    bottom.axhline(100 * diagnosis.stages[0].accuracy, color=BLACK, linestyle="--", linewidth=1.1, label="ANN")
    bottom.set_ylabel("accuracy (%), spikes\nup to here, then ANN")
    bottom.margins(y=0.25)
    bottom.legend(loc="lower left", frameon=False, fontsize=8)
    rotate: dict[str, Any] = {"rotation": 45, "ha": "right"} if len(layers) > 6 else {}
    bottom.set_xticks(at, [plain(layer.name) for layer in layers], fontsize=8, **rotate)
    return figure


def activations_figure(diagnosis: Diagnosis) -> Figure:
    """Activations of the ANN against those that the spikes stand for, some (image, neuron) pairs of each layer."""
    layers = diagnosis.layers
    columns = min(COLUMNS, len(layers))
    rows = math.ceil(len(layers) / columns)
    figure = empty_figure(3.0 * columns, 2.8 * rows + 0.5)
    title = f"SNN (decoded spikes, T = {diagnosis.steps}) over ANN, in the ANN's units; grey: equal"
    figure.suptitle(title, fontsize=11)
    axes = axes_of(figure, rows, columns)
    for ax, layer in zip(axes, layers, strict=False):
        ann, snn = layer.sample
        low, high = float(min(ann.min(), snn.min())), float(max(ann.max(), snn.max()))
        ax.plot([low, high], [low, high], color=GREY, linewidth=1)
        ax.plot(ann, snn, ".", color=BLUE, markersize=2, alpha=0.35, rasterized=True)
        known = "" if layer.correlation is None else f", r = {layer.correlation:.3f}"
        ax.set_title(plain(layer.name) + known, fontsize=9)
        ax.tick_params(labelsize=8)
        ax.set_xlabel("ANN", fontsize=8)
        ax.set_ylabel("SNN", fontsize=8)
    for ax in axes[len(layers) :]:
        ax.set_visible(False)
    return figure
