"""Network science: closed forms, networkx and planted parameters."""

from __future__ import annotations

import math

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sparsespike.ann.topology import Topology, bsw, er
from sparsespike.ann.topology.science import (
    ExploredLinks,
    active_share,
    bipartite_clustering,
    degree_distribution,
    explored_share,
    fit_power_law,
    mean_path_length,
    shared_links,
    small_world,
)
from sparsespike.common.errors import ConfigError, ModelError

MASKS = hnp.arrays(np.bool_, st.tuples(st.integers(1, 7), st.integers(1, 7)))


def as_networkx(mask: np.ndarray) -> nx.Graph:
    graph = nx.Graph()
    graph.add_nodes_from(range(sum(mask.shape)))
    graph.add_edges_from((u, mask.shape[0] + v) for u, v in np.argwhere(mask))
    return graph


def test_degrees_are_counted() -> None:
    values, counts = degree_distribution([3, 1, 0, 3, 3])
    assert (values.tolist(), counts.tolist()) == ([0, 1, 3], [1, 1, 3])


@pytest.mark.parametrize("exponent", [2.2, 3.0, 4.5])
def test_a_planted_exponent_is_found(exponent: float) -> None:
    degrees = np.random.default_rng(0).zipf(exponent, 20_000)
    fit = fit_power_law(degrees, minimum=1)
    # Standard error of the estimate is about (exponent - 1) / sqrt(nodes) (Clauset et al., eq. 3.2); 4 of them.
    assert abs(fit.exponent - exponent) < 4 * exponent / math.sqrt(20_000)
    assert fit.tail == 20_000
    assert fit.distance < 0.02


def test_the_exponent_maximises_the_likelihood() -> None:
    degrees = np.array([1] * 50 + [2] * 12 + [3] * 5 + [7] * 2)
    fit = fit_power_law(degrees, minimum=1)
    values = np.arange(1, 400_000, dtype=np.float64)

    def likelihood(exponent: float) -> float:
        return float(-exponent * np.log(degrees).sum() - degrees.size * np.log((values**-exponent).sum()))

    assert all(likelihood(fit.exponent) >= likelihood(fit.exponent + step) for step in (-0.01, 0.01))


def test_the_start_of_the_tail_is_found() -> None:
    generator = np.random.default_rng(1)
    tail = generator.zipf(2.5, 200_000)
    tail = tail[tail >= 10][:5000]
    degrees = np.concatenate([generator.integers(1, 10, 5000), tail])
    fit = fit_power_law(degrees)
    assert 8 <= fit.minimum <= 14
    assert abs(fit.exponent - 2.5) < 0.15


@pytest.mark.parametrize("degrees", [[], [0, 0], [4, 4, 4]])
def test_no_power_law_is_fitted_to_fewer_than_two_degrees(degrees: list[int]) -> None:
    with pytest.raises(ModelError, match="expected at least two"):
        fit_power_law(degrees)


def test_active_share_counts_neurons() -> None:
    chain = [Topology.from_dense([[1, 0], [0, 0], [1, 0]]), Topology.from_dense([[1, 1, 0]])]
    assert active_share(chain) == 3 / 6


def test_overlap_and_explored_links() -> None:
    first, second = Topology.from_links((2, 4), [0, 1, 2]), Topology.from_links((2, 4), [2, 3])
    assert shared_links(first, second) == 1 / 4
    assert shared_links(first, first) == 1.0
    explored = ExploredLinks.of(first).including(second).including(first)
    assert explored.bits.tolist() == [0b1111]
    assert explored_share([explored]) == 0.5
    with pytest.raises(ModelError, match="expected the same"):
        shared_links(first, Topology.full((1, 1)))
    with pytest.raises(ModelError, match=r"expected \(2, 4\)"):
        explored.including(Topology.full((1, 1)))


@settings(deadline=None)
@given(st.lists(hnp.arrays(np.bool_, (5, 7)), min_size=1, max_size=4))
def test_explored_links_are_the_union_of_all_masks(masks: list[np.ndarray]) -> None:
    start, *later = [Topology.from_dense(mask) for mask in masks]
    explored = ExploredLinks.of(start)
    for topology in later:
        explored = explored.including(topology)
    union = np.logical_or.reduce(masks)
    assert np.array_equal(explored.bits, np.packbits(union, bitorder="little"))
    full = ExploredLinks.of(Topology.full((3, 3)))
    assert explored_share([explored, full]) == (union.sum() + 9) / (35 + 9)


def test_explored_links_take_one_bit_a_possible_link() -> None:
    assert ExploredLinks.of(er((3072, 3072), 0.99, np.random.default_rng(0))).bits.nbytes == 3072 * 3072 // 8
    with pytest.raises(ModelError, match=r"of a layer of shape \(3, 3\) are uint8 of shape \(1,\), expected 2 bytes"):
        ExploredLinks((3, 3), np.zeros(1, np.uint8))


@settings(deadline=None)
@given(MASKS)
def test_clustering_equals_the_enumeration_of_cycles_and_paths(mask: np.ndarray) -> None:
    m, n = mask.shape
    closed = paths = 0
    for u, v in np.argwhere(mask):
        for t in range(n):
            for j in range(m):
                if t != v and j != u and mask[u, t] and mask[j, v]:
                    paths += 1
                    closed += bool(mask[j, t])
    assert bipartite_clustering(Topology.from_dense(mask)) == (closed / paths if paths else 0.0)


@settings(deadline=None)
@given(MASKS)
def test_path_length_equals_networkx(mask: np.ndarray) -> None:
    graph = as_networkx(mask)
    sizes = sorted((len(nodes) for nodes in nx.connected_components(graph)), reverse=True)
    length = mean_path_length(Topology.from_dense(mask), np.random.default_rng(0))
    largest = [nodes for nodes in nx.connected_components(graph) if len(nodes) == sizes[0]]
    expected = [nx.average_shortest_path_length(graph.subgraph(nodes)) for nodes in largest]
    assert any(math.isclose(length, value, rel_tol=1e-12) for value in expected)


def test_ring_windows_are_a_small_world_and_random_links_are_not() -> None:
    generator = np.random.default_rng(0)
    ring = small_world(bsw((150, 150), 0.95, generator, beta=0.1), generator)
    assert ring.clustering > 3 * ring.random_clustering
    assert ring.sigma > 2.0
    random = small_world(er((150, 150), 0.95, generator), generator)
    assert 0.8 < random.sigma < 1.25


def test_sampled_path_lengths_are_close_to_all() -> None:
    topology = er((200, 150), 0.96, np.random.default_rng(0))
    exact = mean_path_length(topology, np.random.default_rng(1), sources=1000)
    assert abs(mean_path_length(topology, np.random.default_rng(2), sources=40) - exact) < 0.05 * exact


def test_bad_calls_are_refused() -> None:
    generator = np.random.default_rng(0)
    with pytest.raises(ModelError, match="has no links"):
        small_world(Topology.from_links((2, 2), []), generator)
    with pytest.raises(ConfigError, match="0 random references"):
        small_world(Topology.full((2, 2)), generator, references=0)
    with pytest.raises(ConfigError, match="0 nodes"):
        mean_path_length(Topology.full((2, 2)), generator, sources=0)
    complete = small_world(Topology.full((3, 3)), generator, references=1)
    assert complete.sigma == 1.0
    assert math.isnan(small_world(Topology.from_links((2, 2), [0]), generator).sigma)
