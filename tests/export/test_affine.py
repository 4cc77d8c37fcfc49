"""Folding the input's normalisation and the neurons without fan-in: the function computed stays the same, to the bit."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sparsespike.common.errors import ModelError
from sparsespike.export.affine import AffineLayer, fold_constants, fold_input, qcfs_levels


def layer(weights: Sequence[Sequence[float]] | np.ndarray, bias: Sequence[float], lam: float | None = 1.0) -> AffineLayer:
    matrix = sparse.csr_matrix(np.asarray(weights, float))
    return AffineLayer("hidden1" if lam else "readout", matrix, np.asarray(bias, float), lam, matrix.nnz)


@pytest.mark.parametrize(
    ("weights", "bias", "lam", "message"),
    [
        ([[np.nan, 1.0]], [0.0], 1.0, "layer 'hidden1', weights: found 1 of 2 values that are NaN or infinite"),
        ([[np.inf, np.nan]], [0.0], 1.0, "weights: found 2 of 2 values"),
        ([[1.0]], [-np.inf], 1.0, "layer 'hidden1', bias: found 1 of 1 values"),
        ([[1.0]], [0.0, 0.0], 1.0, "bias: found shape (2,), expected (1,)"),
        ([[1.0]], [0.0], -0.5, "found the QCFS threshold lambda = -0.5, expected a finite value > 0"),
        ([[1.0]], [0.0], float("nan"), "lambda = nan"),
        ([[1.0]], [0.0], float("inf"), "lambda = inf"),
    ],
)
def test_values_that_cannot_be_converted(weights: list[list[float]], bias: list[float], lam: float, message: str) -> None:
    with pytest.raises(ModelError) as caught:
        layer(weights, bias, lam)
    assert message in str(caught.value)


def test_links_with_the_weight_zero_are_dropped() -> None:
    matrix = sparse.csr_matrix((np.array([1.0, 0.0]), np.array([0, 1]), np.array([0, 2])), shape=(1, 2))
    made = AffineLayer("hidden1", matrix, np.zeros(1), 1.0, 2)
    assert (made.weights.nnz, made.links) == (1, 2)
    assert matrix.nnz == 2
    assert (made.fan_in.tolist(), made.fan_out.tolist()) == ([1], [1, 0])


def test_levels_of_qcfs() -> None:
    """y = lam * clip(floor(x L / lam + 1/2) / L, 0, 1): ties go up, both ends are clipped."""
    x = np.array([-9.0, -0.25, -0.125, 0.0, 0.124, 0.125, 0.375, 0.874, 0.875, 1.0, 9.0])
    assert qcfs_levels(x, 1.0, 4).tolist() == [0, 0, 0, 0, 0, 1, 2, 3, 4, 4, 4]
    assert np.array_equal(qcfs_levels(2 * x, 2.0, 4), qcfs_levels(x, 1.0, 4))


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_fold_input_is_exact_in_binary_fractions(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.integers(-9, 10, (3, 4)) / 8
    slope, offset = rng.integers(1, 9, 4) / 16, rng.integers(-9, 10, 4) / 4
    original = layer(weights, rng.integers(-9, 10, 3) / 2)
    pixels = rng.integers(0, 256, (5, 4))
    folded = fold_input(original, slope, offset)
    assert np.array_equal(folded.drive(pixels), original.drive(pixels * slope + offset))
    assert folded.weights.nnz == original.weights.nnz


def evaluate(layers: Sequence[AffineLayer], inputs: np.ndarray, levels: int) -> np.ndarray:
    for hidden in layers[:-1]:
        assert hidden.lam is not None
        inputs = hidden.lam * qcfs_levels(hidden.drive(inputs), hidden.lam, levels) / levels
    return layers[-1].drive(inputs)


def test_a_constant_neuron_becomes_a_bias() -> None:
    """Bias 0.6 with lambda 2 and L = 4 quantises to 2 * 1/4 = 0.5, and reaches the readout through a weight of 3."""
    first = layer([[1.0], [0.0], [0.0]], [0.0, 0.6, -1.0], 2.0)
    last = layer([[1.0, 3.0, 5.0]], [0.25], None)
    folded = fold_constants([first, last], 4)
    assert folded.kept[0].tolist() == [0]
    assert (folded.silent, folded.folded, folded.links_removed) == ((1, 0), (1, 0), (0, 2))
    assert folded.layers[1].bias.tolist() == [0.25 + 3.0 * 0.5]
    assert folded.layers[1].weights.toarray().tolist() == [[1.0]]


def test_removal_goes_on_into_the_next_layer() -> None:
    first = layer([[1.0, 0.0], [0.0, 0.0]], [0.0, 1.0], 1.0)
    second = layer([[1.0, 0.0], [0.0, 0.5]], [0.0, 0.0], 1.0)  # its neuron 1 hears only the constant one
    last = layer([[1.0, 2.0]], [0.0], None)
    folded = fold_constants([first, second, last], 2)
    assert [kept.tolist() for kept in folded.kept] == [[0], [0], [0]]
    assert folded.folded == (1, 1, 0)
    assert folded.links_removed == (0, 1, 1)
    assert folded.layers[2].bias.tolist() == [2.0 * 0.5]


@pytest.mark.parametrize("empty", [0, 1, 2])
def test_a_layer_without_links(empty: int) -> None:
    layers = [layer([[1.0]], [1.0]), layer([[1.0]], [1.0]), layer([[1.0]], [1.0], None)]
    layers[empty] = layer([[0.0]], [1.0], layers[empty].lam)
    with pytest.raises(ModelError, match="found no link that leads to the input, expected at least one"):
        fold_constants(layers, 4)


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**20), density=st.sampled_from([0.1, 0.2, 0.5]), levels=st.sampled_from([1, 2, 4, 8]))
def test_folding_constants_keeps_the_function(seed: int, density: float, levels: int) -> None:
    rng = np.random.default_rng(seed)
    widths = (5, 6, 6, 3)
    layers = []
    for i, (n, m) in enumerate(itertools.pairwise(widths)):
        weights = rng.integers(-8, 9, (m, n)) / 8 * (rng.random((m, n)) < density)
        weights[0, 0] = 0.5  # one link at least leads on
        layers.append(layer(weights, rng.integers(-8, 9, m) / 8, None if i == 2 else float(2.0 ** rng.integers(-1, 3))))
    folded = fold_constants(layers, levels)
    inputs = rng.integers(0, 17, (6, 5)) / 16
    assert np.array_equal(evaluate(folded.layers, inputs, levels), evaluate(layers, inputs, levels))
    for i, (before, after) in enumerate(zip(layers, folded.layers, strict=True)):
        assert after.weights.nnz == before.weights.nnz - folded.links_removed[i]
        assert len(before.bias) == len(after.bias) + folded.silent[i] + folded.folded[i]
        if after.lam is not None:
            assert after.fan_in.min() > 0
            assert np.array_equal(after.bias.shape, folded.kept[i].shape)
