"""Windows: a neuron of kind ``aec`` stands for the sum of what its spikes carry, at most two in a window of slots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.base import RunResult
from sparsespike.export.aec import with_spiking_pools
from sparsespike.export.build import Conversion
from sparsespike.export.diagnosis.code import IntArray, Replacement, constants
from sparsespike.export.graph import SpikingGraph
from sparsespike.export.network import Activate, FloatArray, Network
from sparsespike.export.population import NEVER, Population

SPIKES = ("primary", "compensation")


@dataclass(frozen=True, eq=False)
class WindowNeurons:
    """The neurons of one activation of the ANN, in its units.

    Attributes
    ----------
    kept : int64 array
        Those that the graph holds.
    constant : float64 array, shape (N,)
        What the others send.
    primary, compensation : float64 array, shape (slots,)
        Thresholds; infinite in a slot without a spike.
    last : float
        What a compensation spike in the last slot stands for. Any other spike stands for its threshold.
    unit : float
        Real value of one unit of payload.
    """

    kept: IntArray
    constant: FloatArray
    primary: FloatArray
    compensation: FloatArray
    last: float
    unit: float


@dataclass(frozen=True, eq=False)
class WindowCode:
    """Exponential codes of at most two spikes.

    Parameters
    ----------
    network : Network
        With one activation a population: pools that spike included.
    neurons : mapping of activation to WindowNeurons
    """

    network: Network
    neurons: Mapping[str, WindowNeurons]

    @property
    def replacements(self) -> tuple[Replacement, ...]:
        """Clipping, then the code; of networks that were trained with the code, only this."""
        slots = len(next(iter(self.neurons.values())).primary)
        code = Replacement(f"ANN, exponential code of {slots} slots", "levels", self.sent)
        if any(isinstance(node.layer, Activate) and node.layer.kind == "aec" for node in self.network.activations):
            return (code,)
        return Replacement("ANN, clipped at the largest value of the code", "clipping", self.clipped), code

    def record(self, graph: SpikingGraph) -> tuple[str, ...]:
        """All: what a spike carries depends on its slot."""
        return graph.spiking

    def clipped(self, name: str, layer: Activate, drive: FloatArray) -> FloatArray:
        """ReLU, clipped at both spikes in slot 0."""
        neurons = self.neurons[name]
        return np.clip(drive, 0.0, neurons.primary[0] + neurons.compensation[0])

    def sent(self, name: str, layer: Activate, drive: FloatArray) -> FloatArray:
        """What is sent for a drive, slot by slot: a spike takes off and stands for its threshold."""
        if layer.kind == "aec":
            return layer(drive)
        neurons = self.neurons[name]
        left, first, second = drive, np.zeros(drive.shape, bool), np.zeros(drive.shape, bool)
        total = np.zeros(drive.shape)
        carried = np.append(neurons.compensation[:-1], neurons.last)
        for primary, compensation, second_carries in zip(neurons.primary, neurons.compensation, carried, strict=True):
            fires = ~first & (left >= primary)
            first |= fires
            total, left = np.where(fires, total + primary, total), np.where(fires, left - primary, left)
            fires = first & ~second & (left >= compensation)
            second |= fires
            total, left = np.where(fires, total + second_carries, total), np.where(fires, left - compensation, left)
        return total

    def simulate(self, x: FloatArray) -> None:
        """Nothing new: what a neuron sends depends on the sum of what it got alone."""
        return None

    def decoded(self, result: RunResult, graph: SpikingGraph) -> dict[str, FloatArray]:
        """Sum of the payloads, in the ANN's units."""
        found = {}
        for name, neurons in self.neurons.items():
            tables, raster = graph.population(name).tables, result.rasters[name]
            payloads = np.zeros((len(raster), raster.shape[2]), np.int64)
            for slot in range(raster.shape[1]):
                payloads += (raster[:, slot] & 1) * tables["primary_payload"][slot]
                payloads += (raster[:, slot] >> 1) * tables["compensation_payload"][slot]
            values = np.tile(neurons.constant, (len(raster), 1))
            values[:, neurons.kept] = neurons.unit * payloads
            found[name] = values
        return found

    def even(self, result: RunResult, graph: SpikingGraph, inputs: IntArray) -> dict[str, FloatArray]:
        """The same: a window sums up everything before the first spike."""
        return self.decoded(result, graph)

    def scores(self, result: RunResult, graph: SpikingGraph) -> FloatArray:
        """The readout's membrane after the last slot."""
        return np.asarray(result.readout[:, -1] * graph.readout.scale, np.float64)

    def spiked(self, result: RunResult, name: str) -> NDArray[np.bool_]:
        """At least one spike."""
        return np.asarray(result.spikes[name].events > 0)

    def saturated(self, result: RunResult, name: str) -> NDArray[np.bool_]:
        """Both spikes in slot 0."""
        return np.asarray(result.rasters[name][:, 0] == 3)


def window_code(network: Network, conversion: Conversion) -> WindowCode:
    """The code of an AEC conversion; give the one of most bits, its thresholds are the finest."""
    if not any(isinstance(node.layer, Activate) and node.layer.kind == "aec" for node in network.activations):
        network = with_spiking_pools(network)
    neurons = {
        node.name: _neurons(conversion.graph.population(node.name), conversion.kept[node.name]) for node in network.activations
    }
    sent = constants(network, conversion.kept, WindowCode(network, neurons).sent)
    return WindowCode(network, {name: replace(each, constant=sent[name]) for name, each in neurons.items()})


def _neurons(population: Population, kept: IntArray) -> WindowNeurons:
    tables, scale = population.tables, float(np.asarray(population.scale))
    thresholds, payloads = ({spike: tables[f"{spike}_{kind}"] for spike in SPIKES} for kind in ("threshold", "payload"))
    real = {spike: np.where(values == NEVER, np.inf, values * scale) for spike, values in thresholds.items()}
    # Thresholds and payloads of slot 0 are the same reals, rounded apart; the larger spike takes all bits of the payload.
    largest = max(SPIKES, key=lambda spike: int(payloads[spike][0]))
    unit = float(real[largest][0]) / int(payloads[largest][0])
    primary, compensation = (real[spike] for spike in SPIKES)
    last = compensation[-1] if compensation[-1] > 0 else unit * int(payloads["compensation"][-1])
    return WindowNeurons(kept, np.zeros(0), primary, compensation, float(last), unit)
