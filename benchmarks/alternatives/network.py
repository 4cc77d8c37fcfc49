"""The benchmark network: 3072-3072-3072-10, 1 % of the links, 8-bit weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.export.connections import CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph

SIZES = (3072, 3072, 3072, 10)
GAINS = (0.45, 1.6, 2.0)
STEPS = 32


@dataclass(frozen=True)
class Network:
    """The benchmark network, and images for it."""

    graph: SpikingGraph
    images: NDArray[np.uint8]

    @property
    def current(self) -> NDArray[np.int64]:
        """What the first population receives in every step, shape (images, n)."""
        weights = self.graph.projection("input", "layer1").connection.to_csr().to_scipy()
        return np.asarray(self.images.astype(np.int64) @ weights)

    @property
    def layers(self) -> list[Population]:
        """Populations that fire."""
        return [self.graph.population(name) for name in self.graph.spiking]

    def weights(self, pre: Population, post: Population) -> Any:
        """Weights between two populations as a scipy matrix, rows = presynaptic neurons."""
        return self.graph.projection(pre.name, post.name).connection.to_csr().to_scipy()

    def save(self, path: Path, images: int) -> None:
        """Write what the programs in ``peers`` read."""
        arrays: dict[str, Any] = {"current": self.current[:images], "steps": STEPS}
        for layer, population in enumerate(self.layers):
            arrays[f"theta_{layer}"] = population.threshold
        for layer, (pre, post) in enumerate(pairwise(self.layers), start=1):
            weights = self.weights(pre, post).tocoo()
            arrays |= {f"pre_{layer}": weights.row, f"post_{layer}": weights.col, f"weight_{layer}": weights.data}
        np.savez(path, **arrays)


def benchmark_network(images: int, sizes: Sequence[int] = SIZES, density: float = 0.01) -> Network:
    """Random weights, and thresholds at which about 10, 17 and 27 % of the neurons fire in a step."""
    rng = np.random.default_rng(0)
    populations = [Population(name="input", shape=(sizes[0],), kind="input", value_range=(0, 255))]
    projections = []
    for layer, (n_pre, n_post) in enumerate(pairwise(sizes), start=1):
        links = round(n_pre * n_post * density)
        where = rng.choice(n_pre * n_post, links, replace=False)
        weights = (rng.standard_normal(links) + 0.1) * GAINS[layer - 1] / np.sqrt(n_pre * density)
        unit = 127 / np.abs(weights).max()
        integers = np.rint(weights * unit).astype(np.int64)
        integers[integers == 0] = 1
        matrix = np.zeros(n_pre * n_post, np.int64)
        matrix[where] = integers
        real = rng.uniform(0.7, 1.5, n_post) * 0.8 * (255 / 0.45 if layer == 1 else 1)
        threshold = 2 * np.rint(real * unit / 2).astype(np.int64)
        name = f"layer{layer}"
        populations.append(Population(name=name, shape=(n_post,), kind="if", threshold=threshold, v_init=threshold // 2))
        connection = CSRConnection.from_scipy(matrix.reshape(n_pre, n_post))
        projections.append(Projection(populations[-2].name, name, connection))
    populations.append(Population(name="readout", shape=(sizes[-1],), kind="readout"))
    projections.append(Projection(populations[-2].name, "readout", CSRConnection.from_scipy(np.eye(sizes[-1], dtype=np.int64))))
    return Network(SpikingGraph(populations, projections), rng.integers(0, 256, (images, sizes[0]), dtype=np.uint8))
