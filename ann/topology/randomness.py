"""Random numbers that belong to links, not to the order in which links are visited.

A layer draws one 64-bit seed from the explicit generator; link ``i`` then owns output ``i`` of the SplitMix64 sequence
from that seed (Steele, Lea and Flood, 2014). A streaming CSR kernel, a dense matrix and a test therefore see identical
numbers, on any number of threads, with nothing stored.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sparsespike.ann.topology.kernel import kernel


def draw_seed(generator: np.random.Generator) -> np.uint64:
    """Draw the seed of one layer's random numbers."""
    return np.uint64(generator.integers(0, 2**64, dtype=np.uint64))


@kernel
def link_bits(seed: np.uint64, link: int) -> np.uint64:
    """Return the 64 random bits of a link."""
    z = seed + (np.uint64(link) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@kernel
def uniform_of_bits(bits: np.uint64) -> float:
    """Map 64 random bits to the open interval (0, 1): the midpoints of 2^52 cells, so never 0 or 1."""
    return (float(bits >> np.uint64(12)) + 0.5) * 2.0**-52


@kernel
def link_uniforms(seed: np.uint64, links: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return one uniform number in (0, 1) for each of the link ids."""
    values = np.empty(links.size, dtype=np.float64)
    for position in range(links.size):
        values[position] = uniform_of_bits(link_bits(seed, links[position]))
    return values
