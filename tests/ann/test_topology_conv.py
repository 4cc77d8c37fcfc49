"""CHT-Conv: closed forms against unfolded convolutions on circular grids, and exact counts in every output channel."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sparsespike.ann.topology import (
    EvolutionConfig,
    Topology,
    conv_er,
    conv_mask,
    conv_scores,
    conv_topology,
    evolve_conv,
    for_convolutions,
    initial_sparsity,
    link_count,
    recipe,
    score_matrix,
)
from sparsespike.ann.topology.conv import kernel_table
from sparsespike.ann.topology.rules import Rule
from sparsespike.common.errors import ConfigError, ModelError

NODE_RULES = ("CH2-L3n", "CH3-L3n")
SHAPE = (6, 5, 3, 3)


def unfold(mask: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Unfold a convolution on a circular grid; return the matrix and the link [o, i, y, x, window] of each weight."""
    c_out, c_in = mask.shape[:2]
    cells = side * side
    matrix = np.zeros((c_out * cells, c_in * cells), dtype=bool)
    links = np.zeros((*mask.shape, cells), dtype=np.int64)
    for o, i, y, x in np.ndindex(mask.shape):
        for window in range(cells):
            position = (window // side + y) % side * side + (window % side + x) % side
            links[o, i, y, x, window] = (o * cells + window) * matrix.shape[1] + i * cells + position
            matrix[o * cells + window, i * cells + position] = mask[o, i, y, x]
    return matrix, links


def unfolded_scores(mask: np.ndarray, rule: Rule, side: int) -> np.ndarray:
    """Score the unfolded layer link by link, check that all copies agree, and return one of each."""
    matrix, links = unfold(mask, side)
    copies = score_matrix(Topology.from_dense(matrix), rule).ravel()[links]
    assert (copies == copies[..., :1]).all()
    return copies[..., 0]


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        ([[0, 1, 0], [1, 1, 1], [0, 1, 0]], [[2, 0, 2], [0, 0, 0], [2, 0, 2]]),
        ([[1, 1, 0], [1, 0, 0], [0, 0, 0]], [[0, 0, 1], [0, 2, 0], [1, 0, 0]]),
        ([[0, 0, 0], [0, 1, 0], [0, 0, 0]], np.zeros((3, 3))),
        (np.ones((3, 3)), np.zeros((3, 3))),
    ],
)
def test_kernels_give_the_published_oracle(mask: list[list[int]], expected: list[list[float]]) -> None:
    # 24 offsets, each with twice a factor that is rounded by 2^-25 at most
    assert np.abs(conv_scores(np.array([[mask]]))[0, 0] - expected).max() <= 24 * 2 * 2.0**-25


@settings(max_examples=25, deadline=None)
@given(hnp.arrays(np.bool_, st.tuples(st.just(1), st.just(1), st.integers(1, 4), st.integers(1, 4))), st.sampled_from(NODE_RULES))
def test_separate_kernels_equal_the_unfolded_graph(mask: np.ndarray, rule: Rule) -> None:
    # One kernel alone is a layer of its own, so both closed forms must give its unfolded scores.
    expected = unfolded_scores(mask, rule, side=8)
    assert np.array_equal(conv_scores(mask, rule, "kernel"), expected)
    assert np.array_equal(conv_scores(mask, rule, "full"), expected)


@settings(max_examples=15, deadline=None)
@given(
    hnp.arrays(np.bool_, st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3))),
    st.sampled_from(NODE_RULES),
)
def test_all_channels_together_equal_the_unfolded_graph(mask: np.ndarray, rule: Rule) -> None:
    assert np.array_equal(conv_scores(mask, rule, "full"), unfolded_scores(mask, rule, side=6))


def test_kernels_are_scored_one_by_one() -> None:
    mask = np.random.default_rng(0).random((4, 3, 3, 3)) < 0.5
    large = np.random.default_rng(0).random((2, 3, 5, 5)) < 0.4
    for kernels in (mask, large):
        scores = conv_scores(kernels, "CH3-L3n", "kernel")
        for o, i in np.ndindex(kernels.shape[:2]):
            assert np.array_equal(scores[o, i], unfolded_scores(kernels[o : o + 1, i : i + 1], "CH3-L3n", 10)[0, 0])


@pytest.mark.parametrize("rule", ["CH2-L3n", "CH3-L3n", "CH2-L3p", "CH3-L3p"])
def test_im2col_scores_the_matrix_of_the_layer(rule: Rule) -> None:
    mask = np.random.default_rng(1).random((7, 4, 3, 3)) < 0.3
    expected = score_matrix(Topology.from_dense(mask.reshape(7, -1)), rule, "dense")
    assert np.array_equal(conv_scores(mask, rule, "im2col"), expected.reshape(mask.shape))


def test_a_table_holds_all_kernels_of_three_by_three() -> None:
    table = kernel_table(3, 3, "CH3-L3n")
    assert table.shape == (512, 9)
    bits = (np.arange(512)[:, None] >> np.arange(9)) & 1
    assert not table[bits == 1].any()
    occupancy = bits.sum(axis=1)
    assert not table[occupancy <= 1].any()
    means = [table[occupancy == count][bits[occupancy == count] == 0].mean() for count in (2, 4, 6, 8)]
    assert [round(mean, 1) for mean in means] == [0.1, 1.1, 2.2, 3.2]
    # A kernel's score does not change with its orientation.
    turned = np.rot90(bits.reshape(-1, 3, 3), axes=(1, 2)).reshape(-1, 9) @ (1 << np.arange(9))
    assert np.array_equal(table[turned].reshape(-1, 3, 3), np.rot90(table.reshape(-1, 3, 3), axes=(1, 2)))


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.7, 0.99])
def test_every_output_channel_starts_with_the_same_exact_count(sparsity: float) -> None:
    topology = conv_er((8, 5, 3, 3), sparsity, np.random.default_rng(0))
    assert set(topology.in_degree) == {link_count((1, 45), sparsity)}
    assert conv_topology(conv_mask(topology, (8, 5, 3, 3))) == topology
    assert topology == conv_er((8, 5, 3, 3), sparsity, np.random.default_rng(0))


@pytest.mark.parametrize("mode", ["kernel", "full", "im2col"])
@pytest.mark.parametrize("name", ["cht", "chts", "chtss", "set", "rigl", "gmp", "static"])
def test_every_output_channel_keeps_its_exact_count(name: str, mode: str) -> None:
    config = for_convolutions(recipe(name, 0.7), zeta=0.3)
    topology = conv_er(SHAPE, initial_sparsity(config, 0.7), np.random.default_rng(0))
    gradient = np.random.default_rng(1).random(SHAPE)
    for epoch in range(5):
        progress = config.progress(epoch, 6)
        if progress is None:
            continue
        weights = np.random.default_rng(epoch).normal(size=topology.nnz).astype(np.float32)
        arguments = (topology, SHAPE, weights, config, progress)
        update = evolve_conv(*arguments, np.random.default_rng(epoch), mode=mode, gradient=gradient)
        again = evolve_conv(*arguments, np.random.default_rng(epoch), mode=mode, gradient=gradient)
        assert update.topology == again.topology
        sparsity = 0.7 if config.schedule is None else config.schedule.at(progress)
        assert set(update.topology.in_degree) == {link_count((1, 45), sparsity)}
        dense = np.zeros(topology.shape, dtype=np.float32)
        dense.ravel()[topology.links] = weights
        assert np.array_equal(update.carry(weights), dense.ravel()[update.topology.links])
        assert (update.topology != topology) == (update.statistics.removed > 0)
        topology = update.topology
    assert set(topology.in_degree) == {link_count((1, 45), 0.7)}


def test_removal_takes_zeta_of_each_channel_and_the_weakest_under_the_hard_rule() -> None:
    config = EvolutionConfig(removal="wm", regrowth="random", zeta=0.4, percolation=False)
    topology = conv_er(SHAPE, 0.5, np.random.default_rng(0))
    weights = np.random.default_rng(1).normal(size=topology.nnz)
    update = evolve_conv(topology, SHAPE, weights, config, 0.0, np.random.default_rng(2))
    removed = int(0.4 * 23)
    assert update.statistics.removed == update.statistics.regrown == removed * 6
    for channel in range(6):
        links = slice(topology.indptr[channel], topology.indptr[channel + 1])
        strongest = topology.links[links][np.argsort(np.abs(weights[links]))[removed:]]
        assert np.isin(strongest, update.topology.links).all()


def test_top_regrowth_takes_the_highest_scores_of_each_channel_then_fills_up() -> None:
    config = EvolutionConfig(removal="wm", regrowth="top", rule="CH3-L3n", zeta=0.5)
    shape = (2, 2, 3, 3)
    mask = np.zeros(shape, dtype=bool)
    mask[0, 0] = [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    mask[1, 1, 0, 0] = mask[1, 0, 2, 2] = True  # kernels of one weight: no score is positive
    weights = np.array([3.0, 2.0, 1.0, 0.1, 1.0, 2.0])
    update = evolve_conv(conv_topology(mask), shape, weights, config, 0.0, np.random.default_rng(0))
    # channel 0 keeps its two upper weights: the only two positive scores lie beside and around them
    left = np.zeros(shape, dtype=bool)
    left[0, 0, 0, :2] = left[1, 1, 0, 0] = True
    scores = conv_scores(left, "CH3-L3n")
    new = conv_mask(update.topology, shape) & ~left
    assert new.sum(axis=(1, 2, 3)).tolist() == [2, 1]
    assert scores[0][new[0]].min() >= scores[0][~new[0] & ~left[0]].max()


def test_bad_calls_are_refused() -> None:
    topology = conv_er(SHAPE, 0.5, np.random.default_rng(0))
    weights = np.ones(topology.nnz)
    generator = np.random.default_rng(0)
    with pytest.raises(ModelError, match=r"expected \(c_out, c_in, kh, kw\)"):
        conv_scores(np.ones((3, 3)))
    with pytest.raises(ConfigError, match="'window', expected one of kernel"):
        conv_scores(np.ones(SHAPE), mode="window")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="CH3-L3p has no closed form in mode 'full'"):
        conv_scores(np.ones(SHAPE), "CH3-L3p", "full")
    with pytest.raises(ModelError, match=r"expected \(6, 20\) for a convolution"):
        evolve_conv(topology, (6, 5, 2, 2), weights, EvolutionConfig(), 0.0, generator)
    with pytest.raises(ConfigError, match="progress"):
        evolve_conv(topology, SHAPE, weights, EvolutionConfig(), 2.0, generator)
    with pytest.raises(ModelError, match="got a gradient of none"):
        evolve_conv(topology, SHAPE, weights, for_convolutions(recipe("rigl", 0.5)), 0.0, generator)
    with pytest.raises(ModelError, match=r"weights have shape \(2,\)"):
        evolve_conv(topology, SHAPE, np.ones(2), EvolutionConfig(), 0.0, generator)
