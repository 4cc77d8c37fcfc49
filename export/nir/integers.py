"""A population of NIR's neurons in integers: exactly where a power of two makes it so, else rounded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from sparsespike.export.affine import AffinePopulation
from sparsespike.export.connections import Connection
from sparsespike.export.network import FloatArray
from sparsespike.export.nir.layers import Neurons
from sparsespike.export.operators import Kernel, Operator
from sparsespike.export.population import DECAY_UNIT, MAGNITUDE_LIMIT, NEVER
from sparsespike.export.quantise import FIELD_LIMIT, MAX_BITS, integer_connection, round_population


@dataclass(frozen=True, eq=False)
class Integers:
    """A population in integers; real value = integer * scale.

    Attributes
    ----------
    into : mapping of population to Connection
    threshold : int64 array, shape (N,), or None
        None for the readout.
    v_init, bias : int64 array, shape (N,)
        Of the readout, v_init is 0.
    scale : float64 array, shape (N,), (C,) or ()
    exact : bool
        Whether neither a number nor, while it runs, a membrane is rounded.
    weight_error, threshold_error : float
        Largest rounding errors, as in ``RoundedPopulation``.
    """

    into: Mapping[str, Connection]
    threshold: NDArray[np.int64] | None
    v_init: NDArray[np.int64]
    bias: NDArray[np.int64]
    scale: FloatArray
    exact: bool = True
    weight_error: float = 0.0
    threshold_error: float = 0.0


def integer_population(population: AffinePopulation, neurons: Neurons | None, bits: int) -> Integers:
    """Scale a population to integers.

    Parameters
    ----------
    population : AffinePopulation
    neurons : Neurons or None
        None for the readout.
    bits : int
        Width of a weight, sign included.
    """
    if neurons is not None and neurons.decay_voltage is not None:
        # The membrane leaks toward v_leak, and is reset to 0 here: what it leaks upwards is a bias.
        leak = neurons.decay_voltage / DECAY_UNIT * neurons.start
        return _leaky(replace(population, bias=population.bias + leak), neurons, bits)
    exponent = _exponent(population, neurons, bits)
    return _exact(population, neurons, 2.0**exponent) if exponent is not None else _rounded(population, neurons, bits)


def _values(operator: Operator) -> FloatArray:
    return operator.kernel if isinstance(operator, Kernel) else operator.weights.data


def _first_integers(neurons: Neurons, factor: float) -> FloatArray:
    """Smallest integer membrane that fires, of each neuron; ``v_reset * factor`` is an integer."""
    return np.asarray(np.floor(neurons.v_threshold * factor) - neurons.v_reset * factor + 1)


def _exponent(population: AffinePopulation, neurons: Neurons | None, bits: int) -> int | None:
    """Smallest k >= 0 for which all numbers times 2^k are integers that fit, or None.

    Thresholds must be even but for neurons that leak: if the first integer that fires is odd, twice the scale makes all membranes
    even.
    """
    weights = [_values(operator).ravel() for operator in population.into.values()]
    fields = [population.bias] + ([neurons.v_reset, neurons.v_leak] if neurons is not None else [])
    leaks = neurons is not None and neurons.decay_voltage is not None
    for exponent in range(MAX_BITS + 2):
        scaled = [[values * 2.0**exponent for values in group] for group in (weights, fields)]
        for group, limit in zip(scaled, (2 ** (bits - 1) - 1, MAGNITUDE_LIMIT), strict=True):
            if any(np.abs(values).max(initial=0.0) > limit for values in group):
                return None
        if all(np.array_equal(np.rint(values), values) for group in scaled for values in group):
            even = all(np.all(values % 2 == 0) for group in scaled for values in group)
            if neurons is None or leaks or even or np.all(_first_integers(neurons, 2.0**exponent) % 2 == 0):
                return exponent
    return None


def _exact(population: AffinePopulation, neurons: Neurons | None, factor: float) -> Integers:
    """All numbers times a factor that makes them integers."""
    into = {
        pre: integer_connection(operator, (_values(operator) * factor).astype(np.int32))
        for pre, operator in population.into.items()
    }
    bias, scale = (population.bias * factor).astype(np.int64), np.asarray(1.0 / factor)
    if neurons is None:
        return Integers(into, None, np.zeros_like(bias), bias, scale)
    even = np.ceil(_first_integers(neurons, factor) / 2) * 2  # between it and the first integer that fires lies no membrane
    threshold = np.minimum(even, NEVER).astype(np.int64)
    return Integers(into, threshold, (neurons.start * factor).astype(np.int64), bias, scale)


def _leaky(population: AffinePopulation, neurons: Neurons, bits: int) -> Integers:
    """At the largest power of two that makes all numbers integers, or rounded: what decays is rounded as finely as can be."""
    exponent = _exponent(population, neurons, bits)
    if exponent is None:
        return _rounded(population, neurons, bits)
    weights = max((float(np.abs(_values(operator)).max(initial=0.0)) for operator in population.into.values()), default=0.0)
    fields = max(float(np.abs(field).max()) for field in (population.bias, neurons.start, neurons.v_threshold - neurons.v_reset))
    while weights * 2.0 ** (exponent + 1) < 2 ** (bits - 1) and fields * 2.0 ** (exponent + 1) <= FIELD_LIMIT:
        exponent += 1
    exact = _exact(population, neurons, 2.0**exponent)
    threshold = np.minimum(_first_integers(neurons, 2.0**exponent), NEVER).astype(np.int64)
    return replace(exact, threshold=threshold, exact=False)


def _rounded(population: AffinePopulation, neurons: Neurons | None, bits: int) -> Integers:
    """Every neuron or channel at its largest scale, rounded."""
    if neurons is None:
        rounded = round_population(population, None, bits)
        v_init = np.zeros_like(rounded.bias)
    else:
        rounded = round_population(population, neurons.v_threshold - neurons.v_reset, bits)
        scale = np.repeat(rounded.scale, population.size // rounded.scale.size)
        v_init = np.rint(neurons.start / scale).astype(np.int64)
    return Integers(
        rounded.into,
        rounded.threshold,
        v_init,
        rounded.bias,
        rounded.scale,
        exact=False,
        weight_error=rounded.weight_error,
        threshold_error=rounded.threshold_error,
    )
