"""Initial topologies: exact counts and the structure that each promises; feature correlation; weight scale."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from sparsespike.ann.topology import Topology, brf, bsw, csti, er, feature_correlation, link_count, swi_std
from sparsespike.common.errors import ConfigError, DataError, ModelError

BUILDERS = {
    "er": er,
    "csti": lambda shape, sparsity, generator: csti(CORRELATION, shape, sparsity, generator),
    "bsw": bsw,
    "brf": brf,
}
SAMPLES = np.random.default_rng(0).random((50, 7)) ** 2
CORRELATION = feature_correlation([SAMPLES])


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(BUILDERS)), st.integers(1, 20), st.integers(1, 20), st.floats(0.0, 0.99), st.integers(0, 2**32))
def test_every_initial_topology_has_the_exact_count_and_follows_the_generator(
    name: str, m: int, n: int, sparsity: float, seed: int
) -> None:
    topology = BUILDERS[name]((m, n), sparsity, np.random.default_rng(seed))
    assert topology.shape == (m, n)
    assert topology.nnz == link_count((m, n), sparsity)
    assert topology == BUILDERS[name]((m, n), sparsity, np.random.default_rng(seed))


@settings(max_examples=100, deadline=None)
@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.tuples(st.integers(1, 15), st.integers(1, 15)), st.floats(0.0, 0.95))
def test_small_worlds_and_receptive_fields_are_exact_for_every_parameter(
    beta: float, r: float, shape: tuple[int, int], sparsity: float
) -> None:
    generator = np.random.default_rng(1)
    assert bsw(shape, sparsity, generator, beta=beta).nnz == link_count(shape, sparsity)
    assert brf(shape, sparsity, generator, r=r).nnz == link_count(shape, sparsity)


def test_er_is_uniform() -> None:
    generator = np.random.default_rng(0)
    drawn = [tuple(er((2, 2), 0.5, generator).links.tolist()) for _ in range(3000)]
    assert chisquare([drawn.count(pair) for pair in combinations(range(4), 2)]).pvalue > 1e-3


def test_correlation_equals_numpy_for_any_chunks() -> None:
    expected = np.abs(np.corrcoef(SAMPLES.T))
    np.fill_diagonal(expected, 0.0)
    for cuts in ([], [1], [10, 10, 30], [49]):
        correlation = feature_correlation(np.split(SAMPLES, cuts))
        assert np.abs(correlation - expected).max() < 1e-14
        assert np.array_equal(correlation, correlation.T)


def test_constant_features_correlate_with_nothing() -> None:
    samples = SAMPLES.copy()
    samples[:, 3] = 0.3
    correlation = feature_correlation([samples[:20], samples[20:]])
    assert not correlation[3].any()
    assert not correlation[:, 3].any()
    assert correlation[0, 1] > 0.0
    perfect = feature_correlation([np.stack([SAMPLES[:, 0], -2 * SAMPLES[:, 0]], axis=1)])
    assert perfect[0, 1] == pytest.approx(1.0, abs=1e-14)


@pytest.mark.parametrize(
    ("chunks", "message"),
    [
        ([], "0 samples"),
        ([np.ones((1, 3))], "1 samples"),
        ([np.ones((2, 3)), np.ones((2, 4))], r"shape \(2, 4\), expected \(samples, 3\)"),
        ([np.ones((2, 3, 3))], r"expected \(samples, features\)"),
        ([np.array([[1.0, np.nan], [0.0, 0.0]])], "not finite"),
    ],
)
def test_bad_samples_are_refused(chunks: list[np.ndarray], message: str) -> None:
    with pytest.raises(DataError, match=message):
        feature_correlation(chunks)


def test_csti_takes_the_most_correlated_pairs() -> None:
    topology = csti(CORRELATION, (7, 7), 0.7, np.random.default_rng(0))
    taken, left = CORRELATION[topology.to_dense()], CORRELATION[~topology.to_dense()]
    assert taken.min() >= left.max()


@pytest.mark.parametrize("shape", [(16, 10), (10, 16), (150, 9)])
def test_csti_tiles_the_correlation_over_wider_layers(shape: tuple[int, int]) -> None:
    tiled = np.tile(CORRELATION, (22, 3))[: shape[0], : shape[1]]
    taken = csti(CORRELATION, shape, 0.6, np.random.default_rng(0)).to_dense()
    assert tiled[taken].min() >= tiled[~taken].max()
    again = csti(CORRELATION, shape, 0.6, np.random.default_rng(1)).to_dense()
    assert np.array_equal(np.sort(tiled[again]), np.sort(tiled[taken]))


def test_csti_fills_up_at_random_where_too_few_features_correlate() -> None:
    correlation = np.zeros((6, 6))
    correlation[0, 1] = correlation[1, 0] = 0.5
    topology = csti(correlation, (6, 6), 0.5, np.random.default_rng(0))
    assert topology.nnz == 18
    assert np.isin([1, 6], topology.links).all()
    assert topology != csti(correlation, (6, 6), 0.5, np.random.default_rng(1))


def test_csti_refuses_a_matrix_that_is_not_square() -> None:
    with pytest.raises(ModelError, match=r"shape \(2, 3\), expected a square matrix"):
        csti(np.ones((2, 3)), (4, 4), 0.5, np.random.default_rng(0))


@pytest.mark.parametrize("shape", [(40, 20), (20, 40), (30, 30)])
def test_a_small_world_without_rewiring_is_a_ring_of_windows(shape: tuple[int, int]) -> None:
    mask = bsw(shape, 0.7, np.random.default_rng(0), beta=0.0).to_dense()
    mask = mask if shape[0] >= shape[1] else mask.T
    short = min(shape)
    degrees = mask.sum(axis=1)
    assert degrees.max() - degrees.min() <= 1
    for node, row in enumerate(mask):
        start = math.floor(node * short / len(mask) - degrees[node] / 2)
        assert set(np.flatnonzero(row)) == {(start + step) % short for step in range(degrees[node])}


def test_rewiring_replaces_about_a_share_beta_of_the_windows() -> None:
    regular = bsw((200, 200), 0.9, np.random.default_rng(0), beta=0.0)
    for beta in (0.1, 0.5):
        rewired = bsw((200, 200), 0.9, np.random.default_rng(0), beta=beta)
        moved = 1 - np.isin(rewired.links, regular.links).mean()
        assert abs(moved - beta) < 0.04
    assert not np.isin(bsw((200, 200), 0.9, np.random.default_rng(0), beta=1.0).links, regular.links).any()


def test_receptive_fields_without_randomness_take_the_nearest() -> None:
    mask = brf((10, 30), 0.9, np.random.default_rng(0), r=0.0).to_dense()
    for node, row in enumerate(mask):
        offset = np.abs(np.arange(30) - 3 * node)
        distance = np.minimum(offset, 30 - offset)
        assert distance[row].max() <= distance[~row].min()
        assert row.sum() == 3
    assert np.array_equal(brf((30, 10), 0.9, np.random.default_rng(0), r=0.0).transpose().to_dense().sum(axis=1), [3] * 10)


def test_receptive_fields_widen_with_randomness() -> None:
    def mean_distance(r: float) -> float:
        topology = brf((300, 300), 0.97, np.random.default_rng(0), r=r)
        offset = np.abs(topology.rows - topology.indices)
        return float(np.minimum(offset, 300 - offset).mean())

    distances = [mean_distance(r) for r in (0.0, 0.25, 0.5, 1.0)]
    assert distances == sorted(distances)
    assert distances[0] < 3
    assert abs(distances[-1] - 75) < 3


def test_sparse_weights_keep_the_variance_of_the_sum() -> None:
    assert swi_std(3072, 0.99) == pytest.approx(math.sqrt(2 / 30.72), rel=1e-13)
    assert swi_std(100, 0.0, gain=1.0) == 0.1


@pytest.mark.parametrize(
    "call",
    [
        lambda g: bsw((3, 3), 0.5, g, beta=1.1),
        lambda g: brf((3, 3), 0.5, g, r=-0.1),
        lambda g: er((3, 3), 1.0, g),
        lambda g: swi_std(0, 0.5),
        lambda g: swi_std(5, 1.0),
    ],
)
def test_parameters_out_of_range_are_refused(call: object) -> None:
    with pytest.raises(ConfigError, match="expected"):
        call(np.random.default_rng(0))  # type: ignore[operator]


def test_a_topology_can_be_built_at_full_density() -> None:
    assert er((4, 5), 0.0, np.random.default_rng(0)) == Topology.full((4, 5))
