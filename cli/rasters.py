"""Rasters of a few images for a report: spike times of evenly spread neurons, small enough for a JSON file."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.native import NativeBackend
from sparsespike.export.graph import SpikingGraph

IMAGES = 3
NEURONS = 200
"""Neurons shown of one population: more than a page has lines for."""


def rasters(graph: SpikingGraph, inputs: NDArray[np.int64], labels: NDArray[np.int64], steps: int) -> dict[str, Any] | None:
    """Rasters of the first images, as a JSON-ready document; None if the native engine cannot run the graph.

    Parameters
    ----------
    graph : SpikingGraph
    inputs : int64 array, shape (B, N)
    labels : int64 array, shape (B,)
    steps : int
        T.
    """
    native = NativeBackend()
    if native.check(graph):
        return None
    chosen = inputs[:IMAGES]
    run = native.run(graph, chosen, steps, record=graph.spiking)
    low, high = graph.input.value_range or (int(chosen.min()), int(chosen.max()))
    return {
        "backend": run.backend,
        "steps": steps,
        "images": [
            {
                "label": int(labels[image]),
                "predicted": int(run.predictions[image, -1]),
                "shape": _shape(graph.input.shape),
                "values": chosen[image].tolist(),
                "value_range": [low, high],
                "populations": [_population(name, run.rasters[name][image]) for name in graph.spiking],
            }
            for image in range(len(chosen))
        ],
    }


def _shape(shape: tuple[int, ...]) -> list[int]:
    """Channels, rows and columns; of a flattened image those of a square one in grey or in colour, if it can be one."""
    if len(shape) == 1:
        for channels in (1, 3):
            side = math.isqrt(shape[0] // channels)
            if channels * side**2 == shape[0]:
                return [channels, side, side]
    return list(shape)


def _population(name: str, raster: NDArray[np.int8]) -> dict[str, Any]:
    """Spike times of evenly spread neurons of a raster of shape (steps, N)."""
    neurons = raster.shape[1]
    shown = np.arange(min(neurons, NEURONS)) * neurons // min(neurons, NEURONS)
    return {
        "population": name,
        "neurons": neurons,
        "shown": shown.tolist(),
        "positive": [np.flatnonzero(raster[:, neuron] > 0).tolist() for neuron in shown],
        "negative": [np.flatnonzero(raster[:, neuron] < 0).tolist() for neuron in shown],
    }
