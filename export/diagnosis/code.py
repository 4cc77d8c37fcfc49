"""What a diagnosis asks of a method: how its spiking neurons stand for activations, in the ANN's own units.

A code belongs to a model and one conversion of it, the finest; with it any graph of the same model can be read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.base import RunResult
from sparsespike.export.graph import SpikingGraph
from sparsespike.export.network import Activate, FloatArray, Network

IntArray = NDArray[np.int64]
Activation = Callable[[str, Activate, FloatArray], FloatArray]
"""From an activation's name, its layer and its drive of shape (B, *shape) to its output, of the same shape."""


class Replacement(NamedTuple):
    """A stage between the ANN and the spikes: the ANN with other activations."""

    stage: str
    cause: str
    """Cause of error (see ``layers.CAUSES``) that comes in with it."""
    activation: Activation


class Code(Protocol):
    """How the spikes of a method stand for activations. Arrays by population have shape (B, neurons of the activation)."""

    @property
    def network(self) -> Network:
        """The ANN, with one activation a population."""
        ...

    @property
    def replacements(self) -> Sequence[Replacement]:
        """From the ANN's own activations towards what the spikes can say if the input comes evenly."""
        ...

    def record(self, graph: SpikingGraph) -> Sequence[str]:
        """Populations whose rasters are needed."""
        ...

    def simulate(self, x: FloatArray) -> IntArray | None:
        """Classes after each step, shape (B, steps), of the spiking network in floating point, before any rounding.

        None where it is the last replacement, by definition.
        """
        ...

    def decoded(self, result: RunResult, graph: SpikingGraph) -> dict[str, FloatArray]:
        """Activations that the spikes of a run stand for, by population."""
        ...

    def even(self, result: RunResult, graph: SpikingGraph, inputs: IntArray) -> dict[str, FloatArray]:
        """Activations that the graph would have sent, by population, if each had got its input of the run evenly."""
        ...

    def scores(self, result: RunResult, graph: SpikingGraph) -> FloatArray:
        """Class scores in the ANN's units, shape (B, classes)."""
        ...

    def spiked(self, result: RunResult, name: str) -> NDArray[np.bool_]:
        """Which neurons of the graph spiked at all, shape (B, N)."""
        ...

    def saturated(self, result: RunResult, name: str) -> NDArray[np.bool_]:
        """Which neurons of the graph sent the largest value that they can, shape (B, N)."""
        ...


def constants(network: Network, kept: Mapping[str, IntArray], activation: Activation) -> dict[str, FloatArray]:
    """What the neurons that a graph does not hold send at every step, and 0 for the others, by activation, shape (N,).

    A neuron was removed because no living one leads to it: then it sends its constant; or because it was never active: then 0.
    Two different random states of all living neurons tell these apart: what no living neuron reaches is the same in both.
    """
    generator = np.random.default_rng(0)
    found: dict[str, FloatArray] = {}

    def activate(name: str, layer: Activate, drive: FloatArray) -> FloatArray:
        flat, sent = drive.reshape(2, -1), activation(name, layer, drive).reshape(2, -1)
        living = np.zeros(flat.shape[1], bool)
        living[kept[name]] = True
        found[name] = np.where(~living & (flat[0] == flat[1]), sent[0], 0.0)
        return np.where(living, generator.random(flat.shape), found[name]).reshape(drive.shape)

    network.run(generator.random((2, *network.input_shape)), activate)
    return found
