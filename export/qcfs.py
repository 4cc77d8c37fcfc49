"""QCFS conversion: a trained multilayer perceptron becomes an integer SpikingGraph (Bu et al., ICLR 2022).

An integrate-and-fire neuron with threshold lambda, initial membrane lambda / 2 and reset by subtraction, driven by a constant
current for T = L steps, fires exactly as often as the QCFS activation has levels. Spikes are unit events here: their amplitude,
lambda, is folded into the outgoing weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparsespike.ann.encoding import Encoding
from sparsespike.ann.models import MLP
from sparsespike.common.errors import GraphError, ModelError
from sparsespike.export.affine import AffineLayer, FoldedNetwork, fold_constants, fold_input, qcfs_levels
from sparsespike.export.fidelity import integer_levels
from sparsespike.export.graph import Population, Projection, SpikingGraph
from sparsespike.export.mlp import read_mlp
from sparsespike.export.quantise import RoundedLayer, check_bits, round_layer
from sparsespike.export.report import ConversionReport, LayerReport

INPUT = "input"
READOUT = "readout"


class Conversion(NamedTuple):
    """A spiking graph and what became of the network on the way."""

    graph: SpikingGraph
    report: ConversionReport
    kept: Mapping[str, NDArray[np.int64]]
    """For each hidden population the ANN neurons that it holds, in order."""


def convert_qcfs(model: MLP, encoding: Encoding, bits: int = 16, *, provenance: Mapping[str, Any] | None = None) -> Conversion:
    """Convert a multilayer perceptron with QCFS activations.

    Parameters
    ----------
    model : MLP
    encoding : Encoding
        How integer pixels stand for the model's real inputs; folded into the first projection and its biases.
    bits : int
        Width of a weight, sign included, 2 to 24.
    provenance : mapping, optional
        JSON values to keep in the graph beside the ones written here (method, T, bits, encoding, sparsity, versions, the report):
        data set, seed, accuracy of the ANN ...

    Returns
    -------
    Conversion
        Populations ``input``, ``hidden1`` ... and ``readout``. Their links are the ANN's, except those of hidden neurons
        without fan-in (see :func:`sparsespike.export.affine.fold_constants`), which the report counts.

    Raises
    ------
    ModelError
        If the model is no such perceptron, a weight is not finite, a lambda is not positive, or a layer has no link.
    ConfigError
        If ``bits`` is out of range.
    """
    check_bits(bits)
    layers, levels = read_mlp(model)
    folded = _fold(layers, levels, encoding)
    rounded = [round_layer(layer, bits) for layer in folded.layers]
    report = ConversionReport("qcfs", bits, levels, tuple(_layer_reports(layers, folded, rounded)))
    kept = {layer.name: kept for layer, kept in zip(folded.layers[:-1], folded.kept, strict=False)}
    written = {
        "method": "qcfs",
        "T": levels,
        "bits": bits,
        "encoding": encoding.to_dict(),
        "sparsity": {layer.name: layer.sparsity for layer in report.layers},
        "versions": {package: version(package) for package in ("sparsespike", "numpy", "torch")},
        "conversion": report.to_dict(),
    }
    graph = _assemble([layer.name for layer in layers], rounded, encoding, {**(provenance or {}), **written})
    for projection, layer in zip(graph.projections, report.layers, strict=True):
        if projection.connection.nnz != layer.nnz_ann - layer.links_removed:
            raise GraphError(
                f"projection into {layer.name!r}: found {projection.connection.nnz} synapses, expected {layer.nnz_ann} links "
                f"minus {layer.links_removed} of removed neurons; this is a mistake in the conversion: please report it"
            )
    return Conversion(graph, report, kept)


@dataclass(frozen=True)
class RoundingCost:
    """What rounding to integers does to the quantised ANN, before any spike.

    Attributes
    ----------
    bits : int
    ann_accuracy, accuracy : float
        Of the ANN in float64, and of the ANN with the graph's integers.
    changed : float
        Fraction of images whose predicted class changed.
    levels_changed : dict of population to float
        Fraction of (image, neuron) pairs whose activation level changed.
    """

    bits: int
    ann_accuracy: float
    accuracy: float
    changed: float
    levels_changed: Mapping[str, float]


def rounding_cost(
    model: MLP, encoding: Encoding, pixels: NDArray[Any], labels: NDArray[Any], bits: Iterable[int] = (24, 16, 8)
) -> tuple[RoundingCost, ...]:
    """Measure what a conversion's rounding costs: the ANN in float64 beside the same ANN in the integers of the graph.

    Parameters
    ----------
    model : MLP
    encoding : Encoding
    pixels : integer array, shape (B, N) or (B, C, y, x)
        Images; evaluated at once, so a few thousand at most for wide networks.
    labels : integer array, shape (B,)
    bits : iterable of int
        Widths to measure.
    """
    layers, levels = read_mlp(model)
    network = _fold(layers, levels, encoding).layers
    rates = np.asarray(pixels).reshape(len(pixels), -1)
    real = {}
    for layer in network[:-1]:
        real[layer.name] = qcfs_levels(layer.drive(rates), layer.lam or 1.0, levels)
        rates = real[layer.name] / levels
    ann_class = network[-1].drive(rates).argmax(axis=1)
    costs = []
    for width in bits:
        integer = integer_levels(convert_qcfs(model, encoding, width).graph, pixels, levels)
        predicted = integer[READOUT].argmax(axis=1)
        costs.append(
            RoundingCost(
                bits=width,
                ann_accuracy=float(np.mean(ann_class == labels)),
                accuracy=float(np.mean(predicted == labels)),
                changed=float(np.mean(predicted != ann_class)),
                levels_changed={name: float(np.mean(integer[name] != found)) for name, found in real.items()},
            )
        )
    return tuple(costs)


def _fold(layers: list[AffineLayer], levels: int, encoding: Encoding) -> FoldedNetwork:
    """Layers that take pixels and unit spikes: input encoding, constant neurons and spike amplitudes folded in."""
    inputs = layers[0].weights.shape[1]
    pixels, rest = divmod(inputs, len(encoding.mean))
    if rest:
        raise ModelError(f"model: found {inputs} inputs, expected a multiple of the encoding's {len(encoding.mean)} channels")
    first = fold_input(layers[0], np.repeat(encoding.scale, pixels), np.repeat(encoding.offset, pixels))
    network = fold_constants([first, *layers[1:]], levels)
    amplitudes = [1.0] + [layer.lam or 1.0 for layer in network.layers[:-1]]
    unit = (replace(layer, weights=a * layer.weights) for a, layer in zip(amplitudes, network.layers, strict=True))
    return replace(network, layers=tuple(unit))


def _layer_reports(layers: list[AffineLayer], network: FoldedNetwork, rounded: list[RoundedLayer]) -> Iterable[LayerReport]:
    for i, (layer, integer) in enumerate(zip(layers, rounded, strict=True)):
        possible = layer.weights.shape[0] * layer.weights.shape[1]
        unread = network.layers[i + 1].fan_out == 0 if i + 1 < len(layers) else np.zeros(0)
        yield LayerReport(
            name=layer.name,
            neurons_ann=layer.weights.shape[0],
            neurons=integer.connection.n_post,
            silent=network.silent[i],
            folded=network.folded[i],
            without_fan_out=int(np.count_nonzero(unread)),
            nnz_ann=layer.weights.nnz,
            zero_links=layer.links - layer.weights.nnz,
            links_removed=network.links_removed[i],
            nnz=integer.connection.nnz,
            sparsity=1 - layer.weights.nnz / possible,
            raised=integer.raised,
            weight_error=integer.weight_error,
            threshold_error=integer.threshold_error,
            scale_min=float(integer.scale.min()),
            scale_max=float(integer.scale.max()),
        )


def _assemble(names: list[str], rounded: list[RoundedLayer], encoding: Encoding, provenance: Mapping[str, Any]) -> SpikingGraph:
    populations = [
        Population(
            name=INPUT,
            shape=(rounded[0].connection.shape[0],),
            kind="input",
            value_range=encoding.value_range,
            scale=np.asarray(1.0 / encoding.unit),
        )
    ]
    for name, layer in zip(names, rounded, strict=True):
        populations.append(
            Population(
                name=name,
                shape=(layer.connection.n_post,),
                kind="readout" if layer.threshold is None else "if",
                threshold=layer.threshold,
                v_init=np.zeros_like(layer.bias) if layer.threshold is None else layer.threshold // 2,
                bias=layer.bias,
                scale=layer.scale,
            )
        )
    keys = zip([INPUT, *names], names, rounded, strict=False)
    return SpikingGraph(populations, [Projection(pre, post, layer.connection) for pre, post, layer in keys], provenance)
