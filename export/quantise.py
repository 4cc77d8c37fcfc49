"""Scale and round: from real weights, thresholds and biases to integers, once.

Scaling a neuron's weights, threshold, bias and membrane together does not change when it fires. So every neuron takes the largest
scale at which its weights fit the given bits, and is rounded there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from sparsespike.common.errors import ConfigError
from sparsespike.export.affine import AffineLayer, FloatArray
from sparsespike.export.connections import CSRConnection

MIN_BITS, MAX_BITS = 2, 24
FIELD_LIMIT = 2.0**44
"""Largest threshold or bias: 512 steps of it stay below 2^53, where float64 ceases to be exact."""


@dataclass(frozen=True, eq=False)
class RoundedLayer:
    """An affine layer in integers; real value = integer * scale.

    Attributes
    ----------
    connection : CSRConnection
        Rows = presynaptic neurons: the transpose of the layer's weights, with the same links.
    threshold : int64 array, shape (outputs,), or None
        Even and positive; None for the readout.
    bias : int64 array, shape (outputs,)
    scale : float64 array, shape (outputs,), or () for the readout
    raised : int
        Weights that would have rounded to zero and became +1 or -1.
    weight_error : float
        Largest rounding error of a weight, relative to the largest weight that shares its scale.
    threshold_error : float
        Largest rounding error of a threshold, relative to it.
    """

    connection: CSRConnection
    threshold: NDArray[np.int64] | None
    bias: NDArray[np.int64]
    scale: FloatArray
    raised: int
    weight_error: float
    threshold_error: float


def check_bits(bits: int) -> None:
    """Refuse a width outside 2..24.

    Raises
    ------
    ConfigError
        If ``bits`` is not such an integer.
    """
    if isinstance(bits, bool) or not isinstance(bits, (int, np.integer)) or not MIN_BITS <= bits <= MAX_BITS:
        raise ConfigError(f"bits: found {bits!r}, expected an integer from {MIN_BITS} to {MAX_BITS} (8 for Loihi, 16 by default)")


def round_layer(layer: AffineLayer, bits: int) -> RoundedLayer:
    """Scale and round a layer: one scale a neuron, or one for the whole readout, whose membranes are compared with each other.

    Weights become integers of magnitude 1 to ``2^(bits-1) - 1``: one that is not zero never becomes zero, so the topology stays.
    Thresholds become even, so that half a threshold is an exact initial membrane. The scale is smaller than the weights allow
    where a threshold or bias would leave ``FIELD_LIMIT``.

    Parameters
    ----------
    layer : AffineLayer
        With the preceding layer's spike amplitude already in its weights. At least one link; for hidden layers, one a neuron.
    bits : int
        Width of a weight, sign included.
    """
    largest_integer = 2 ** (bits - 1) - 1
    outputs = layer.weights.shape[0]
    row = np.repeat(np.arange(outputs), layer.fan_in)
    magnitude = np.abs(layer.weights.data)
    largest = np.zeros(outputs)
    np.maximum.at(largest, row, magnitude)
    field = np.maximum(np.abs(layer.bias), layer.lam or 0.0)
    if layer.lam is None:
        largest, field = np.full(outputs, largest.max()), np.full(outputs, field.max())
    with np.errstate(over="ignore", divide="ignore"):  # an infinite quotient loses against the other one
        factor = np.minimum(largest_integer / largest, np.minimum(FIELD_LIMIT / field, np.finfo(np.float64).max))
    exact = layer.weights.data * factor[row]
    rounded = np.rint(exact)
    raised = rounded == 0
    rounded[raised] = np.sign(layer.weights.data[raised])
    threshold, threshold_error = None, 0.0
    if layer.lam is not None:
        exact_threshold = layer.lam * factor
        threshold = 2 * np.maximum(np.rint(exact_threshold / 2), 1).astype(np.int64)
        threshold_error = float(np.max(np.abs(threshold - exact_threshold) / exact_threshold))
    integers = rounded.astype(np.int32)
    links = sp.csr_matrix((integers, layer.weights.indices, layer.weights.indptr), shape=layer.weights.shape)
    return RoundedLayer(
        connection=CSRConnection.from_scipy(links.T),
        threshold=threshold,
        bias=np.rint(layer.bias * factor).astype(np.int64),
        scale=1.0 / (factor if layer.lam is not None else factor[0]),
        raised=int(np.count_nonzero(raised)),
        weight_error=float(np.max(np.abs(rounded - exact) / np.maximum(largest * factor, 1.0)[row])),
        threshold_error=threshold_error,
    )
