"""Cannistraci-Hebb scores of the absent links of one layer, as a matrix or streamed into a choice of the best links.

Two implementations with identical results, to the bit (see :mod:`sparsespike.ann.topology.rules`):

* *sparse*: block by block from the CSR pattern; no m x n array when links are chosen on the fly;
* *dense*: matrix products, S = E^U A + A (E^V)^T for the node rules (Zhang et al., NeurIPS 2025, algorithm 1).

The default takes the sparse one up to the density at which matrix products win.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from sparsespike.ann.topology.kernel import available_cores, in_threads
from sparsespike.ann.topology.pattern import Topology
from sparsespike.ann.topology.rules import Rule, factor, factor_table, is_path_rule, quantum_bits
from sparsespike.ann.topology.score_kernels import community_of_inputs, node_scores, path_scores
from sparsespike.ann.topology.selection import Heap, best_links
from sparsespike.common.errors import ConfigError

Method = Literal["auto", "sparse", "dense"]

DENSE_FROM = 0.02
"""Density of a layer from which matrix products score the node rules faster than the row kernel."""

TILE_NUMBERS = 2**21
"""Numbers in the tile of E^V that the node kernel keeps: 16 MiB, about a last-level cache."""

BLOCK_ROWS = 64
"""Outputs scored between two offers: a block of scores stays in the second-level cache."""


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
    layer = _Layer.of(topology, rule)
    scores = np.empty(topology.shape, dtype=np.float64)

    def fill(columns: tuple[int, int]) -> None:
        for row, block in layer.blocks(*columns):
            scores[row : row + len(block), columns[0] : columns[1]] = block

    in_threads(fill, layer.tiles())
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

    layer = _Layer.of(topology, rule)

    def choose(columns: tuple[int, int]) -> Heap:
        heap = Heap(count)
        for row, block in layer.blocks(*columns):
            heap.offer(block, row, columns[0], inputs, seed, sampled=sampled)
        return heap

    return best_links(in_threads(choose, layer.tiles()), count)


def resolve_method(topology: Topology, rule: Rule, method: Method) -> Literal["sparse", "dense"]:
    """Return the implementation that ``method`` stands for; paths are always cheaper to stream."""
    if method not in get_args(Method):
        raise ConfigError(f"score method is {method!r}, expected one of {', '.join(get_args(Method))}")
    if method != "auto":
        return method
    return "dense" if topology.density >= DENSE_FROM and not is_path_rule(rule) else "sparse"


@dataclass(frozen=True)
class _Layer:
    """A layer ready for the row kernels: pattern, transposed pattern and the table of factors of each."""

    topology: Topology
    transposed: Topology
    rule: Rule
    quantum: float
    table: NDArray[np.float64]
    transposed_table: NDArray[np.float64]

    @classmethod
    def of(cls, topology: Topology, rule: Rule) -> _Layer:
        bits = quantum_bits(topology, rule)
        transposed = topology.transpose()
        return cls(
            topology,
            transposed,
            rule,
            2.0**-bits,
            factor_table(topology, rule, bits),
            factor_table(transposed, rule, bits),
        )

    def tiles(self) -> list[tuple[int, int]]:
        """Split the inputs into ranges of equal width, a multiple of the number of cores."""
        inputs = self.topology.shape[1]
        cores = available_cores()
        parts = cores * max(1, math.ceil(inputs * inputs / (TILE_NUMBERS * cores)))
        bounds = np.unique(np.linspace(0, inputs, min(parts, inputs) + 1).astype(int)).tolist()
        return list(pairwise(bounds))

    def blocks(self, first: int, last: int) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """Yield (first output, scores[rows, last - first]) for blocks of outputs; the array is reused by the next."""
        topology, transposed = self.topology, self.transposed
        outputs, inputs = topology.shape
        links = topology.links
        row_ids = np.arange(outputs, dtype=np.int64) * inputs
        starts, ends = np.searchsorted(links, row_ids + first), np.searchsorted(links, row_ids + last)
        forward = (topology.indptr, starts, ends, topology.indices, transposed.indptr, transposed.indices, self.table)
        scores = np.empty((BLOCK_ROWS, last - first), dtype=np.float64)
        if is_path_rule(self.rule):
            for row in range(0, outputs, BLOCK_ROWS):
                block = scores[: outputs - row]
                path_scores(*forward, self.transposed_table, self.quantum, first, row, block)
                yield row, block
            return
        community = community_of_inputs(
            starts, ends, topology.indices, transposed.indptr, transposed.indices, self.transposed_table, first, last - first
        )
        for row in range(0, outputs, BLOCK_ROWS):
            block = scores[: outputs - row]
            node_scores(*forward, community, first, row, block)
            yield row, block


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
