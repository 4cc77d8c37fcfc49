"""Which absent links of a layer to add.

* by Cannistraci-Hebb score, sampled (CHTs) or the highest (CHT);
* at random (SET);
* by the magnitude of the gradient that each absent link would have (RigL).

Scores and gradients may be positive on too few links. Then all of those are taken, and the rest uniformly at random,
first among links between active neurons: a link to a percolated neuron would have no way on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.ann.topology.kernel import kernel
from sparsespike.ann.topology.pattern import Topology
from sparsespike.ann.topology.randomness import link_bits, uniform_of_bits
from sparsespike.ann.topology.selection import Heap, best_links, push
from sparsespike.common.errors import ConfigError, ModelError

RowProvider = Callable[[int, int], NDArray[Any]]
"""``rows(start, stop)`` returns a value >= 0 for every link of outputs start .. stop - 1, float[stop - start, n]."""

BLOCK_ROWS = 64


def check_room(topology: Topology, count: int) -> None:
    """Raise ``ConfigError`` unless ``count`` links can be added."""
    absent = topology.shape[0] * topology.shape[1] - topology.nnz
    if not 0 <= count <= absent:
        raise ConfigError(f"{count} links are to be added to {topology}, expected 0..{absent}, the number of absent links")


def random_links(
    topology: Topology,
    count: int,
    seed: np.uint64,
    outputs: NDArray[np.bool_] | None = None,
    inputs: NDArray[np.bool_] | None = None,
) -> NDArray[np.int64]:
    """Choose ``count`` absent links uniformly at random; fewer where fewer are allowed.

    Parameters
    ----------
    topology : Topology
        The layer.
    count : int
        Links to choose.
    seed : uint64
        Seed of the layer's random numbers.
    outputs : bool[m], optional
        Outputs that may receive a link; all by default.
    inputs : bool[n], optional
        Inputs that may send one; all by default.

    Returns
    -------
    int64[k], k <= count
        Link ids, ascending.
    """
    m, n = topology.shape
    heap = Heap(count)
    heap.size = _offer_absent(
        topology.indptr,
        topology.indices,
        np.ones(m, dtype=np.bool_) if outputs is None else outputs,
        np.ones(n, dtype=np.bool_) if inputs is None else inputs,
        seed,
        heap.primary,
        heap.tie,
        heap.link,
    )
    return best_links([heap], count)


def best_valued_links(
    topology: Topology, values: RowProvider, count: int, seed: np.uint64, *, sampled: bool = False
) -> NDArray[np.int64]:
    """Choose ``count`` absent links by values computed a block of rows at a time; fewer where fewer are positive.

    Parameters
    ----------
    topology : Topology
        The layer; values of its links are ignored.
    values : callable
        ``values(start, stop)`` returns float[stop - start, n], for example the magnitude of the dense gradient.
    count : int
        Links to choose.
    seed : uint64
        Seed of the layer's random numbers.
    sampled : bool
        Sample with probability proportional to the value, or take the highest (ties broken at random).

    Returns
    -------
    int64[k], k <= count
        Link ids, ascending.

    Raises
    ------
    ModelError
        If the values have a wrong shape or are not all finite and >= 0.
    """
    m, n = topology.shape
    heap = Heap(count)
    for row in range(0, m, BLOCK_ROWS):
        stop = min(m, row + BLOCK_ROWS)
        block = np.array(values(row, stop), dtype=np.float64)
        if block.shape != (stop - row, n):
            raise ModelError(f"values of outputs {row}..{stop - 1} have shape {block.shape}, expected {(stop - row, n)}")
        if not (np.isfinite(block) & (block >= 0)).all():
            raise ModelError(f"values of outputs {row}..{stop - 1} are not all finite and >= 0; pass magnitudes")
        first, last = topology.indptr[row], topology.indptr[stop]
        block.ravel()[topology.links[first:last] - row * n] = 0.0
        heap.offer(block, row, 0, n, seed, sampled=sampled)
    return best_links([heap], count)


def fill_up(
    topology: Topology,
    chosen: NDArray[np.int64],
    count: int,
    seed: np.uint64,
    outputs: NDArray[np.bool_],
    inputs: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """Complete ``chosen`` to exactly ``count`` absent links, at random.

    Parameters
    ----------
    topology : Topology
        The layer without the chosen links.
    chosen : int64[k]
        Absent links that are taken already.
    count : int
        Links wanted altogether.
    seed : uint64
        Seed of the layer's random numbers.
    outputs, inputs : bool[m], bool[n]
        Active neurons: links between them are taken first.

    Returns
    -------
    int64[count]
        Link ids, ascending.
    """
    check_room(topology, count)
    for allowed in ((outputs, inputs), (None, None)):
        if chosen.size < count:
            more = random_links(topology.with_links(chosen), count - chosen.size, seed, *allowed)
            chosen = np.concatenate([chosen, more])
    return np.sort(chosen)


@kernel
def _offer_absent(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    outputs: NDArray[np.bool_],
    inputs: NDArray[np.bool_],
    seed: np.uint64,
    primary: NDArray[np.float64],
    tie: NDArray[np.uint64],
    link: NDArray[np.int64],
) -> int:
    size = 0
    capacity = link.size
    if capacity == 0:
        return size
    columns = inputs.size
    for u in range(outputs.size):
        if not outputs[u]:
            continue
        position = indptr[u]
        for v in range(columns):
            if position < indptr[u + 1] and indices[position] == v:
                position += 1
            elif inputs[v]:
                bits = link_bits(seed, u * columns + v)
                key = uniform_of_bits(bits)
                if size < capacity or key <= primary[0]:
                    size = push(primary, tie, link, size, key, bits, u * columns + v)
    return size
