"""Graphs and counts that the energy tests build on."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from sparsespike.backends.base import SpikeCounts
from sparsespike.energy.counts import EventCounts
from sparsespike.export.connections import CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph

ChainMaker = Callable[..., SpikingGraph]
CountMaker = Callable[..., EventCounts]


@pytest.fixture(scope="session")
def chain() -> ChainMaker:
    """Makes a graph ``input -> h1 -> h2 ... -> readout`` from weight matrices, rows = presynaptic neurons."""

    def make(*weights: np.ndarray, threshold: int = 8) -> SpikingGraph:
        sizes = [len(weights[0]), *(w.shape[1] for w in weights)]
        names = ["input", *(f"h{i}" for i in range(1, len(weights))), "readout"]
        hidden = [
            Population(name=name, shape=(n,), kind="if", threshold=np.full(n, threshold), v_init=np.full(n, threshold // 2))
            for name, n in zip(names[1:-1], sizes[1:-1], strict=True)
        ]
        populations = [
            Population(name="input", shape=(sizes[0],), kind="input", value_range=(0, 255)),
            *hidden,
            Population(name="readout", shape=(sizes[-1],), kind="readout"),
        ]
        joined = zip(names[:-1], names[1:], weights, strict=True)
        return SpikingGraph(populations, [Projection(a, b, CSRConnection.from_scipy(w)) for a, b, w in joined])

    return make


@pytest.fixture(scope="session")
def count() -> CountMaker:
    """Makes counts of made-up spikes; events are added up synapse by synapse, row by row of the weights."""

    def make(graph: SpikingGraph, spikes: Sequence[np.ndarray], steps: int, backend: str = "made") -> EventCounts:
        names = (graph.input.name, *graph.spiking)
        by_name = dict(zip(names, spikes, strict=True))
        events = {}
        for projection in graph.projections:
            dense = projection.connection.to_csr().to_scipy().toarray()
            totals = [0] * len(spikes[0])
            for image, row in enumerate(by_name[projection.pre].tolist()):
                for neuron, s in enumerate(row):
                    totals[image] += s * sum(1 for weight in dense[neuron].tolist() if weight)
            events[projection.key] = np.array(totals, np.int64)
        return EventCounts(
            backend=backend,
            steps=steps,
            images=len(spikes[0]),
            spikes={name: SpikeCounts(s, np.zeros_like(s)) for name, s in by_name.items()},
            events=events,
            counting=dict.fromkeys(events, "measured"),
        )

    return make
