"""Topology updates of a convolution (CHT-Conv): every output channel keeps its own exact number of weights.

The mask ``[c_out, c_in, kh, kw]`` is held as a :class:`Topology` of c_out outputs and c_in kh kw inputs, the matrix that
im2col multiplies with; so weights and optimizer state are carried as in any other layer.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsespike.ann.topology.config import EvolutionConfig
from sparsespike.ann.topology.conv import ConvMode, conv_scores
from sparsespike.ann.topology.evolution import LayerUpdate, report_update
from sparsespike.ann.topology.pattern import Topology, link_count
from sparsespike.ann.topology.randomness import draw_seed
from sparsespike.ann.topology.removal import Removal, check_weights, links_to_keep_by_output
from sparsespike.ann.topology.schedules import linear
from sparsespike.ann.topology.selection import Heap, best_links
from sparsespike.common.errors import ConfigError, ModelError

ConvShape = tuple[int, int, int, int]
"""``(c_out, c_in, kh, kw)``."""


def conv_topology(mask: ArrayLike) -> Topology:
    """Return the topology of a convolution's mask, bool[c_out, c_in, kh, kw]."""
    array = np.asarray(mask)
    return Topology.from_dense(array.reshape(len(array), -1))


def conv_mask(topology: Topology, shape: ConvShape) -> NDArray[np.bool_]:
    """Return the mask of a convolution's topology.

    Raises
    ------
    ModelError
        If the topology does not belong to a convolution of that shape.
    """
    matrix = (shape[0], shape[1] * shape[2] * shape[3])
    if topology.shape != matrix:
        raise ModelError(f"topology has shape {topology.shape}, expected {matrix} for a convolution {shape}")
    return topology.to_dense().reshape(shape)


def conv_er(shape: ConvShape, sparsity: float, generator: np.random.Generator) -> Topology:
    """Return uniformly random weights, exactly as many in each output channel: n - int(sparsity n), n = c_in kh kw."""
    taps = shape[1] * shape[2] * shape[3]
    count = link_count((1, taps), sparsity)
    inputs = np.argsort(generator.random((shape[0], taps)), axis=1)[:, :count]
    return Topology.from_links((shape[0], taps), (np.arange(shape[0])[:, None] * taps + inputs).ravel())


def evolve_conv(
    topology: Topology,
    shape: ConvShape,
    weights: ArrayLike,
    config: EvolutionConfig,
    progress: float,
    generator: np.random.Generator,
    *,
    mode: ConvMode = "kernel",
    gradient: NDArray[Any] | None = None,
) -> LayerUpdate:
    """Update the topology of one convolution.

    In each output channel: prune to the schedule's sparsity, remove a share zeta of the weights, and add absent weights
    until the channel has its number again. Channels are not percolated, whatever the configuration says: how dead
    channels would spread through normalisation, pooling and shortcuts is nowhere described.

    Parameters
    ----------
    topology : Topology
        Which weights exist, from :func:`conv_er` or :func:`conv_topology`.
    shape : (int, int, int, int)
        ``(c_out, c_in, kh, kw)``.
    weights : array[nnz]
        The existing weights, in link order (the order of the flattened kernel tensor).
    config : EvolutionConfig
        How to evolve; :func:`~sparsespike.ann.topology.recipes.for_convolutions` adapts a recipe.
    progress : float
        0 at the first update, 1 at the last.
    generator : numpy.random.Generator
        The only source of randomness; three 64-bit numbers are drawn.
    mode : {"kernel", "full", "im2col"}
        Which unfolding the scores stand for (:mod:`sparsespike.ann.topology.conv`).
    gradient : float[c_out, c_in, kh, kw], optional
        Magnitude of the dense gradient, for ``gradient`` regrowth.

    Returns
    -------
    LayerUpdate

    Raises
    ------
    ModelError
        If topology, shape, weights or gradient do not fit each other, or a weight is not finite.
    ConfigError
        If progress is not in 0 .. 1, or the gradient is needed and absent.
    """
    conv_mask(topology, shape)
    if not 0.0 <= progress <= 1.0:
        raise ConfigError(f"progress of the evolution is {progress}, expected 0..1")
    removal_seed, growth_seed, filling_seed = draw_seed(generator), draw_seed(generator), draw_seed(generator)
    goal = topology.in_degree
    if config.schedule is not None:
        goal = np.full_like(goal, link_count((1, topology.shape[1]), config.schedule.at(progress)))

    remaining = _remove(topology, weights, config, progress, goal, removal_seed)
    count = np.maximum(0, goal - remaining.in_degree) if config.regrowth != "none" else np.zeros_like(goal)
    values = _values(remaining, shape, config, mode, gradient)
    sampled = config.regrowth in ("sampled", "random")
    grown = _grow(remaining, values, count, growth_seed, filling_seed, sampled=sampled)
    return report_update(topology, remaining, remaining, grown)


def _remove(
    layer: Topology,
    values: ArrayLike,
    config: EvolutionConfig,
    progress: float,
    goal: NDArray[np.int64],
    seed: np.uint64,
) -> Topology:
    weights = check_weights(layer, values)
    if (goal < layer.in_degree).any():
        by: Removal = "wm" if config.regrowth == "none" else "ri"
        kept = links_to_keep_by_output(layer, weights, np.minimum(goal, layer.in_degree), by, seed)
        layer, weights = layer.where(kept), weights[kept]
    keep = layer.in_degree - (config.zeta_at(progress) * layer.in_degree).astype(np.int64)
    temperature = linear(*config.temperature, progress)
    return layer.where(links_to_keep_by_output(layer, weights, keep, config.removal, seed, temperature))


def _values(
    layer: Topology,
    shape: ConvShape,
    config: EvolutionConfig,
    mode: ConvMode,
    gradient: NDArray[Any] | None,
) -> NDArray[np.float64]:
    """Return what regrowth chooses by, 0 where a weight exists, float64[c_out, c_in kh kw]."""
    mask = conv_mask(layer, shape)
    if config.regrowth in ("sampled", "top"):
        values = conv_scores(mask, config.rule, mode)
    elif config.regrowth == "gradient":
        if gradient is None or gradient.shape != shape:
            found = "none" if gradient is None else f"shape {gradient.shape}"
            raise ModelError(f"regrowth by gradient of a convolution {shape} got a gradient of {found}, expected that shape")
        values = np.where(mask, 0.0, np.abs(gradient.astype(np.float64)))
    else:
        values = np.where(mask, 0.0, 1.0)
    return values.reshape(layer.shape)


def _grow(
    layer: Topology,
    values: NDArray[np.float64],
    count: NDArray[np.int64],
    seed: np.uint64,
    filling_seed: np.uint64,
    *,
    sampled: bool,
) -> NDArray[np.int64]:
    """Choose ``count[u]`` absent links of each output: by value while positive, then at random."""
    inputs = layer.shape[1]
    grown = [np.empty(0, dtype=np.int64)]
    for u in np.flatnonzero(count):
        heap = Heap(int(count[u]))
        heap.offer(values[u : u + 1], u, 0, inputs, seed, sampled=sampled)
        chosen = best_links([heap], heap.capacity)
        if chosen.size < count[u]:
            absent = np.ones((1, inputs))
            absent[0, layer.indices[layer.indptr[u] : layer.indptr[u + 1]]] = 0.0
            absent[0, chosen - u * inputs] = 0.0
            filler = Heap(int(count[u]) - chosen.size)
            filler.offer(absent, u, 0, inputs, filling_seed, sampled=True)
            chosen = np.concatenate([chosen, best_links([filler], filler.capacity)])
        grown.append(chosen)
    return np.concatenate(grown)
