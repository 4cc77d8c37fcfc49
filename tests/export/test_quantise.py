"""Scale and round: topology kept, every bit used, errors of half a unit at most."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sparsespike.common.errors import ConfigError
from sparsespike.export.affine import AffineLayer
from sparsespike.export.quantise import FIELD_LIMIT, check_bits, round_layer


def layer(weights: Any, bias: Any, lam: float | None) -> AffineLayer:
    matrix = sparse.csr_matrix(np.asarray(weights, float))
    return AffineLayer("x", matrix, np.asarray(bias, float), lam, matrix.nnz)


@pytest.mark.parametrize("bits", [1, 0, -8, 25, 8.0, True, "8", None])
def test_bits_out_of_range(bits: Any) -> None:
    with pytest.raises(ConfigError, match=r"bits: found .*, expected an integer from 2 to 24"):
        check_bits(bits)


@pytest.mark.parametrize("bits", [2, 8, 16, 24, np.int64(8)])
def test_bits_in_range(bits: int) -> None:
    check_bits(bits)


def test_one_neuron_by_hand() -> None:
    """Weights 1 and -0.5 at 8 bits: the factor is 127; lambda 2 is the even number next to 254."""
    rounded = round_layer(layer([[1.0, -0.5]], [0.1], 2.0), 8)
    assert rounded.connection.shape == (2, 1)
    assert rounded.connection.to_scipy().toarray().tolist() == [[127], [-64]]
    assert rounded.threshold is not None
    assert rounded.threshold.tolist() == [254]
    assert rounded.bias.tolist() == [13]
    assert rounded.scale.tolist() == [1 / 127]
    assert rounded.raised == 0
    assert rounded.weight_error == 0.5 / 127
    assert rounded.threshold_error == 0.0


def test_a_weight_that_is_not_zero_stays() -> None:
    rounded = round_layer(layer([[1.0, 1e-9, -1e-30]], [0.0], 1.0), 8)
    assert rounded.connection.to_scipy().toarray().ravel().tolist() == [127, 1, -1]
    assert rounded.raised == 2
    assert rounded.weight_error == pytest.approx(1 / 127)


def test_a_threshold_below_one_unit_becomes_the_least_even_one() -> None:
    rounded = round_layer(layer([[1.0]], [0.0], 1e-3), 8)
    assert rounded.threshold is not None
    assert rounded.threshold.tolist() == [2]
    assert rounded.threshold_error == pytest.approx((2 - 0.127) / 0.127)


@pytest.mark.parametrize("weight", [1e-12, 1e-300, 5e-324])
@pytest.mark.parametrize("lam", [4.0, None])
def test_thresholds_and_biases_stay_within_their_limit(weight: float, lam: float | None) -> None:
    rounded = round_layer(layer([[weight]], [-3.0], lam), 24)
    assert np.abs(rounded.bias).max() <= FIELD_LIMIT
    assert rounded.threshold is None or FIELD_LIMIT / 2 <= rounded.threshold.max() <= FIELD_LIMIT
    assert np.abs(rounded.connection.values).min() >= 1
    assert np.isfinite(rounded.scale).all()
    assert (rounded.scale > 0).all()


def test_a_readout_has_one_scale() -> None:
    rounded = round_layer(layer([[1.0, 0.0], [0.25, -0.25]], [0.5, -0.5], None), 8)
    assert rounded.connection.to_scipy().toarray().T.tolist() == [[127, 0], [32, -32]]
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
    exact = layer(weights, rng.standard_normal(outputs), None if is_readout else 1.5)
    rounded = round_layer(exact, bits)
    integers = rounded.connection.to_scipy().toarray().T
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
    assert np.abs(rounded.bias - exact.bias / scale).max() <= 0.5 + 1e-6 * (1 + np.abs(rounded.bias).max())
    if rounded.threshold is not None:
        assert np.all(rounded.threshold % 2 == 0)
        assert np.all(rounded.threshold >= 2)
        found = np.abs(rounded.threshold - 1.5 / scale)
        assert np.all((found <= 1 + 1e-6 * rounded.threshold) | (rounded.threshold == 2))
