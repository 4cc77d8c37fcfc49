"""Rates: a neuron that fires n times in T steps stands for amplitude * n / T (QCFS, SNM, percentile balancing)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.base import RunResult
from sparsespike.common.errors import GraphError
from sparsespike.export.build import OUT_OF_REACH, Conversion
from sparsespike.export.connections import Connection, CSRConnection
from sparsespike.export.diagnosis.code import IntArray, Replacement, constants
from sparsespike.export.fidelity import exact_product
from sparsespike.export.graph import Population, SpikingGraph
from sparsespike.export.network import Activate, Convolve, FloatArray, Network


@dataclass(frozen=True, eq=False)
class RateNeurons:
    """The neurons of one activation of the ANN, in its units. All arrays have shape (N,).

    Attributes
    ----------
    kept : int64 array, shape (neurons of the graph,)
        Those that the graph holds.
    fires : bool array
        Those that it holds and that can fire.
    amplitude, v_init : float64 arrays
        Threshold, which is what a spike stands for, and initial membrane; 1 and 0 for a neuron that does not fire.
    constant : float64 array
        What the others send at every step.
    signed : bool
        Whether spikes can be taken back.
    """

    kept: IntArray
    fires: NDArray[np.bool_]
    amplitude: FloatArray
    v_init: FloatArray
    constant: FloatArray
    signed: bool

    def held(self, value: FloatArray) -> FloatArray:
        """Activations of the firing neurons, and the constants of the others."""
        return np.where(self.fires, value, self.constant)


@dataclass(frozen=True, eq=False)
class RateCode:
    """Rates: a neuron that fires n times in T steps stands for amplitude * n / T.

    Parameters
    ----------
    network : Network
    neurons : mapping of activation to RateNeurons
    steps : int
        T.
    """

    network: Network
    neurons: Mapping[str, RateNeurons]
    steps: int

    @property
    def replacements(self) -> tuple[Replacement, ...]:
        """The method's activation, then the rates of T steps."""
        levels = {layer.levels for node in self.network.activations if isinstance(layer := node.layer, Activate)} - {None}
        name = f"quantised ANN, L = {levels.pop()} levels" if levels else "ANN, clipped at the thresholds"
        return (
            Replacement(name, "clipping", self.clipped),
            Replacement(f"ANN, rates of T = {self.steps} steps", "levels", self.rates),
        )

    def record(self, graph: SpikingGraph) -> tuple[str, ...]:
        """None: counts are enough."""
        return ()

    def clipped(self, name: str, layer: Activate, drive: FloatArray) -> FloatArray:
        """QCFS as trained; ReLU clipped at the threshold, above which a rate cannot go."""
        if layer.kind == "qcfs":
            return layer(drive)
        neurons = self.neurons[name]
        return neurons.held(np.clip(drive.reshape(len(drive), -1), 0.0, neurons.amplitude)).reshape(drive.shape)

    def rates(self, name: str, layer: Activate, drive: FloatArray) -> FloatArray:
        """``amplitude / T * clip(floor((T drive + v_init) / amplitude), 0, T)``: the rate under a constant current."""
        neurons = self.neurons[name]
        reached = np.floor((self.steps * drive.reshape(len(drive), -1) + neurons.v_init) / neurons.amplitude)
        return neurons.held(neurons.amplitude / self.steps * np.clip(reached, 0, self.steps)).reshape(drive.shape)

    def simulate(self, x: FloatArray) -> IntArray:
        """The ANN's own layers, run anew at every step, with integrate-and-fire neurons of threshold ``amplitude``."""
        membranes = {name: np.tile(neurons.v_init, (len(x), 1)) for name, neurons in self.neurons.items()}
        net = {name: np.zeros(membrane.shape, np.int64) for name, membrane in membranes.items()}

        def fire(name: str, layer: Activate, drive: FloatArray) -> FloatArray:
            neurons = self.neurons[name]
            membranes[name] += drive.reshape(len(x), -1)
            spikes = (membranes[name] >= neurons.amplitude).astype(np.int64)
            if neurons.signed:
                spikes -= (membranes[name] <= -neurons.amplitude) & (net[name] > 0)
            membranes[name] -= neurons.amplitude * spikes
            net[name] += spikes
            return neurons.held(neurons.amplitude * spikes).reshape(drive.shape)

        last = self.network.nodes[-1].name
        scores = np.cumsum([self.network.run(x, fire)[last] for _ in range(self.steps)], axis=0)
        return np.asarray(scores.argmax(axis=2).T, np.int64)

    def decoded(self, result: RunResult, graph: SpikingGraph) -> dict[str, FloatArray]:
        """``amplitude * (positive - negative spikes) / T``."""
        return {name: self._spread(name, _net(result, name)) for name in self.neurons}

    def even(self, result: RunResult, graph: SpikingGraph, inputs: IntArray) -> dict[str, FloatArray]:
        """As ``rates``, in the integers of the graph, for the sum of all that arrived in the run."""
        values = {name: _net(result, name) for name in self.neurons} | {graph.input.name: self.steps * inputs}
        counts = {}
        for name in self.neurons:
            population = graph.population(name)
            if population.threshold is None or population.reset != "subtract" or population.bias_mode != "every_step":
                raise GraphError(
                    f"population {name!r}: found kind {population.kind!r}, reset {population.reset!r} and bias_mode "
                    f"{population.bias_mode!r}, expected rate-coded neurons with reset by subtraction and a bias at every step"
                )
            drive = self.steps * population.bias + _drive(graph, population, values)
            counts[name] = np.clip((drive + population.v_init) // population.threshold, 0, self.steps)
        return {name: self._spread(name, count) for name, count in counts.items()}

    def scores(self, result: RunResult, graph: SpikingGraph) -> FloatArray:
        """The readout's membrane over T."""
        return np.asarray(result.readout[:, -1] * graph.readout.scale / self.steps, np.float64)

    def spiked(self, result: RunResult, name: str) -> NDArray[np.bool_]:
        """More spikes than were taken back."""
        return np.asarray(_net(result, name) > 0)

    def saturated(self, result: RunResult, name: str) -> NDArray[np.bool_]:
        """A spike at every step."""
        return np.asarray(_net(result, name) == self.steps)

    def _spread(self, name: str, counts: IntArray) -> FloatArray:
        """Activations of all neurons of the ANN, from net spike counts of those in the graph."""
        neurons = self.neurons[name]
        values = np.zeros((len(counts), len(neurons.fires)))
        values[:, neurons.kept] = counts
        return neurons.held(neurons.amplitude * values / self.steps)


def rate_code(network: Network, conversion: Conversion, steps: int) -> RateCode:
    """The code of a rate-coded conversion; give the one of most bits, its thresholds are the finest."""
    sent = constants(network, conversion.kept, lambda name, layer, drive: layer(drive))
    neurons = {}
    for node in network.activations:
        population, kept = conversion.graph.population(node.name), conversion.kept[node.name]
        assert population.threshold is not None  # rate-coded
        scale = np.asarray(population.scale, np.float64).reshape(-1)
        scale = np.repeat(scale, population.size // len(scale))
        alive = population.threshold < OUT_OF_REACH
        size = int(np.prod(node.shape))
        fires, amplitude, v_init = np.zeros(size, bool), np.ones(size), np.zeros(size)
        fires[kept] = alive
        amplitude[kept[alive]] = (population.threshold * scale)[alive]
        v_init[kept[alive]] = (population.v_init * scale)[alive]
        neurons[node.name] = RateNeurons(kept, fires, amplitude, v_init, sent[node.name], population.kind == "signed_if")
    return RateCode(network, neurons, steps)


def _net(result: RunResult, name: str) -> IntArray:
    return result.spikes[name].positive - result.spikes[name].negative


def _drive(graph: SpikingGraph, population: Population, values: Mapping[str, IntArray]) -> IntArray:
    """Sum of all that arrived at a population, without the bias, shape (B, N)."""
    total = np.zeros((len(values[graph.input.name]), population.size), np.int64)
    for projection in graph.into(population.name):
        total += product(values[projection.pre], projection.connection)
    return total


def product(values: IntArray, connection: Connection) -> IntArray:
    """``values @ weights`` in exact integers, shapes (B, n_pre) x (n_pre, n_post); a convolution is not expanded.

    Raises
    ------
    GraphError
        If a sum may leave the range in which it is exact.
    """
    if isinstance(connection, CSRConnection):
        return exact_product(values, connection)
    kernel = connection.kernel.astype(np.float64)
    largest = int(np.abs(values).max(initial=0)) * int(np.abs(kernel).sum(axis=(1, 2, 3)).max())
    if largest >= 2**53:
        raise GraphError(f"convolution: found sums of up to {largest}, expected less than 2^53; convert with fewer bits")
    bias = np.zeros(len(kernel))
    convolve = Convolve(
        kernel, bias, connection.stride, connection.padding, connection.dilation, connection.groups, connection.nnz
    )
    summed = convolve(values.reshape(len(values), *connection.input_shape).astype(np.float64))
    return summed.reshape(len(values), -1).astype(np.int64)
