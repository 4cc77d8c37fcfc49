"""Affine populations of a network: the function computed stays the same, to the bit."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sparsespike.ann.encoding import Encoding
from sparsespike.common.errors import ModelError
from sparsespike.export.affine import READOUT, AffinePopulation, affine_populations, remove_constants, unit_spikes
from sparsespike.export.network import INPUT, Activate, Dense, Network, Node, qcfs_levels


def dense(weights: Sequence[Sequence[float]] | np.ndarray, bias: Sequence[float]) -> Dense:
    matrix = sparse.csr_matrix(np.asarray(weights, float))
    return Dense(matrix, np.asarray(bias, float), matrix.nnz)


def network(layers: Sequence[tuple[Dense, float | None]], levels: int = 4) -> Network:
    """A chain of dense layers, each with its lambda; the last one has none."""
    nodes, before = [], INPUT
    for i, (layer, lam) in enumerate(layers):
        shape = (len(layer.bias),)
        nodes.append(Node(f"layer{i}", layer, (before,), shape))
        before = f"layer{i}"
        if lam is not None:
            nodes.append(Node(f"hidden{i + 1}", Activate("qcfs", np.asarray(lam), levels), (before,), shape))
            before = f"hidden{i + 1}"
    return Network((layers[0][0].weights.shape[1],), tuple(nodes))


PLAIN = Encoding((0, 16), 1, (0.0,), (1.0,))
"""Pixels stand for themselves."""


def populations(*layers: tuple[Dense, float | None], levels: int = 4) -> list[AffinePopulation]:
    return affine_populations(network(layers, levels), PLAIN)


def evaluate(chain: Sequence[AffinePopulation], inputs: np.ndarray) -> np.ndarray:
    values = {INPUT: inputs}
    for population in chain:
        drive = population.bias + sum((o.matrix() @ values[pre].T).T for pre, o in population.into.items())
        values[population.name] = drive if population.activation is None else population.activation(drive)
    return values[READOUT]


def test_links_with_the_weight_zero_are_dropped() -> None:
    matrix = sparse.csr_matrix((np.array([1.0, 0.0]), np.array([0, 1]), np.array([0, 2])), shape=(1, 2))
    made = Dense(matrix, np.zeros(1), 2)
    assert (made.weights.nnz, made.links) == (1, 2)
    assert matrix.nnz == 2


def test_levels_of_qcfs() -> None:
    """y = lam * clip(floor(x L / lam + 1/2) / L, 0, 1): ties go up, both ends are clipped."""
    x = np.array([-9.0, -0.25, -0.125, 0.0, 0.124, 0.125, 0.375, 0.874, 0.875, 1.0, 9.0])
    assert qcfs_levels(x, 1.0, 4).tolist() == [0, 0, 0, 0, 0, 1, 2, 3, 4, 4, 4]
    assert np.array_equal(qcfs_levels(2 * x, 2.0, 4), qcfs_levels(x, 1.0, 4))
    both = Activate("qcfs", np.array([1.0, 2.0]), 4)(np.array([[0.375, 0.75]]))
    assert both.tolist() == [[0.5, 1.0]]


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**16))
def test_the_encoding_is_folded_exactly_in_binary_fractions(seed: int) -> None:
    """Two channels, each with its own mean and deviation: real = (pixel / 4 - mean) / std."""
    rng = np.random.default_rng(seed)
    mean, std = rng.integers(-9, 10, 2) / 4, 2.0 ** rng.integers(-3, 2, 2)
    layer = dense(rng.integers(-9, 10, (3, 4)) / 8, rng.integers(-9, 10, 3) / 2)
    (readout,) = affine_populations(network([(layer, None)]), Encoding((0, 255), 4, tuple(mean), tuple(std)))
    pixels = rng.integers(0, 256, (5, 4))
    real = (pixels / 4 - np.repeat(mean, 2)) / np.repeat(std, 2)
    assert np.array_equal(evaluate([readout], pixels), layer(real))
    assert readout.nnz == layer.weights.nnz


def test_unit_spikes_carry_the_amplitude_in_the_weights() -> None:
    chain = populations((dense([[1.0], [2.0]], [0.0, 0.0]), 1.0), (dense([[3.0, 5.0]], [1.0]), None))
    unit = unit_spikes(chain, {"hidden1": np.array([0.5, 4.0])})
    assert unit[0].into[INPUT].matrix().toarray().tolist() == [[1.0], [2.0]]
    assert unit[1].into["hidden1"].matrix().toarray().tolist() == [[1.5, 20.0]]
    assert unit[1].bias.tolist() == [1.0]


def test_a_constant_neuron_becomes_a_bias() -> None:
    """Bias 0.6 with lambda 2 and L = 4 quantises to 2 * 1/4 = 0.5, and reaches the readout through a weight of 3."""
    first = dense([[1.0], [0.0], [0.0]], [0.0, 0.6, -1.0])
    last = dense([[1.0, 3.0, 5.0]], [0.25])
    folded = remove_constants(populations((first, 2.0), (last, None)))
    assert folded.kept["hidden1"].tolist() == [0]
    assert (folded.silent, folded.folded) == ({"hidden1": 1, "readout": 0}, {"hidden1": 1, "readout": 0})
    assert folded.links_removed == {"hidden1": 0, "readout": 2}
    assert folded.populations[1].bias.tolist() == [0.25 + 3.0 * 0.5]
    assert folded.populations[1].into["hidden1"].matrix().toarray().tolist() == [[1.0]]


def test_removal_goes_on_into_the_next_layer() -> None:
    first = dense([[1.0, 0.0], [0.0, 0.0]], [0.0, 1.0])
    second = dense([[1.0, 0.0], [0.0, 0.5]], [0.0, 0.0])  # its neuron 1 hears only the constant one
    last = dense([[1.0, 2.0]], [0.0])
    folded = remove_constants(populations((first, 1.0), (second, 1.0), (last, None), levels=2))
    assert [folded.kept[name].tolist() for name in ("hidden1", "hidden2", "readout")] == [[0], [0], [0]]
    assert folded.folded == {"hidden1": 1, "hidden2": 1, "readout": 0}
    assert folded.links_removed == {"hidden1": 0, "hidden2": 1, "readout": 1}
    assert folded.populations[2].bias.tolist() == [2.0 * 0.5]


def test_neurons_that_are_never_to_fire_go_with_their_links() -> None:
    first = dense([[1.0, 1.0], [1.0, 1.0], [0.0, 0.0]], [0.0, 5.0, 0.6])
    last = dense([[1.0, 3.0, 4.0]], [0.0])
    folded = remove_constants(populations((first, 2.0), (last, None)), {"hidden1": np.array([False, True, False])})
    assert folded.kept["hidden1"].tolist() == [0]
    assert (folded.silent["hidden1"], folded.folded["hidden1"]) == (1, 1)
    assert folded.links_removed == {"hidden1": 2, "readout": 2}
    assert folded.populations[1].bias.tolist() == [4.0 * 0.5]


@pytest.mark.parametrize("empty", [0, 1, 2])
def test_a_layer_without_links(empty: int) -> None:
    layers = [(dense([[1.0]], [1.0]), 1.0), (dense([[1.0]], [1.0]), 1.0), (dense([[1.0]], [1.0]), None)]
    layers[empty] = (dense([[0.0]], [1.0]), layers[empty][1])
    with pytest.raises(ModelError, match="found no link that leads to the input, expected at least one"):
        remove_constants(populations(*layers))


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**20), density=st.sampled_from([0.1, 0.2, 0.5]), levels=st.sampled_from([1, 2, 4, 8]))
def test_folding_constants_keeps_the_function(seed: int, density: float, levels: int) -> None:
    rng = np.random.default_rng(seed)
    widths = (5, 6, 6, 3)
    layers = []
    for i, (n, m) in enumerate(itertools.pairwise(widths)):
        weights = rng.integers(-8, 9, (m, n)) / 8 * (rng.random((m, n)) < density)
        weights[0, 0] = 0.5  # one link at least leads on
        layers.append((dense(weights, rng.integers(-8, 9, m) / 8), None if i == 2 else float(2.0 ** rng.integers(-1, 3))))
    chain = network(layers, levels)
    before = affine_populations(chain, PLAIN)
    folded = remove_constants(before)
    inputs = rng.integers(0, 17, (6, 5)).astype(float)
    expected = chain.evaluate(inputs)["layer2"]
    assert np.array_equal(evaluate(before, inputs), expected)
    assert np.array_equal(evaluate(folded.populations, inputs), expected)
    for old, new in zip(before, folded.populations, strict=True):
        name = old.name
        assert new.nnz == old.nnz - folded.links_removed[name]
        assert old.size == new.size + folded.silent[name] + folded.folded[name]
        assert len(folded.kept[name]) == new.size
        assert name == READOUT or new.fan_in.min() > 0
