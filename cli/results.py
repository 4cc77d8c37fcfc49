"""A run as a JSON-ready document: integer counts summed over images, with units in the names."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.base import RunResult
from sparsespike.backends.bulk import BulkResult
from sparsespike.export.graph import SpikingGraph


def accuracy_by_step(result: RunResult | BulkResult, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of images classified correctly after each step, shape (steps,)."""
    return np.asarray((result.predictions == labels[:, None]).mean(axis=0), dtype=np.float64)


def run_document(graph: SpikingGraph, result: RunResult | BulkResult, labels: NDArray[np.int64] | None) -> dict[str, Any]:
    """What a run counted.

    Parameters
    ----------
    graph : SpikingGraph
    result : RunResult or BulkResult of B images
    labels : int64 array, shape (B,), or None
        Without them there is no accuracy.
    """
    accuracy = None if labels is None else accuracy_by_step(result, labels)
    # The graph's order, so that documents of different backends can be held side by side.
    emitting = (graph.input.name, *graph.spiking)
    keys = [projection.key for projection in graph.projections]
    return {
        "backend": result.backend,
        "version": result.version,
        "dtype": result.dtype,
        "graph_digest": graph.digest(),
        "images": result.images,
        "steps": result.steps,
        "accuracy": None if accuracy is None else accuracy[-1],
        "accuracy_by_step": accuracy,
        "populations": [
            {
                "population": name,
                "neurons": graph.population(name).size,
                "positive_spikes": int(result.spikes[name].positive.sum()),
                "negative_spikes": int(result.spikes[name].negative.sum()),
                "events_by_step": result.spikes_by_step[name].events.sum(axis=0),
            }
            for name in emitting
        ],
        "projections": [
            {
                "pre": pre,
                "post": post,
                "synapses": graph.projection(pre, post).connection.nnz,
                "synaptic_events": int(result.events[pre, post].sum()),
                "counting": result.counting[pre, post],
                "synaptic_events_by_image": result.events[pre, post],
            }
            for pre, post in keys
        ],
        "neuron_updates": {name: int(count.sum()) for name, count in result.neuron_updates.items()},
        "bias_additions": {name: int(count.sum()) for name, count in result.bias_additions.items()},
        "messages": {name: int(count.sum()) for name, count in result.messages.items()},
        "wall_seconds": dict(result.wall_seconds),
    }
