"""One topology update of a chain of sparse layers: removal, percolation, regrowth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sparsespike.ann.topology.config import EvolutionConfig
from sparsespike.ann.topology.pattern import Topology, link_count
from sparsespike.ann.topology.percolation import active_neurons, check_chain, percolate
from sparsespike.ann.topology.randomness import draw_seed
from sparsespike.ann.topology.regrowth import RowProvider, best_valued_links, fill_up
from sparsespike.ann.topology.removal import Removal, check_weights, links_to_keep
from sparsespike.ann.topology.schedules import linear
from sparsespike.ann.topology.scores import Method, best_scored_links
from sparsespike.common.errors import ConfigError, ModelError


@dataclass(frozen=True)
class LayerStatistics:
    """What an update did to one layer.

    Parameters
    ----------
    density : float
        Links over possible links, after the update.
    removed, percolated, regrown : int
        Links taken by removal (pruning by a schedule included), taken by percolation, and added.
    reselected : int
        Regrown links that this update had taken: they keep their weights.
    """

    density: float
    removed: int
    percolated: int
    regrown: int
    reselected: int

    @property
    def overlap(self) -> float:
        """Share of the regrown links that the same update had taken (0 if none was regrown)."""
        return self.reselected / self.regrown if self.regrown else 0.0


@dataclass(frozen=True)
class LayerUpdate:
    """The new topology of one layer.

    Parameters
    ----------
    topology : Topology
        The new links.
    source : int64[nnz]
        For each new link its position among the old links, or -1 where it was absent before the update: such a link
        starts with zero weight and zero optimizer state. All others keep theirs.
    statistics : LayerStatistics
        What happened.
    """

    topology: Topology
    source: NDArray[np.int64]
    statistics: LayerStatistics

    def carry(self, values: ArrayLike) -> NDArray[Any]:
        """Return the values of the old links (weights, momentum) for the new ones, 0 for links that were absent."""
        old = np.asarray(values)
        new = np.zeros(self.source.shape, dtype=old.dtype)
        known = self.source >= 0
        new[known] = old[self.source[known]]
        return new


@dataclass(frozen=True)
class Update:
    """The result of :func:`evolve`.

    Parameters
    ----------
    layers : tuple of LayerUpdate
        One for each layer of the chain.
    active_neurons : float
        Share of all neurons of the chain that are active (ANP), from inputs to the last layer's outputs.
    early_stop : bool
        Whether the configuration's early stop says that this was the last update.
    """

    layers: tuple[LayerUpdate, ...]
    active_neurons: float
    early_stop: bool

    @property
    def topologies(self) -> tuple[Topology, ...]:
        """The new topologies."""
        return tuple(layer.topology for layer in self.layers)


def evolve(
    topologies: Sequence[Topology],
    weights: Sequence[ArrayLike],
    config: EvolutionConfig,
    progress: float,
    generator: np.random.Generator,
    *,
    gradients: Sequence[RowProvider] | None = None,
    method: Method = "auto",
) -> Update:
    """Update the topology of a chain of sparse layers once.

    In order: prune every layer to the schedule's sparsity (by relative importance), remove a share zeta of its links,
    percolate the chain, and add to each layer as many links as it lacks.

    Parameters
    ----------
    topologies : sequence of Topology
        The sparse layers, first to last; each one's inputs are the outputs of the one before.
    weights : sequence of array[nnz]
        Weight of each link, in link order (CSR order of the outputs x inputs matrix).
    config : EvolutionConfig
        How to evolve.
    progress : float
        0 at the first update, 1 at the last (:meth:`EvolutionConfig.progress`).
    generator : numpy.random.Generator
        The only source of randomness; three 64-bit numbers are drawn for each layer, whatever the configuration.
    gradients : sequence of callables, optional
        For ``gradient`` regrowth, one for each layer: ``gradients[l](start, stop)`` returns the magnitude of the loss
        gradient of every link of outputs start .. stop - 1, float[stop - start, n].
    method : {"auto", "sparse", "dense"}
        How scores are computed; the resulting topology is the same.

    Returns
    -------
    Update

    Raises
    ------
    ModelError
        If layers, weights or gradients do not fit each other, or a weight is not finite.
    ConfigError
        If progress is not in 0 .. 1, or gradients are needed and absent.
    """
    check_chain(topologies)
    if not topologies or len(weights) != len(topologies):
        raise ModelError(f"{len(topologies)} layers came with {len(weights)} arrays of weights, expected one for each layer")
    if not 0.0 <= progress <= 1.0:
        raise ConfigError(f"progress of the evolution is {progress}, expected 0..1")
    if config.regrowth == "gradient" and (gradients is None or len(gradients) != len(topologies)):
        raise ConfigError("regrowth by gradient needs one gradient provider for each layer; pass gradients=[...]")
    seeds = [(draw_seed(generator), draw_seed(generator), draw_seed(generator)) for _ in topologies]
    goals = [
        layer.nnz if config.schedule is None else link_count(layer.shape, config.schedule.at(progress)) for layer in topologies
    ]

    remaining = [
        _remove(layer, values, config, progress, goal, seed)
        for layer, values, goal, (seed, _, _) in zip(topologies, weights, goals, seeds, strict=True)
    ]
    percolated = percolate(remaining) if config.percolation else tuple(remaining)
    active = active_neurons(percolated)
    # Data and classifier are attached to the ends of the chain: links there are never one-sided.
    active = (np.ones_like(active[0]), *active[1:-1], np.ones_like(active[-1]))

    layers = []
    for index, (layer, goal, (_, growth, filling)) in enumerate(zip(percolated, goals, seeds, strict=True)):
        count = max(0, goal - layer.nnz) if config.regrowth != "none" else 0
        chosen = np.empty(0, dtype=np.int64)
        if config.regrowth in ("sampled", "top"):
            sampled = config.regrowth == "sampled"
            chosen = best_scored_links(layer, config.rule, count, growth, sampled=sampled, method=method)
        elif config.regrowth == "gradient" and gradients is not None:
            chosen = best_valued_links(layer, gradients[index], count, growth)
        neurons = (active[index + 1], active[index]) if config.percolation else _everyone(layer)
        grown = fill_up(layer, chosen, count, filling, *neurons)
        layers.append(report_update(topologies[index], remaining[index], layer, grown))

    new = [update.topology for update in layers]
    flags = np.concatenate(active_neurons(new))
    stop = config.early_stop is not None and all(layer.statistics.overlap > config.early_stop for layer in layers)
    return Update(tuple(layers), float(flags.mean()), stop)


def _remove(layer: Topology, values: ArrayLike, config: EvolutionConfig, progress: float, goal: int, seed: np.uint64) -> Topology:
    """Prune to ``goal`` links, then remove a share zeta of those."""
    weights = check_weights(layer, values)
    if goal < layer.nnz:
        by: Removal = "wm" if config.regrowth == "none" else "ri"
        kept = links_to_keep(layer, weights, goal, by, seed)
        layer, weights = layer.where(kept), weights[kept]
    removed = int(config.zeta_at(progress) * layer.nnz)
    if removed == 0:
        return layer
    temperature = linear(*config.temperature, progress)
    return layer.where(links_to_keep(layer, weights, layer.nnz - removed, config.removal, seed, temperature))


def _everyone(layer: Topology) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    return np.ones(layer.shape[0], dtype=np.bool_), np.ones(layer.shape[1], dtype=np.bool_)


def report_update(old: Topology, removed: Topology, percolated: Topology, grown: NDArray[np.int64]) -> LayerUpdate:
    """Return the update from ``old`` to ``percolated`` with ``grown`` added: each new link's source, and the counts."""
    new = percolated.with_links(grown)
    old_links, new_links = old.links, new.links
    position = np.searchsorted(old_links, new_links)
    known = position < old_links.size
    known[known] = old_links[position[known]] == new_links[known]
    statistics = LayerStatistics(
        density=new.density,
        removed=old.nnz - removed.nnz,
        percolated=removed.nnz - percolated.nnz,
        regrown=grown.size,
        # Links in both topologies stayed, or were taken and chosen again.
        reselected=int(np.count_nonzero(known)) - percolated.nnz,
    )
    return LayerUpdate(new, np.where(known, position, -1), statistics)
