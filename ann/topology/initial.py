"""Initial topologies and weights of sparse layers.

All topologies hold exactly :func:`~sparsespike.ann.topology.pattern.link_count` links.

========  ===================================================  ===============================================
name      links                                                source
========  ===================================================  ===============================================
er        uniformly random                                     Erdős and Rényi
csti      between correlated input features                    Zhang et al., ICLR 2024, section B
bsw       to a ring window, a share rewired at random          bipartite small world; ICLR 2024, section M
brf       concentrated around a ring position                  bipartite receptive field; NeurIPS 2025, section D
========  ===================================================  ===============================================
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from sparsespike.ann.topology.pattern import Topology, link_count
from sparsespike.ann.topology.randomness import draw_seed
from sparsespike.ann.topology.regrowth import best_valued_links, fill_up, random_links
from sparsespike.common.errors import ConfigError, ModelError


def er(shape: tuple[int, int], sparsity: float, generator: np.random.Generator) -> Topology:
    """Return uniformly random links."""
    count = link_count(shape, sparsity)
    return Topology.from_links(shape, generator.choice(math.prod(shape), count, replace=False, shuffle=False))


def csti(correlation: NDArray[np.float64], shape: tuple[int, int], sparsity: float, generator: np.random.Generator) -> Topology:
    """Return the links between the most correlated features (correlated sparse topological initialisation).

    Parameters
    ----------
    correlation : float64[M, M]
        \\|Pearson correlation\\| of the input features with a zero diagonal, from
        :func:`~sparsespike.ann.topology.correlation.feature_correlation`.
    shape : (int, int)
        ``(m, n)``. Output u and input v stand for the features u mod M and v mod M: the matrix is tiled and cropped.
    sparsity : float
        Share of absent links.
    generator : numpy.random.Generator
        Breaks ties, of which a tiled symmetric matrix has many.

    Notes
    -----
    Only links with a correlation above 0 are taken; if there are too few, the rest is random.
    """
    features = len(correlation)
    if correlation.shape != (features, features) or features == 0:
        raise ModelError(f"correlation has shape {correlation.shape}, expected a square matrix over the input features")
    m, n = shape
    columns = np.arange(n) % features

    def values(start: int, stop: int) -> NDArray[np.float64]:
        return np.asarray(correlation[np.arange(start, stop) % features][:, columns])

    count = link_count(shape, sparsity)
    none = Topology.from_links(shape, [])
    chosen = best_valued_links(none, values, count, draw_seed(generator))
    everyone = np.ones(m, dtype=np.bool_), np.ones(n, dtype=np.bool_)
    return Topology.from_links(shape, fill_up(none, chosen, count, draw_seed(generator), *everyone))


def bsw(shape: tuple[int, int], sparsity: float, generator: np.random.Generator, *, beta: float = 0.25) -> Topology:
    """Return a bipartite small world: ring windows of which each link is rewired with probability ``beta``.

    Parameters
    ----------
    shape, sparsity, generator
        As for :func:`er`.
    beta : float
        0 keeps the regular windows, 1 gives random links. A deleted link is replaced by a random absent one.
    """
    if not 0.0 <= beta <= 1.0:
        raise ConfigError(f"beta of the bipartite small world is {beta}, expected 0..1")
    short, long = min(shape), max(shape)
    degrees = _even_degrees(link_count(shape, sparsity), long, generator)
    node = np.repeat(np.arange(long), degrees)
    step = np.arange(degrees.sum()) - np.repeat(np.cumsum(degrees) - degrees, degrees)
    start = np.floor(np.arange(long) * (short / long) - degrees / 2).astype(np.int64)
    partner = (start[node] + step) % short
    outputs, inputs = (node, partner) if shape[0] == long else (partner, node)
    regular = Topology.from_links(shape, outputs * shape[1] + inputs)

    kept = regular.where(generator.random(regular.nnz) >= beta)
    lost = Topology.from_links(shape, np.setdiff1d(regular.links, kept.links, assume_unique=True))
    # New links were absent from the regular windows too, unless too few such links exist.
    new = random_links(regular, lost.nnz, draw_seed(generator))
    spared = generator.permutation(lost.links)[: lost.nnz - new.size]
    return kept.with_links(np.concatenate([new, spared]))


def brf(shape: tuple[int, int], sparsity: float, generator: np.random.Generator, *, r: float = 0.25) -> Topology:
    """Return bipartite receptive fields: links near the diagonal are likelier.

    Parameters
    ----------
    shape, sparsity, generator
        As for :func:`er`.
    r : float
        Randomness in [0, 1]: 0 links each node of the shorter side to its nearest, 1 to random nodes. In between, node
        i draws its partners without replacement with probability ~ (1 + d)^-((1 - r) / r), d the ring distance
        from its position on the longer side.

    Notes
    -----
    Degrees differ by at most one on the shorter side. The paper's printed equation grows with the distance although
    its text says the opposite; this follows the text and the released code.
    """
    if not 0.0 <= r <= 1.0:
        raise ConfigError(f"randomness r of the receptive fields is {r}, expected 0..1")
    short, long = min(shape), max(shape)
    degrees = _even_degrees(link_count(shape, sparsity), short, generator)
    nodes, partners = [], []
    for node, degree in enumerate(degrees):
        offset = np.abs(np.arange(long) - node * (long // short))
        distance = np.minimum(offset, long - offset)
        noise = generator.exponential(size=long)
        # Sampling without replacement: the smallest E / p, here log(E / p) times r. At r = 0 the nearest, ties by noise.
        key = r * np.log(noise) + (1.0 - r) * np.log1p(distance)
        partners.append(np.lexsort((noise, key))[:degree])
        nodes.append(np.full(degree, node))
    node_side, partner_side = np.concatenate(nodes), np.concatenate(partners)
    outputs, inputs = (node_side, partner_side) if shape[0] == short else (partner_side, node_side)
    return Topology.from_links(shape, outputs * shape[1] + inputs)


def swi_std(fan_in: int, sparsity: float, gain: float = math.sqrt(2.0)) -> float:
    """Return the standard deviation of sparse weight initialisation, ``gain / sqrt((1 - sparsity) fan_in)``.

    Zhang et al., ICLR 2024, eqs. 9-11, gain sqrt(2) for ReLU: a neuron of a sparse layer has ``(1 - sparsity) fan_in``
    links on average. (Released code divides by the fan-out instead, which differs for layers that are not square.)
    """
    if fan_in < 1 or not 0.0 <= sparsity < 1.0:
        raise ConfigError(f"fan-in is {fan_in} and sparsity {sparsity}, expected fan-in >= 1 and 0 <= sparsity < 1")
    return gain / math.sqrt((1.0 - sparsity) * fan_in)


def _even_degrees(links: int, nodes: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Spread the links over the nodes: degrees differ by at most one, the larger ones at random nodes."""
    degrees = np.full(nodes, links // nodes, dtype=np.int64)
    degrees[generator.permutation(nodes)[: links % nodes]] += 1
    return degrees
