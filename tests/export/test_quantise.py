"""Scale and round: topology kept, every bit used, errors of half a unit at most."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sparsespike.common.errors import ConfigError
from sparsespike.export.affine import AffinePopulation, Links
from sparsespike.export.connections import Conv2dConnection, CSRConnection
from sparsespike.export.network import FloatArray
from sparsespike.export.operators import Kernel, Matrix, Operator
from sparsespike.export.quantise import FIELD_LIMIT, RoundedPopulation, check_bits, round_population


def population(into: dict[str, Operator], bias: Any, shape: tuple[int, ...] | None = None) -> AffinePopulation:
    values = np.asarray(bias, float)
    return AffinePopulation("x", shape or values.shape, None, values, into, Links((), 0, 0, 0, 0, False))


def rounded_layer(weights: Any, bias: Any, lam: float | None, bits: int) -> RoundedPopulation:
    matrix = Matrix(sparse.csr_matrix(np.asarray(weights, float)))
    thresholds: FloatArray | None = None if lam is None else np.full(len(bias), lam)
    return round_population(population({"p": matrix}, bias), thresholds, bits)


def synapses(rounded: RoundedPopulation) -> CSRConnection:
    return rounded.into["p"].to_csr()


@pytest.mark.parametrize("bits", [1, 0, -8, 25, 8.0, True, "8", None])
def test_bits_out_of_range(bits: Any) -> None:
    with pytest.raises(ConfigError, match=r"bits: found .*, expected an integer from 2 to 24"):
        check_bits(bits)


@pytest.mark.parametrize("bits", [2, 8, 16, 24, np.int64(8)])
def test_bits_in_range(bits: int) -> None:
    check_bits(bits)


def test_one_neuron_by_hand() -> None:
    """Weights 1 and -0.5 at 8 bits: the factor is 127; lambda 2 is the even number next to 254."""
    rounded = rounded_layer([[1.0, -0.5]], [0.1], 2.0, 8)
    assert synapses(rounded).shape == (2, 1)
    assert synapses(rounded).to_scipy().toarray().tolist() == [[127], [-64]]
    assert rounded.threshold is not None
    assert rounded.threshold.tolist() == [254]
    assert rounded.bias.tolist() == [13]
    assert rounded.scale.tolist() == [1 / 127]
    assert rounded.raised == 0
    assert rounded.weight_error == 0.5 / 127
    assert rounded.threshold_error == 0.0


def test_a_weight_that_is_not_zero_stays() -> None:
    rounded = rounded_layer([[1.0, 1e-9, -1e-30]], [0.0], 1.0, 8)
    assert synapses(rounded).to_scipy().toarray().ravel().tolist() == [127, 1, -1]
    assert rounded.raised == 2
    assert rounded.weight_error == pytest.approx(1 / 127)


def test_a_threshold_below_one_unit_becomes_the_least_even_one() -> None:
    rounded = rounded_layer([[1.0]], [0.0], 1e-3, 8)
    assert rounded.threshold is not None
    assert rounded.threshold.tolist() == [2]
    assert rounded.threshold_error == pytest.approx((2 - 0.127) / 0.127)


@pytest.mark.parametrize("weight", [1e-12, 1e-300, 5e-324])
@pytest.mark.parametrize("lam", [4.0, None])
def test_thresholds_and_biases_stay_within_their_limit(weight: float, lam: float | None) -> None:
    rounded = rounded_layer([[weight]], [-3.0], lam, 24)
    assert np.abs(rounded.bias).max() <= FIELD_LIMIT
    assert rounded.threshold is None or FIELD_LIMIT / 2 <= rounded.threshold.max() <= FIELD_LIMIT
    assert np.abs(synapses(rounded).values).min() >= 1
    assert np.isfinite(rounded.scale).all()
    assert (rounded.scale > 0).all()


def test_a_readout_has_one_scale() -> None:
    rounded = rounded_layer([[1.0, 0.0], [0.25, -0.25]], [0.5, -0.5], None, 8)
    assert synapses(rounded).to_scipy().toarray().T.tolist() == [[127, 0], [32, -32]]
    assert rounded.bias.tolist() == [64, -64]
    assert rounded.scale.shape == ()
    assert rounded.threshold is None


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**20), bits=st.integers(2, 24), is_readout=st.booleans())
def test_rounding_properties(seed: int, bits: int, is_readout: bool) -> None:
    rng = np.random.default_rng(seed)
    outputs, inputs = rng.integers(1, 6, 2)
    weights = rng.standard_normal((outputs, inputs)) * 10.0 ** rng.integers(-3, 2) * (rng.random((outputs, inputs)) < 0.7)
    weights[:, 0] = rng.standard_normal(outputs)
    bias = rng.standard_normal(outputs)
    rounded = rounded_layer(weights, bias, None if is_readout else 1.5, bits)
    integers = synapses(rounded).to_scipy().toarray().T
    limit = 2 ** (bits - 1) - 1

    assert np.array_equal(integers != 0, weights != 0)
    assert np.array_equal(np.sign(integers), np.sign(weights))
    largest = np.abs(integers).max(axis=1)
    assert largest.max() == limit
    assert is_readout or np.all(largest == limit)

    scale = np.broadcast_to(rounded.scale, outputs)
    units = weights / scale[:, None]
    raised = (np.abs(integers) == 1) & (np.abs(units) < 0.5)
    assert rounded.raised == raised.sum()
    slack = 1e-6 * limit  # of the two float64 divisions above
    assert np.abs(integers - units)[~raised].max() <= 0.5 + slack
    assert np.abs(rounded.bias - bias / scale).max() <= 0.5 + 1e-6 * (1 + np.abs(rounded.bias).max())
    if rounded.threshold is not None:
        assert np.all(rounded.threshold % 2 == 0)
        assert np.all(rounded.threshold >= 2)
        found = np.abs(rounded.threshold - 1.5 / scale)
        assert np.all((found <= 1 + 1e-6 * rounded.threshold) | (rounded.threshold == 2))


def test_a_channel_shares_one_scale() -> None:
    """Two ways into one channel of two neurons, by hand: the largest weight of both is 2, so 8 bits give a factor of 63.5."""
    kernel = Kernel(np.array([[[[1.0]]]]), (1, 1, 2), (1, 1, 2))
    matrix = Matrix(sparse.csr_matrix(np.array([[0.5], [-2.0]])))
    two_ways = population({"conv": kernel, "csr": matrix}, [0.1, -0.2], (1, 1, 2))
    rounded = round_population(two_ways, np.array([1.0, 3.0]), 8)
    assert isinstance(rounded.into["conv"], Conv2dConnection)
    assert rounded.into["conv"].kernel.tolist() == [[[[64]]]]
    assert rounded.into["csr"].to_csr().to_scipy().toarray().tolist() == [[32, -127]]
    assert rounded.threshold is not None
    assert rounded.threshold.tolist() == [64, 190]
    assert rounded.bias.tolist() == [6, -13]
    assert rounded.scale.tolist() == [1 / 63.5]


def test_a_channel_without_weights_takes_its_scale_from_its_threshold() -> None:
    kernel = Kernel(np.array([[[[1.0]]], [[[0.0]]]]), (1, 1, 1), (2, 1, 1))
    rounded = round_population(population({"conv": kernel}, [0.0, 0.25], (2, 1, 1)), np.array([1.0, 2.0]), 8)
    assert rounded.threshold is not None
    assert rounded.threshold.tolist() == [128, 128]  # 127, made even; weights and biases of channel 1 do not matter
    assert rounded.bias.tolist() == [0, 16]
    assert rounded.into["conv"].nnz == 1
