"""Scale and round: from real weights, thresholds and biases to integers, once.

Scaling a neuron's weights, threshold, bias and membrane together does not change when it fires. So every neuron takes the largest
scale at which its weights fit the given bits, and is rounded there; the neurons of a channel, which share their weights in a
convolution, share the scale too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from sparsespike.common.errors import ConfigError, GraphError
from sparsespike.export.affine import AffinePopulation
from sparsespike.export.connections import Connection, CSRConnection
from sparsespike.export.network import FloatArray
from sparsespike.export.operators import Kernel, Operator

MIN_BITS, MAX_BITS = 2, 24
FIELD_LIMIT = 2.0**44
"""Largest threshold or bias: 512 steps of it stay below 2^53, where float64 ceases to be exact."""


@dataclass(frozen=True, eq=False)
class RoundedPopulation:
    """A population in integers; real value = integer * scale.

    Attributes
    ----------
    into : mapping of population to Connection
        Rows = presynaptic neurons: the transpose of the population's operators, with the same links.
    threshold : int64 array, shape (N,), or None
        Even and positive; None where none was given.
    bias : int64 array, shape (N,)
    scale : float64 array, shape (N,), (C,) if a convolution leads here, or () where no threshold was given
    raised : int
        Weights that would have rounded to zero and became +1 or -1 (a convolution's counted once a kernel).
    weight_error : float
        Largest rounding error of a weight, relative to the largest weight that shares its scale.
    threshold_error : float
        Largest rounding error of a threshold, relative to it.
    """

    into: Mapping[str, Connection]
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


def round_population(
    population: AffinePopulation, threshold: FloatArray | None, bits: int, *, largest_field: float = 0.0
) -> RoundedPopulation:
    """Scale and round a population: one scale a neuron; one a channel, if a convolution leads here; one for the whole population
    without thresholds of its neurons' own: the readout, whose membranes are compared with each other, and kind ``aec``, whose
    neurons share their tables.

    Weights become integers of magnitude 1 to ``2^(bits-1) - 1``: one that is not zero never becomes zero, so the topology stays.
    Thresholds become even, so that half a threshold is an exact initial membrane. The scale is smaller than the weights allow
    where a threshold or bias would leave ``FIELD_LIMIT``.

    Parameters
    ----------
    population : AffinePopulation
        With the preceding populations' spike amplitudes already in its weights.
    threshold : float64 array, shape (N,), or None
        Positive; None for the readout and kind ``aec``.
    bits : int
        Width of a weight, sign included.
    largest_field : float
        Largest entry of the population's tables.
    """
    group = _groups(population, shared=threshold is None)
    groups = int(group[-1]) + 1
    largest, field = np.zeros(groups), np.zeros(groups)
    for operator in population.into.values():
        values, at = _weights(operator, group)
        np.maximum.at(largest, at, np.abs(values))
    np.maximum.at(field, group, np.maximum(np.abs(population.bias), largest_field if threshold is None else threshold))
    with np.errstate(over="ignore", divide="ignore"):  # an infinite quotient loses against the other one
        weightless = largest == 0  # a channel that was pruned away: its bias and threshold take the place of weights
        reference = np.where(weightless, np.where(field > 0, field, 1.0), largest)
        factor = np.minimum((2 ** (bits - 1) - 1) / reference, np.minimum(FIELD_LIMIT / field, np.finfo(np.float64).max))
    into, raised, error = {}, 0, 0.0
    for pre, operator in population.into.items():
        values, at = _weights(operator, group)
        exact = values * factor[at]
        rounded = np.rint(exact)
        lost = (rounded == 0) & (values != 0)
        rounded[lost] = np.sign(values[lost])
        into[pre] = integer_connection(operator, rounded.astype(np.int32))
        if into[pre].nnz != operator.nnz:
            raise GraphError(
                f"projection {pre!r} -> {population.name!r}: found {into[pre].nnz} synapses, expected {operator.nnz}; this is a "
                "mistake in the conversion: please report it"
            )
        raised += int(np.count_nonzero(lost))
        error = max(error, float(np.max(np.abs(rounded - exact) / np.maximum(reference * factor, 1.0)[at], initial=0.0)))
    integers, threshold_error = None, 0.0
    if threshold is not None:
        exact = threshold * factor[group]
        integers = 2 * np.maximum(np.rint(exact / 2), 1).astype(np.int64)
        threshold_error = float(np.max(np.abs(integers - exact) / exact))
    return RoundedPopulation(
        into=into,
        threshold=integers,
        bias=np.rint(population.bias * factor[group]).astype(np.int64),
        scale=1.0 / (factor if threshold is not None else factor[0]),
        raised=raised,
        weight_error=error,
        threshold_error=threshold_error,
    )


def _groups(population: AffinePopulation, shared: bool) -> NDArray[np.int64]:
    """Number of the scale that each neuron takes, rising."""
    if shared:
        return np.zeros(population.size, np.int64)
    if any(isinstance(operator, Kernel) for operator in population.into.values()):
        channels = population.shape[0]
        return np.repeat(np.arange(channels), population.size // channels)
    return np.arange(population.size)


def _weights(operator: Operator, group: NDArray[np.int64]) -> tuple[FloatArray, NDArray[np.int64]]:
    """Weights, flat, and the scale's number of each."""
    if isinstance(operator, Kernel):
        first_of_channel = group.reshape(len(operator.kernel), -1)[:, 0]
        return operator.kernel.ravel(), np.repeat(first_of_channel, operator.kernel[0].size)
    return operator.weights.data, np.repeat(group, np.diff(operator.weights.indptr))


def integer_connection(operator: Operator, values: NDArray[np.int32]) -> Connection:
    """The operator with integer weights, rows = presynaptic neurons."""
    if isinstance(operator, Kernel):
        return operator.pattern(values.reshape(operator.kernel.shape))
    weights = operator.weights
    return CSRConnection.from_scipy(sp.csr_matrix((values, weights.indices, weights.indptr), shape=weights.shape).T)
