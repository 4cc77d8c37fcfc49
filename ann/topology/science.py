"""Network science of sparse layers: what evolution did to a topology.

Everything is a pure function of :class:`Topology`; each layer is looked at as a bipartite graph of its inputs and outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.sparse.csgraph import connected_components, shortest_path
from scipy.special import zeta

from sparsespike.ann.topology.pattern import Topology
from sparsespike.ann.topology.percolation import active_neurons
from sparsespike.common.errors import ConfigError, ModelError

LARGEST_EXPONENT = 20.0
"""Exponents are searched up to this; a fit there says that the tail is no power law."""

SET_BITS = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(axis=1, dtype=np.uint8)
"""Number of set bits of every byte."""


def degree_distribution(degrees: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the distinct degrees, ascending, and how many nodes have each."""
    values, counts = np.unique(np.asarray(degrees, dtype=np.int64), return_counts=True)
    return values, counts.astype(np.int64)


@dataclass(frozen=True)
class PowerLaw:
    """A power law p(k) ~ k^-exponent, fitted to the degrees k >= minimum.

    Parameters
    ----------
    exponent : float
        Maximum likelihood estimate, gamma.
    minimum : int
        First degree of the tail.
    tail : int
        Number of nodes in the tail.
    distance : float
        Kolmogorov-Smirnov distance between the tail and the fit.
    """

    exponent: float
    minimum: int
    tail: int
    distance: float


def fit_power_law(degrees: ArrayLike, minimum: int | None = None) -> PowerLaw:
    """Fit a discrete power law to the tail of a degree sequence.

    The exponent maximises the likelihood of p(k) = k^-gamma / zeta(gamma, k_min); k_min, unless given, is the degree
    with the smallest Kolmogorov-Smirnov distance, among those that leave at least two different degrees in the tail
    (Clauset, Shalizi and Newman, SIAM Review 51, 2009, sections 3.1-3.3). Nodes of degree 0 are left out.

    Raises
    ------
    ModelError
        If fewer than two different positive degrees remain: no exponent can be told.
    """
    values, counts = degree_distribution(degrees)
    values, counts = values[values > 0], counts[values > 0]
    candidates = values[:-1] if minimum is None else np.array([minimum])
    fits = [_fit_tail(values[values >= k], counts[values >= k], int(k)) for k in candidates if np.sum(values >= k) > 1]
    if not fits or candidates[0] < 1:
        raise ModelError(
            f"{values.size} different positive degrees are given, expected at least two in the tail to fit a power law"
        )
    return min(fits, key=lambda fit: fit.distance)


def _fit_tail(values: NDArray[np.int64], counts: NDArray[np.int64], minimum: int) -> PowerLaw:
    total = int(counts.sum())
    mean_log = float(counts @ np.log(values / minimum)) / total

    def cost(exponent: float) -> float:
        return float(np.log(zeta(exponent, minimum) * float(minimum) ** exponent) + exponent * mean_log)

    exponent = float(minimize_scalar(cost, bounds=(1.0 + 1e-6, LARGEST_EXPONENT), args=()).x)
    every = np.arange(minimum, values[-1] + 1)
    observed = np.zeros(every.size)
    observed[values - minimum] = counts / total
    expected = 1.0 - zeta(exponent, every + 1.0) / zeta(exponent, float(minimum))
    distance = float(np.abs(np.cumsum(observed) - expected).max())
    return PowerLaw(exponent, minimum, total, distance)


def active_share(topologies: Sequence[Topology]) -> float:
    """Return the share of active neurons (ANP) of a chain, from its inputs to the last layer's outputs."""
    return float(np.concatenate(active_neurons(topologies)).mean())


def shared_links(before: Topology, after: Topology) -> float:
    """Return the Jaccard overlap of two topologies: links in both over links in either (1 if neither has any)."""
    if before.shape != after.shape:
        raise ModelError(f"topologies have shapes {before.shape} and {after.shape}, expected the same")
    both = np.intersect1d(before.links, after.links, assume_unique=True).size
    either = before.nnz + after.nnz - both
    return both / either if either else 1.0


@dataclass(frozen=True, eq=False)
class ExploredLinks:
    """The links that a layer has ever had (in-time over-parametrisation, ITOP; Liu et al., ICML 2021).

    Parameters
    ----------
    shape : (int, int)
        Shape ``(m, n)`` of the layer.
    bits : uint8[ceil(m n / 8)]
        One bit a possible link: link ``i`` is bit ``i % 8`` of byte ``i // 8``.

    Raises
    ------
    ModelError
        If the bits are not those of a layer of that shape.
    """

    shape: tuple[int, int]
    bits: NDArray[np.uint8]

    def __post_init__(self) -> None:
        size = -(-self.possible // 8)
        if self.bits.dtype != np.uint8 or self.bits.shape != (size,):
            raise ModelError(
                f"explored links of a layer of shape {self.shape} are {self.bits.dtype} of shape {self.bits.shape}, "
                f"expected {size} bytes: one bit a possible link"
            )

    @classmethod
    def of(cls, topology: Topology) -> ExploredLinks:
        """Start from the initial topology."""
        m, n = topology.shape
        return cls(topology.shape, np.zeros(-(-m * n // 8), dtype=np.uint8)).including(topology)

    def including(self, topology: Topology) -> ExploredLinks:
        """Return the links after one more topology."""
        if topology.shape != self.shape:
            raise ModelError(f"topology has shape {topology.shape}, expected {self.shape}")
        bits, links = self.bits.copy(), topology.links
        np.bitwise_or.at(bits, links >> 3, (1 << (links & 7)).astype(np.uint8))
        return ExploredLinks(self.shape, bits)

    @property
    def possible(self) -> int:
        """Number of possible links."""
        return self.shape[0] * self.shape[1]

    @property
    def count(self) -> int:
        """Number of links that the layer has ever had."""
        return int(SET_BITS[self.bits].sum(dtype=np.int64))


def explored_share(layers: Sequence[ExploredLinks]) -> float:
    """Return the share of the possible links of all layers that were ever active (the ITOP rate)."""
    return sum(layer.count for layer in layers) / sum(layer.possible for layer in layers)


def bipartite_clustering(topology: Topology) -> float:
    """Return the share of paths of length three that close to a cycle of length four.

    4 C4 / L3 (Robins and Alexander, 2004): the bipartite counterpart of transitivity; 0 without such paths.
    """
    a = sp.csr_matrix((np.ones(topology.nnz, dtype=np.int64), topology.indices, topology.indptr), shape=topology.shape)
    narrow = a if topology.shape[0] <= topology.shape[1] else a.T.tocsr()
    shared = sp.triu(narrow @ narrow.T, k=1).tocoo().data
    cycles = int((shared * (shared - 1) // 2).sum())
    ends = (topology.in_degree[topology.rows] - 1) * (topology.out_degree[topology.indices] - 1)
    paths = int(ends.sum())
    return 4 * cycles / paths if paths else 0.0


def mean_path_length(topology: Topology, generator: np.random.Generator, sources: int = 256) -> float:
    """Return the mean shortest path length within the largest connected component of the bipartite graph.

    Parameters
    ----------
    topology : Topology
        The layer.
    generator : numpy.random.Generator
        Chooses the nodes that paths start from.
    sources : int
        How many of them; all if the component has no more, which makes the result exact.
    """
    if sources < 1:
        raise ConfigError(f"paths are to start from {sources} nodes, expected at least 1")
    m, n = topology.shape
    graph = sp.coo_matrix((np.ones(topology.nnz), (topology.rows, m + topology.indices)), shape=(m + n, m + n)).tocsr()
    _, component = connected_components(graph, directed=False)
    nodes = np.flatnonzero(component == np.bincount(component).argmax())
    if nodes.size < 2:
        return 0.0
    starts = generator.choice(nodes, sources, replace=False) if sources < nodes.size else nodes
    lengths = shortest_path(graph, directed=False, unweighted=True, indices=starts)[:, nodes]
    return float(lengths.sum() / (starts.size * (nodes.size - 1)))


@dataclass(frozen=True)
class SmallWorld:
    """Clustering and path length of a layer beside random layers of the same size and number of links.

    Parameters
    ----------
    clustering, random_clustering : float
        :func:`bipartite_clustering` of the layer, and its mean over random layers.
    path_length, random_path_length : float
        :func:`mean_path_length`, likewise.
    """

    clustering: float
    random_clustering: float
    path_length: float
    random_path_length: float

    @property
    def sigma(self) -> float:
        """Small-worldness (C / C_random) / (L / L_random), Humphries and Gurney (2008); above 1 is a small world."""
        if self.random_clustering == 0.0 or self.path_length == 0.0 or self.random_path_length == 0.0:
            return float("nan")
        return (self.clustering / self.random_clustering) / (self.path_length / self.random_path_length)


def small_world(topology: Topology, generator: np.random.Generator, *, references: int = 3, sources: int = 256) -> SmallWorld:
    """Compare a layer with ``references`` uniformly random ones of the same size and number of links.

    Raises
    ------
    ModelError
        If the layer has no links.
    """
    if topology.nnz == 0:
        raise ModelError(f"{topology} has no links, expected some to measure small-worldness")
    if references < 1:
        raise ConfigError(f"{references} random references are asked for, expected at least 1")
    possible = topology.shape[0] * topology.shape[1]
    random = [
        Topology.from_links(topology.shape, generator.choice(possible, topology.nnz, replace=False, shuffle=False))
        for _ in range(references)
    ]
    return SmallWorld(
        clustering=bipartite_clustering(topology),
        random_clustering=float(np.mean([bipartite_clustering(layer) for layer in random])),
        path_length=mean_path_length(topology, generator, sources),
        random_path_length=float(np.mean([mean_path_length(layer, generator, sources) for layer in random])),
    )
