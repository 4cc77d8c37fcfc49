"""Topology: the CSR pattern and its conversions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra import numpy as hnp

from sparsespike.ann.topology import Topology, link_count
from sparsespike.common.errors import ConfigError, ModelError

MASKS = hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9))


@settings(deadline=None)
@given(MASKS)
def test_dense_mask_links_and_transpose_round_trip(mask: np.ndarray) -> None:
    topology = Topology.from_dense(mask)
    m, n = mask.shape
    assert np.array_equal(topology.to_dense(), mask)
    assert topology.nnz == mask.sum()
    assert topology.density == mask.mean()
    assert np.array_equal(topology.links, np.flatnonzero(mask))
    assert np.array_equal(topology.rows * n + topology.indices, np.flatnonzero(mask))
    assert np.array_equal(topology.in_degree, mask.sum(axis=1))
    assert np.array_equal(topology.out_degree, mask.sum(axis=0))
    assert Topology.from_links((m, n), topology.links[::-1]) == topology
    assert topology.transpose() == Topology.from_dense(mask.T)
    assert topology.transpose().transpose() == topology


@settings(deadline=None)
@given(MASKS)
def test_where_and_with_links_are_inverse(mask: np.ndarray) -> None:
    topology = Topology.from_dense(mask)
    keep = np.arange(topology.nnz) % 3 != 0
    kept = topology.where(keep)
    assert np.array_equal(kept.links, topology.links[keep])
    assert kept.with_links(topology.links[~keep]) == topology


def test_full_topology_holds_every_link() -> None:
    assert np.array_equal(Topology.full((3, 4)).to_dense(), np.ones((3, 4), dtype=bool))


def test_topologies_are_equal_by_value() -> None:
    one = Topology.from_links((2, 3), [1, 4])
    assert one == Topology.from_links((2, 3), [4, 1])
    assert one != Topology.from_links((2, 3), [1, 5])
    assert one != Topology.from_links((3, 2), [1, 4])
    assert one != "a topology"


@pytest.mark.parametrize(
    ("shape", "sparsity", "count"),
    [((3072, 3072), 0.99, 94372), ((10, 10), 0.0, 100), ((3, 3), 0.5, 5), ((2, 1), 0.9, 1), ((1000, 1000), 0.999, 1000)],
)
def test_link_count_is_mn_minus_the_truncated_number_of_absent_links(shape: tuple[int, int], sparsity: float, count: int) -> None:
    assert link_count(shape, sparsity) == count


@pytest.mark.parametrize("sparsity", [-0.1, 1.0, float("nan")])
def test_sparsity_out_of_range_is_refused(sparsity: float) -> None:
    with pytest.raises(ConfigError, match="expected 0 <= sparsity < 1"):
        link_count((4, 4), sparsity)


@pytest.mark.parametrize(
    ("shape", "indptr", "indices", "message"),
    [
        ((0, 3), [0], [], "at least 1"),
        ((2, 3), [0, 1], [0], "row pointers"),
        ((2, 3), [0, 2, 1], [0], "row pointers"),
        ((2, 3), [1, 1, 1], [0], "row pointers"),
        ((2, 3), [0, 1, 2], [0, 3], "expected 0..2"),
        ((2, 3), [0, 1, 2], [-1, 0], "expected 0..2"),
        ((2, 3), [0, 2, 2], [1, 0], "unsorted or repeated"),
        ((2, 3), [0, 2, 2], [1, 1], "unsorted or repeated"),
    ],
)
def test_a_broken_pattern_is_refused(shape: tuple[int, int], indptr: list[int], indices: list[int], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        Topology(shape, np.array(indptr), np.array(indices, dtype=np.int32))


def test_link_ids_out_of_range_are_refused() -> None:
    with pytest.raises(ModelError, match=r"expected 0\.\.5"):
        Topology.from_links((2, 3), [6])
    with pytest.raises(ModelError, match="1 dimensions, expected 2"):
        Topology.from_dense(np.ones(3))
