"""What a population fires in a block of 64 images side by side, and its sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.native.library import LANES, STEPS, Library, address
from sparsespike.export.graph import Key, Population, SpikingGraph

Words = NDArray[np.uint64]
Lanes = NDArray[Any]
"""Integers of shape (..., 64): one an image."""


@dataclass(frozen=True, eq=False)
class Activity:
    """What one population fired in a block.

    Attributes
    ----------
    positive, negative : tuple of uint64 arrays, shape (tiles, N, 8)
        One bit an image; tile k holds steps 8 k to 8 k + 7. Of kind ``aec`` both planes are positive: primary, compensation.
    positive_counts, negative_counts : int32 arrays, shape (N, 64)
        Spikes summed over steps, None where there cannot be any; lanes beyond the block's images hold anything. Valid until the
        next population is run.
    positive_by_step, negative_by_step : int64 arrays, shape (steps,)
        Spikes in each step, summed over neurons and images; of the input population none, and no words: its values are known.
    events : dict of projection's key to int64 array, shape (steps,)
        Synaptic events in each step, likewise.
    """

    positive: tuple[Words, ...]
    negative: tuple[Words, ...]
    positive_counts: NDArray[np.int32]
    negative_counts: NDArray[np.int32] | None
    positive_by_step: NDArray[np.int64]
    negative_by_step: NDArray[np.int64]
    events: dict[Key, NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class Sums:
    """Spikes and events of a block, summed up by the compiled kernel."""

    library: Library
    graph: SpikingGraph
    steps: int

    @property
    def tiles(self) -> range:
        """First steps of the tiles."""
        return range(0, self.steps, STEPS)

    def activity(
        self,
        population: Population,
        positive: tuple[Words, ...],
        negative: tuple[Words, ...],
        positive_counts: NDArray[np.int32],
        negative_counts: NDArray[np.int32] | None,
    ) -> Activity:
        """What a population fired, with its sums over neurons and images."""
        sums = [self._sum_steps(population, planes) for planes in (positive, negative)]
        events = {each.key: sums[0][k] + sums[1][k] for k, each in enumerate(self.graph.out_of(population.name), start=1)}
        return Activity(positive, negative, positive_counts, negative_counts, sums[0][0], sums[1][0], events)

    @cached_property
    def _factors(self) -> dict[str, NDArray[np.int32]]:
        """By population, what its spikes are weighted with in sums: 1, and the fan-out of each projection that leaves it."""
        return {
            each.name: np.stack(
                [np.ones(each.size, np.int64), *(projection.connection.fan_out for projection in self.graph.out_of(each.name))]
            ).astype(np.int32)
            for each in self.graph.populations
        }

    def _sum_steps(self, population: Population, planes: Sequence[Words]) -> NDArray[np.int64]:
        """Spikes times each of its ``_factors``, summed over neurons and images, shape (factors, steps)."""
        factors = self._factors[population.name]
        sums = np.zeros((len(factors), len(self.tiles), STEPS), np.int64)
        for plane in planes:
            self.library.functions.simd_sum_steps(
                self.library.isa, len(plane), population.size, len(factors), address(factors), address(plane), address(sums)
            )
        return sums.reshape(len(factors), -1)[:, : self.steps]

    def sum_spikes(self, planes: Sequence[Words], factors: NDArray[np.int64]) -> Lanes:
        """Spikes times a factor for each neuron, summed over neurons, shape (steps, 64)."""
        sums = np.zeros((len(self.tiles), STEPS, LANES), np.int64)
        for plane in planes:
            self.library.functions.simd_sum_spikes(
                self.library.isa, len(plane), len(factors), address(factors), address(plane), address(sums)
            )
        return sums.reshape(-1, LANES)[: self.steps]

    def sum_counts(self, population: Population, counts: NDArray[np.int32] | None) -> NDArray[np.int64]:
        """Spikes, and events by projection that leaves the population, summed over neurons and steps, (1 + projections, 64)."""
        factors = self._factors[population.name]
        sums = np.zeros((len(factors), LANES), np.int64)
        if counts is not None:
            self.library.functions.simd_sum_counts(
                self.library.isa, population.size, len(factors), address(factors), address(counts), address(sums)
            )
        return sums

    def classes(self, readout: Lanes) -> NDArray[np.int64]:
        """Neuron with the largest membrane, the first of several, after each step: shape (steps, 64)."""
        found = np.empty((len(readout), LANES), np.int64)
        self.library.functions.simd_classes(self.library.isa, *readout.shape[:2], address(readout), address(found))
        return found

    def sum_images(self, counts: NDArray[np.int32] | None, neurons: int, images: int) -> NDArray[np.int64]:
        """Spikes of each neuron, summed over images, shape (1, N)."""
        sums = np.zeros((1, neurons), np.int64)
        if counts is not None:
            self.library.functions.simd_sum_images(self.library.isa, neurons, images, address(counts), address(sums))
        return sums
