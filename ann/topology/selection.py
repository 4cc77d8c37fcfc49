"""Streaming choice of the best links: a bounded heap that sees every candidate once and stores only the chosen.

A candidate has a primary key, a tie key and its link id; the smallest triples win. Two orders are used:

* *top*: primary = -score, tie = the link's random bits: the highest scores, ties broken at random;
* *sampled*: primary = E / score, E exponential: the n smallest are a sample without replacement with probability
  proportional to the score (Efraimidis and Spirakis, 2006; the same as the n largest of log score + Gumbel noise).

The set of the n smallest does not depend on the order in which candidates arrive, hence not on threads or tiles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sparsespike.ann.topology.kernel import kernel
from sparsespike.ann.topology.randomness import link_bits, uniform_of_bits


@dataclass
class Heap:
    """The best candidates so far, worst at the root.

    Parameters
    ----------
    capacity : int
        How many links to choose.
    """

    capacity: int
    primary: NDArray[np.float64] = field(init=False)
    tie: NDArray[np.uint64] = field(init=False)
    link: NDArray[np.int64] = field(init=False)
    size: int = 0

    def __post_init__(self) -> None:
        self.primary = np.empty(self.capacity, dtype=np.float64)
        self.tie = np.empty(self.capacity, dtype=np.uint64)
        self.link = np.empty(self.capacity, dtype=np.int64)

    def offer(self, scores: NDArray[np.float64], row: int, column: int, inputs: int, seed: np.uint64, *, sampled: bool) -> None:
        """Offer the links of a block of a layer with ``inputs`` inputs.

        Parameters
        ----------
        scores : float64[r, c]
            Scores of the links from output ``row`` and input ``column`` on; those that are not positive are passed over.
        row, column : int
            Corner of the block.
        inputs : int
            Number of inputs of the layer.
        seed : uint64
            Seed of the layer's random numbers.
        sampled : bool
            The *sampled* order, or the *top* order.
        """
        self.size = _offer_block(scores, row, column, inputs, seed, sampled, self.primary, self.tie, self.link, self.size)


def best_links(heaps: list[Heap], count: int) -> NDArray[np.int64]:
    """Return the ids of the ``count`` best links over all heaps (fewer if there were fewer candidates), ascending."""
    primary = np.concatenate([heap.primary[: heap.size] for heap in heaps])
    tie = np.concatenate([heap.tie[: heap.size] for heap in heaps])
    link = np.concatenate([heap.link[: heap.size] for heap in heaps])
    order = np.lexsort((link, tie, primary))[:count]
    return np.sort(link[order])


@kernel
def exponential_of_bits(bits: np.uint64) -> float:
    """Map 64 random bits to an exponential number of mean 1."""
    return -math.log1p(-uniform_of_bits(bits))


@kernel
def _worse(primary: NDArray[np.float64], tie: NDArray[np.uint64], link: NDArray[np.int64], a: int, b: int) -> bool:
    if primary[a] != primary[b]:
        return bool(primary[a] > primary[b])
    if tie[a] != tie[b]:
        return bool(tie[a] > tie[b])
    return bool(link[a] > link[b])


@kernel
def _swap(primary: NDArray[np.float64], tie: NDArray[np.uint64], link: NDArray[np.int64], a: int, b: int) -> None:
    primary[a], primary[b] = primary[b], primary[a]
    tie[a], tie[b] = tie[b], tie[a]
    link[a], link[b] = link[b], link[a]


@kernel
def push(
    primary: NDArray[np.float64],
    tie: NDArray[np.uint64],
    link: NDArray[np.int64],
    size: int,
    new_primary: float,
    new_tie: np.uint64,
    new_link: int,
) -> int:
    """Offer one candidate to the heap; return the heap's new size."""
    capacity = link.size
    if size < capacity:
        child = size
        primary[child], tie[child], link[child] = new_primary, new_tie, new_link
        while child > 0 and _worse(primary, tie, link, child, (child - 1) // 2):
            _swap(primary, tie, link, child, (child - 1) // 2)
            child = (child - 1) // 2
        return size + 1
    if capacity == 0 or new_primary > primary[0]:
        return size
    if new_primary == primary[0] and (new_tie > tie[0] or (new_tie == tie[0] and new_link > link[0])):
        return size
    primary[0], tie[0], link[0] = new_primary, new_tie, new_link
    parent = 0
    while True:
        worst = parent
        for child in (2 * parent + 1, 2 * parent + 2):
            if child < size and _worse(primary, tie, link, child, worst):
                worst = child
        if worst == parent:
            return size
        _swap(primary, tie, link, parent, worst)
        parent = worst


@kernel
def _offer_block(
    scores: NDArray[np.float64],
    row: int,
    column: int,
    inputs: int,
    seed: np.uint64,
    sampled: bool,
    primary: NDArray[np.float64],
    tie: NDArray[np.uint64],
    link: NDArray[np.int64],
    size: int,
) -> int:
    full = link.size
    if full == 0:
        return 0
    columns = scores.shape[1]
    promising = np.empty(columns, dtype=np.bool_)
    for local_row in range(scores.shape[0]):
        of_row = scores[local_row]
        first_link = (row + local_row) * inputs + column
        # First, without branches, which candidates may enter; then those exactly.
        if sampled:
            # E >= u for E = -log(1 - u), so u alone rules most out. The margin covers rounding: this test never turns
            # away a candidate that the exact comparison would take.
            limit = primary[0] * (1.0 + 1e-9) if size == full else math.inf
            for k in range(columns):
                promising[k] = uniform_of_bits(link_bits(seed, first_link + k)) <= limit * of_row[k]
        else:
            limit = -primary[0] if size == full else 0.0
            for k in range(columns):
                promising[k] = of_row[k] >= limit
        for k in range(columns):
            if promising[k] and of_row[k] > 0.0:
                bits = link_bits(seed, first_link + k)
                key = exponential_of_bits(bits) / of_row[k] if sampled else -of_row[k]
                size = push(primary, tie, link, size, key, bits, first_link + k)
    return size
