"""Streams the scores of a layer from its CSR pattern, a block of outputs at a time and in threads."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sparsespike.ann.topology.kernel import in_threads
from sparsespike.ann.topology.pattern import Topology
from sparsespike.ann.topology.rules import Rule, factor_table, is_path_rule, quantum_bits
from sparsespike.ann.topology.score_kernels import input_communities, node_scores, output_communities, path_scores

TILE_NUMBERS = 2**22
"""Numbers in the tile of E^V that all threads share: 32 MiB, whatever the size of the layer."""

BLOCK_ROWS = 64
"""Outputs scored at a time, so that their E^U stays close to the core."""

Visit = Callable[[int, int, int, NDArray[np.float64]], None]
"""``visit(worker, row, column, block)`` sees the scores of the links from output ``row`` and input ``column`` on.

A worker is one thread. The block is reused after the call."""


def visit_blocks(topology: Topology, rule: Rule, workers: int, visit: Visit) -> None:
    """Score every link once and pass the scores, 0 where a link exists, to ``visit``.

    Parameters
    ----------
    topology : Topology
        The layer.
    rule : {"CH2-L3n", "CH3-L3n", "CH2-L3p", "CH3-L3p"}
        Score rule.
    workers : int
        Number of threads at most.
    visit : callable
        See :data:`Visit`.
    """
    layer = _Layer.of(topology, rule, workers)
    if is_path_rule(rule):
        layer.visit_paths(visit)
        return
    inputs = topology.shape[1]
    width = max(BLOCK_ROWS, TILE_NUMBERS // inputs)
    for first in range(0, inputs, width):
        layer.visit_tile(first, min(inputs, first + width), visit)


@dataclass(frozen=True)
class _Layer:
    """A layer ready for the kernels: pattern, transposed pattern, tables of factors, and each worker's rows."""

    topology: Topology
    transposed: Topology
    table: NDArray[np.float64]
    transposed_table: NDArray[np.float64]
    quantum: float
    shares: list[tuple[int, int]]
    transposed_shares: list[tuple[int, int]]

    @classmethod
    def of(cls, topology: Topology, rule: Rule, workers: int) -> _Layer:
        bits = quantum_bits(topology, rule)
        transposed = topology.transpose()
        return cls(
            topology,
            transposed,
            factor_table(topology, rule, bits),
            factor_table(transposed, rule, bits),
            2.0**-bits,
            _shares(topology, workers),
            _shares(transposed, workers),
        )

    @property
    def patterns(self) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]:
        return self.topology.indptr, self.topology.indices, self.transposed.indptr, self.transposed.indices

    def visit_paths(self, visit: Visit) -> None:
        def work(worker: int) -> None:
            start, stop = self.shares[worker]
            scores = np.empty((BLOCK_ROWS, self.topology.shape[1]), dtype=np.float64)
            for row in range(start, stop, BLOCK_ROWS):
                block = scores[: stop - row]
                path_scores(*self.patterns, self.table, self.transposed_table, self.quantum, row, block)
                visit(worker, row, 0, block)

        in_threads(work, range(len(self.shares)))

    def visit_tile(self, first: int, last: int, visit: Visit) -> None:
        """Score the links from inputs ``first`` .. ``last - 1``."""
        outputs, inputs = self.topology.shape
        links = self.topology.links
        row_links = np.arange(outputs, dtype=np.int64) * inputs
        starts, ends = np.searchsorted(links, row_links + first), np.searchsorted(links, row_links + last)
        indptr, indices, t_indptr, t_indices = self.patterns
        of_inputs = np.empty((inputs, last - first), dtype=np.float64)

        def fill(share: tuple[int, int]) -> None:
            input_communities(starts, ends, indices, t_indptr, t_indices, self.transposed_table, first, *share, of_inputs)

        def work(worker: int) -> None:
            start, stop = self.shares[worker]
            scores = np.empty((BLOCK_ROWS, last - first), dtype=np.float64)
            numbers = np.empty(outputs * BLOCK_ROWS, dtype=np.float64)
            for row in range(start, stop, BLOCK_ROWS):
                block = scores[: stop - row]
                of_outputs = numbers[: outputs * len(block)].reshape(outputs, len(block))
                output_communities(*self.patterns, self.table, row, of_outputs)
                node_scores(indptr, starts, ends, indices, t_indptr, t_indices, of_outputs, of_inputs, first, row, block)
                visit(worker, row, first, block)

        in_threads(fill, self.transposed_shares)
        in_threads(work, range(len(self.shares)))


def _shares(pattern: Topology, workers: int) -> list[tuple[int, int]]:
    """Split the rows into at most ``workers`` ranges with about equal numbers of links."""
    rows = pattern.shape[0]
    load = pattern.indptr + np.arange(rows + 1)
    cuts = np.searchsorted(load, np.arange(1, workers) * (load[-1] / workers))
    bounds = np.unique(np.concatenate([[0], cuts, [rows]])).tolist()
    return list(pairwise(bounds))
