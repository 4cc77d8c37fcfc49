"""QCFS conversion: a trained network becomes an integer SpikingGraph (Bu et al., ICLR 2022).

An integrate-and-fire neuron with threshold lambda, initial membrane lambda / 2 and reset by subtraction, driven by a constant
current for T = L steps, fires exactly as often as the QCFS activation has levels. Spikes are unit events here: their amplitude,
lambda, is folded into the outgoing weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from sparsespike.ann.encoding import Encoding
from sparsespike.common.errors import ModelError
from sparsespike.export.affine import READOUT, affine_populations
from sparsespike.export.build import Conversion, Method, build_graph
from sparsespike.export.calibrate import real_inputs
from sparsespike.export.fidelity import integer_levels
from sparsespike.export.network import Activate, FloatArray, Network
from sparsespike.export.quantise import check_bits
from sparsespike.export.source import check_activations, read_network


def convert_qcfs(
    model: nn.Module,
    encoding: Encoding,
    bits: int = 16,
    *,
    input_shape: Sequence[int] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Conversion:
    """Convert a network with QCFS activations.

    Parameters
    ----------
    model : Module
        A network of this package, or any model that :func:`sparsespike.export.trace.trace` accepts.
    encoding : Encoding
        How integer pixels stand for the model's real inputs; folded into the first projections and their biases.
    bits : int
        Width of a weight, sign included, 2 to 24.
    input_shape : (N,) or (C, y, x), optional
        Of one input; known for the networks of this package.
    provenance : mapping, optional
        JSON values to keep in the graph beside the ones written here (method, T, bits, encoding, sparsity, versions, the report):
        data set, seed, accuracy of the ANN ...

    Returns
    -------
    Conversion
        Populations ``input``, one for each activation, and ``readout``. Their links are the ANN's, except those of hidden
        neurons without fan-in (see :func:`sparsespike.export.affine.remove_constants`), which the report counts.

    Raises
    ------
    ModelError
        If a layer cannot be converted, a weight is not finite, a lambda is not positive, or a layer has no link.
    ConfigError
        If ``bits`` is out of range.
    """
    check_bits(bits)
    network = read_network(model, input_shape)
    levels = _levels(network)
    return build_graph(
        affine_populations(network, encoding),
        {node.name: _threshold(node.layer, node.shape) for node in network.activations if isinstance(node.layer, Activate)},
        network.input_shape,
        encoding,
        Method("qcfs", "if", 0.5, {"levels": levels}),
        bits,
        {**(provenance or {}), "T": levels},
    )


def _levels(network: Network) -> int:
    advice = "train the model with activation='qcfs', or convert it with another method"
    levels = {activation.levels for activation in check_activations(network, "qcfs", advice)}
    if len(levels) != 1 or None in levels:
        raise ModelError(f"model: found QCFS levels {sorted(n for n in levels if n)}, expected one L for all layers")
    return levels.pop() or 1


def _threshold(activation: Activate, shape: tuple[int, ...]) -> FloatArray:
    """lambda of each neuron, shape (N,)."""
    lam = np.asarray(activation.lam)
    return np.broadcast_to(lam.reshape((-1, *(1,) * (len(shape) - 1))), shape).reshape(-1).copy()


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
    model: nn.Module,
    encoding: Encoding,
    pixels: NDArray[Any],
    labels: NDArray[Any],
    bits: Iterable[int] = (24, 16, 8),
    *,
    input_shape: Sequence[int] | None = None,
) -> tuple[RoundingCost, ...]:
    """Measure what a conversion's rounding costs: the ANN in float64 beside the same ANN in the integers of the graph.

    Parameters
    ----------
    model : Module
        With QCFS activations.
    encoding : Encoding
    pixels : integer array, shape (B, N) or (B, C, y, x)
        Images; evaluated at once, so a few thousand at most for wide networks.
    labels : integer array, shape (B,)
    bits : iterable of int
        Widths to measure.
    input_shape : (N,) or (C, y, x), optional
        Of one input; known for the networks of this package.
    """
    network = read_network(model, input_shape)
    levels = _levels(network)
    outputs = network.evaluate(real_inputs(network, encoding, pixels))
    real = {
        node.name: np.rint(outputs[node.name].reshape(len(pixels), -1) * levels / _threshold(node.layer, node.shape))
        for node in network.activations
        if isinstance(node.layer, Activate)
    }
    ann_class = outputs[network.nodes[-1].name].argmax(axis=1)
    costs = []
    for width in bits:
        graph, _, kept = convert_qcfs(model, encoding, width, input_shape=input_shape)
        integer = integer_levels(graph, pixels, levels)
        predicted = integer[READOUT].argmax(axis=1)
        costs.append(
            RoundingCost(
                bits=width,
                ann_accuracy=float(np.mean(ann_class == labels)),
                accuracy=float(np.mean(predicted == labels)),
                changed=float(np.mean(predicted != ann_class)),
                levels_changed={name: float(np.mean(integer[name] != real[name][:, at])) for name, at in kept.items()},
            )
        )
    return tuple(costs)
