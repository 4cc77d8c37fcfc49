"""A backend of another package, whole: integrate-and-fire networks by sparse matrix products of scipy, all images at once.

Run this file to hold it to the conformance suite::

    python examples/own_backend/scipy_backend.py
"""

from __future__ import annotations

import time
from collections.abc import Collection
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from sparsespike.backends.base import Counting, InputMode, RunResult, SpikeCounts, prepare, updates
from sparsespike.backends.testing import CASES, check_conformance
from sparsespike.common.errors import MembraneOverflowError
from sparsespike.export.bounds import bounds
from sparsespike.export.graph import Key, SpikingGraph

Int64Array = NDArray[np.int64]
KINDS = ("input", "if", "readout")


class ScipyBackend:
    """Step by step through time; in each step, through the populations from the input to the readout."""

    name = "scipy"

    def check(self, graph: SpikingGraph) -> list[str]:
        """Reasons why this backend cannot run the graph; empty if it can."""
        others = [p for p in graph.populations if p.kind not in KINDS]
        return [f"population {p.name!r} is of kind {p.kind!r}, expected {', '.join(KINDS)}" for p in others]

    def run(
        self, graph: SpikingGraph, inputs: NDArray[Any], steps: int, *, record: Collection[str] = (), input: InputMode = "events"
    ) -> RunResult:
        """Run B images for ``steps`` local steps; see ``sparsespike.backends.base.Backend``."""
        begin = time.perf_counter()
        values = prepare(self, graph, inputs, steps, record, input)
        for name, bound in bounds(graph, steps).items():
            if bound.membrane >= 2**63:
                raise MembraneOverflowError(
                    f"backend 'scipy': a membrane of {name!r} can reach {bound.membrane}; use fewer steps"
                )
        weights = {p.key: p.connection.to_csr().to_scipy().astype(np.int64) for p in graph.projections}
        built = time.perf_counter()
        emitted, readout = _simulate(graph, weights, values, steps, input)
        ran = time.perf_counter()

        # Scipy adds the weights where we cannot count them, so these counts are `computed`, and said to be.
        events_by_step: dict[Key, Int64Array] = {}
        for projection in graph.projections:
            active = emitted[projection.pre] != 0
            if input == "current" and projection.pre == graph.input.name:
                active[:] = _is_active(graph.input.bias_mode, steps)[:, None]  # a current is charged for every synapse
            events_by_step[projection.key] = active @ projection.connection.to_csr().fan_out
        counting: dict[Key, Counting] = dict.fromkeys(events_by_step, "computed")
        neuron_updates, bias_additions = updates(graph, len(values), steps)
        spikes = {name: _count(x, axis=1) for name, x in emitted.items()}
        return RunResult(
            backend=self.name,
            version=scipy.__version__,
            dtype="int64",
            steps=steps,
            readout=readout,
            spikes=spikes,
            spikes_by_step={name: _count(x, axis=2) for name, x in emitted.items()},
            events={key: counts.sum(axis=1) for key, counts in events_by_step.items()},
            events_by_step=events_by_step,
            counting=counting,
            neuron_updates=neuron_updates,
            bias_additions=bias_additions,
            messages={name: counts.events.sum(axis=1) for name, counts in spikes.items()},
            rasters={name: emitted[name].astype(np.int8) for name in record},
            wall_seconds={"build": built - begin, "run": ran - built},
        )


def _simulate(
    graph: SpikingGraph, weights: dict[Key, Any], values: Int64Array, steps: int, input: InputMode
) -> tuple[dict[str, Int64Array], Int64Array]:
    """What the input and the spiking populations emit, and the readout's membranes, each of shape (B, steps, N)."""
    first = {p.key: values @ weights[p.key] for p in graph.out_of(graph.input.name)} if input == "current" else {}
    emitted = {p.name: np.zeros((len(values), steps, p.size), np.int64) for p in graph.populations}
    membranes = {p.name: np.tile(p.v_init, (len(values), 1)) for p in graph.populations}
    active = {p.name: _is_active(p.bias_mode, steps) for p in graph.populations}
    for t in range(steps):
        for name in graph.order:  # all before it have taken local step t, and their spikes arrive in its local step t
            population = graph.population(name)
            if population.kind == "input":
                emitted[name][:, t] = values * active[name][t]
                continue
            v = membranes[name]
            v += population.bias * active[name][t]
            for projection in graph.into(name):
                if projection.key in first:
                    v += first[projection.key] * active[projection.pre][t]
                else:
                    v += emitted[projection.pre][:, t] @ weights[projection.key]
            if population.kind == "readout":
                emitted[name][:, t] = v
                continue
            assert population.threshold is not None  # kind `if` has one
            fires = v >= population.threshold
            emitted[name][:, t] = fires
            v[:] = np.where(fires, v - population.threshold if population.reset == "subtract" else 0, v)
    readout = emitted.pop(graph.readout.name)
    return emitted, readout


def _is_active(bias_mode: str, steps: int) -> NDArray[np.bool_]:
    """Whether a bias is added, or a value emitted, in each step."""
    return np.arange(steps) < (steps if bias_mode == "every_step" else 1)


def _count(emitted: Int64Array, axis: int) -> SpikeCounts:
    return SpikeCounts(np.count_nonzero(emitted > 0, axis), np.count_nonzero(emitted < 0, axis))


if __name__ == "__main__":
    refused = check_conformance(ScipyBackend())
    print(f"passed {len(CASES) - len(refused)} of {len(CASES)} cases, refused {len(refused)}:")
    for case, reasons in refused.items():
        print(f"  {case}: {reasons[0]}")
