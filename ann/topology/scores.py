"""Cannistraci-Hebb scores of the absent links of one layer, as a matrix or streamed into a choice of the best links.

Two implementations with identical results, to the bit (see :mod:`sparsespike.ann.topology.rules`):

* *sparse*: block by block from the CSR pattern; no m x n array when links are chosen on the fly;
* *dense*: matrix products, S = E^U A + A (E^V)^T for the node rules (Zhang et al., NeurIPS 2025, algorithm 1).

The default takes the sparse one up to the density at which matrix products win.
"""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sparsespike.ann.topology.kernel import available_cores
from sparsespike.ann.topology.pattern import Topology
from sparsespike.ann.topology.rules import Rule, factor, is_path_rule, quantum_bits
from sparsespike.ann.topology.selection import Heap, best_links
from sparsespike.ann.topology.sparse_scores import visit_blocks
from sparsespike.common.errors import ConfigError

Method = Literal["auto", "sparse", "dense"]

DENSE_FROM = 0.1
"""Density of a layer from which matrix products score the node rules as fast as the row kernels do."""


def score_matrix(topology: Topology, rule: Rule, method: Method = "auto") -> NDArray[np.float64]:
    """Return the score of every absent link, float64[m, n]; 0 where a link exists or no path of length 3 does.

    Parameters
    ----------
    topology : Topology
        The layer, m outputs x n inputs.
    rule : {"CH2-L3n", "CH3-L3n", "CH2-L3p", "CH3-L3p"}
        See :mod:`sparsespike.ann.topology.rules`.
    method : {"auto", "sparse", "dense"}
        Implementation; the result is the same to the bit.

    Raises
    ------
    ConfigError
        If the rule or the method is unknown.
    """
    if resolve_method(topology, rule, method) == "dense":
        return _dense_scores(topology, rule)
    scores = np.empty(topology.shape, dtype=np.float64)

    def store(worker: int, row: int, column: int, block: NDArray[np.float64]) -> None:
        scores[row : row + block.shape[0], column : column + block.shape[1]] = block

    visit_blocks(topology, rule, available_cores(), store)
    return scores


def best_scored_links(
    topology: Topology, rule: Rule, count: int, seed: np.uint64, *, sampled: bool, method: Method = "auto"
) -> NDArray[np.int64]:
    """Choose ``count`` absent links by their score; fewer where fewer have a positive one.

    Parameters
    ----------
    topology : Topology
        The layer, after removal and percolation.
    rule : {"CH2-L3n", "CH3-L3n", "CH2-L3p", "CH3-L3p"}
        See :mod:`sparsespike.ann.topology.rules`.
    count : int
        Links to choose.
    seed : uint64
        Seed of the layer's random numbers, from :func:`~sparsespike.ann.topology.randomness.draw_seed`.
    sampled : bool
        True: sample without replacement, probability proportional to the score (CHTs). False: the highest scores, ties
        broken at random (CHT).
    method : {"auto", "sparse", "dense"}
        Implementation; the result is the same.

    Returns
    -------
    int64[k], k <= count
        Link ids, ascending.

    Raises
    ------
    ConfigError
        If the rule or the method is unknown.
    """
    inputs = topology.shape[1]
    if resolve_method(topology, rule, method) == "dense":
        heap = Heap(count)
        heap.offer(_dense_scores(topology, rule), 0, 0, inputs, seed, sampled=sampled)
        return best_links([heap], count)

    heaps = [Heap(count) for _ in range(available_cores())]

    def offer(worker: int, row: int, column: int, block: NDArray[np.float64]) -> None:
        heaps[worker].offer(block, row, column, inputs, seed, sampled=sampled)

    visit_blocks(topology, rule, len(heaps), offer)
    return best_links(heaps, count)


def resolve_method(topology: Topology, rule: Rule, method: Method) -> Literal["sparse", "dense"]:
    """Return the implementation that ``method`` stands for; paths are always cheaper to stream."""
    if method not in get_args(Method):
        raise ConfigError(f"score method is {method!r}, expected one of {', '.join(get_args(Method))}")
    if method != "auto":
        return method
    return "dense" if topology.density >= DENSE_FROM and not is_path_rule(rule) else "sparse"


def _dense_scores(topology: Topology, rule: Rule) -> NDArray[np.float64]:
    mask = topology.to_dense()
    a = mask.astype(np.float64)
    bits = quantum_bits(topology, rule)
    of_outputs = _community(a @ a.T, topology.in_degree, rule, bits)
    of_inputs = _community(a.T @ a, topology.out_degree, rule, bits)
    if is_path_rule(rule):
        scores = np.zeros(topology.shape, dtype=np.float64)
        for u in range(topology.shape[0]):
            inputs = np.flatnonzero(mask[u])
            through = (a[:, inputs] * of_outputs[u][:, None]).T @ a  # [t, v]: sum over j of G_uj
            scores[u] = np.rint(through * of_inputs[:, inputs].T * 2.0**bits).sum(axis=0) * 2.0**-bits
    else:
        scores = of_outputs @ a
        scores += a @ of_inputs.T
    scores[mask] = 0.0
    return scores


def _community(common: NDArray[np.float64], degree: NDArray[np.int64], rule: Rule, bits: int) -> NDArray[np.float64]:
    """Return the factor of each (seed, community node) from their common neighbours; 0 where there are none."""
    factors = factor(common, degree.astype(np.float64), rule, bits)
    factors[common == 0.0] = 0.0
    return factors
