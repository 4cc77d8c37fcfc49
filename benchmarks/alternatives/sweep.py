"""Synaptic events per second of the native backend over density, rate, size and batch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alternatives.network import STEPS
from alternatives.timing import timed
from sparsespike.backends.base import Counting
from sparsespike.backends.bulk import run_blocks
from sparsespike.backends.native import NativeBackend
from sparsespike.export.connections import CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph

UNITS = {
    "density": "share of links that are there",
    "rate": "spikes of a neuron in a step",
    "size": "neurons of a layer",
    "batch": "images",
}
COUNTINGS: tuple[Counting, Counting] = ("computed", "measured")


def sweep(quick: bool) -> list[dict[str, Any]]:
    """Events per second on one core, around one network."""
    base = {"size": 1024 if quick else 3072, "density": 0.01, "rate": 0.1, "batch": 64}
    axes: dict[str, list[Any]] = {
        "density": [0.002, 0.005, 0.01, 0.02, 0.05],
        "rate": [0.001, 0.003, 0.01, 0.03, 0.1, 0.3],
        "size": [256, 512, 1024] if quick else [512, 1024, 3072, 6144, 12288],
        "batch": [1, 8, 64, 256],
    }
    records = []
    for axis, values in axes.items():
        for value in values:
            point = {**base, axis: value}
            graph, images = rate_network(point["size"], point["density"], point["rate"], point["batch"])
            for counting in COUNTINGS:
                backend = NativeBackend(1, counting=counting)
                run = timed(1, partial(run_blocks, backend, graph, images, STEPS))
                run()
                seconds = min(run().run for _ in range(2 if quick else 3))
                events = int(run_blocks(backend, graph, images, STEPS).events["driven", "layer"].sum())
                records.append({"axis": axis, **point, "counting": counting, "events_per_s": events / seconds})
    return records


def rate_network(size: int, density: float, rate: float, batch: int) -> tuple[SpikingGraph, NDArray[np.int64]]:
    """A population that fires at a given rate, each neuron at its own times, and its projection to one that never fires."""
    rng = np.random.default_rng(1)
    theta = 2000
    fan_out = max(1, round(size * density))
    pointers = fan_out * np.arange(size + 1)
    indices = np.concatenate([np.sort(rng.choice(size, fan_out, replace=False)) for _ in range(size)])
    weights = rng.integers(1, 128, len(indices)) * rng.choice((-1, 1), len(indices))
    never = np.full(size, 2**40)
    phases = rng.integers(0, theta, size)
    graph = SpikingGraph(
        [
            Population(name="input", shape=(size,), kind="input", value_range=(0, theta)),
            Population(name="driven", shape=(size,), kind="if", threshold=np.full(size, theta), v_init=phases),
            Population(name="layer", shape=(size,), kind="if", threshold=never),
            Population(name="readout", shape=(1,), kind="readout"),
        ],
        [
            Projection("input", "driven", _diagonal(size)),
            Projection("driven", "layer", CSRConnection(pointers, indices, weights, size)),
            Projection("layer", "readout", CSRConnection.from_scipy(np.ones((size, 1), np.int64))),
        ],
    )
    return graph, np.minimum(theta, rng.poisson(rate * theta, (batch, size)))


def _diagonal(size: int) -> CSRConnection:
    return CSRConnection(np.arange(size + 1), np.arange(size), np.ones(size, np.int64), size)


def plot(records: Sequence[dict[str, Any]], path: Path) -> None:
    """Events per second over each axis."""
    from matplotlib.figure import Figure

    axes = list(dict.fromkeys(record["axis"] for record in records))
    figure = Figure(figsize=(3.2 * len(axes), 3), layout="constrained")
    for panel, axis in zip(figure.subplots(1, len(axes), sharey=True), axes, strict=True):
        for counting in COUNTINGS:
            points = [(r[axis], r["events_per_s"]) for r in records if r["axis"] == axis and r["counting"] == counting]
            panel.loglog(*zip(*points, strict=True), marker="o", label=f"native, {counting}")
        panel.set_xlabel(f"{axis} ({UNITS[axis]})")
        panel.grid(alpha=0.3)
    figure.axes[0].set_ylabel("synaptic events per second and core")
    figure.axes[0].legend()
    figure.savefig(path)
