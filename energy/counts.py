"""What a ledger needs of a run: spikes of every neuron and events of every projection, image by image or summed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.base import Counting, RunResult, SpikeCounts
from sparsespike.backends.bulk import BulkResult
from sparsespike.common.errors import BackendError, ConfigError
from sparsespike.export.graph import Key, SpikingGraph


@dataclass(frozen=True, eq=False, kw_only=True)
class EventCounts:
    """Counts of one backend, for G groups: an image each (G = images), or all images summed (G = 1).

    The ledger's identity holds for one image and, because fan-outs do not change, for any sum over images.

    Parameters
    ----------
    backend : str
    steps, images : int
        T, and the number of images behind the counts.
    spikes : mapping of population to SpikeCounts of shape (G, N)
        Summed over steps; of the input and every population that fires.
    events : mapping of (pre, post) to integer array, shape (G,)
        Synaptic events, summed over steps.
    counting : mapping of (pre, post) to {"measured", "computed"}
        What the backend says about its events.

    Raises
    ------
    BackendError
        If arrays are not integers of these shapes, or a count is negative.
    """

    backend: str
    steps: int
    images: int
    spikes: Mapping[str, SpikeCounts]
    events: Mapping[Key, NDArray[np.int64]]
    counting: Mapping[Key, Counting]

    def __post_init__(self) -> None:
        if self.steps < 1 or self.images < 1:
            raise BackendError(f"counts of {self.backend!r}: found T = {self.steps}, {self.images} images, expected 1 or more")
        for name, counts in self.spikes.items():
            for sign, array in (("positive", counts.positive), ("negative", counts.negative)):
                self._check(array, 2, f"{sign} spikes of {name!r}")
            if counts.positive.shape != counts.negative.shape:
                raise BackendError(
                    f"counts of {self.backend!r}, spikes of {name!r}: found shapes {counts.positive.shape} (positive) and "
                    f"{counts.negative.shape} (negative), expected one shape"
                )
        for (pre, post), array in self.events.items():
            self._check(array, 1, f"events of {pre!r} -> {post!r}")

    def _check(self, array: NDArray[np.int64], dimensions: int, what: str) -> None:
        where = f"counts of {self.backend!r}, {what}"
        if array.dtype.kind not in "iu":
            raise BackendError(f"{where}: found dtype {array.dtype}, expected integers; counts are exact")
        if array.ndim != dimensions or len(array) not in (1, self.images):
            raise BackendError(
                f"{where}: found shape {array.shape}, expected {dimensions} dimensions, the first of length {self.images} "
                "(an image each) or 1 (their sum)"
            )
        if array.size and array.min() < 0:
            raise BackendError(f"{where}: found the negative count {array.min()}, expected 0 or more")

    @classmethod
    def of(cls, result: RunResult | BulkResult) -> EventCounts:
        """The counts of a run; of a bulk run the spikes are summed over images."""
        return cls(
            backend=result.backend,
            steps=result.steps,
            images=result.images,
            spikes=result.spikes,
            events=result.events,
            counting=result.counting,
        )

    @property
    def per_image(self) -> bool:
        """Whether every image has counts of its own."""
        arrays = [*(counts.positive for counts in self.spikes.values()), *self.events.values()]
        return all(len(array) == self.images for array in arrays)

    def summed(self) -> EventCounts:
        """The same counts, summed over images."""
        return self._with(
            self.images,
            {name: SpikeCounts(_sum(c.positive), _sum(c.negative)) for name, c in self.spikes.items()},
            {key: _sum(events) for key, events in self.events.items()},
        )

    def image(self, index: int) -> EventCounts:
        """The counts of one image.

        Raises
        ------
        ConfigError
            If there is no such image, or the counts are summed over images.
        """
        if not self.per_image:
            raise ConfigError(f"counts of {self.backend!r}: found counts summed over {self.images} images, expected one each")
        if not 0 <= index < self.images:
            raise ConfigError(f"counts of {self.backend!r}: found image {index}, expected 0..{self.images - 1}")
        only = slice(index, index + 1)
        return self._with(
            1,
            {name: SpikeCounts(c.positive[only], c.negative[only]) for name, c in self.spikes.items()},
            {key: events[only] for key, events in self.events.items()},
        )

    def _with(self, images: int, spikes: Mapping[str, SpikeCounts], events: Mapping[Key, NDArray[np.int64]]) -> EventCounts:
        return EventCounts(
            backend=self.backend, steps=self.steps, images=images, spikes=spikes, events=events, counting=self.counting
        )

    @classmethod
    def merge(cls, parts: Sequence[EventCounts]) -> EventCounts:
        """Counts of several batches of images as one, summed over images: a whole test set without keeping every image.

        Raises
        ------
        ConfigError
            If there is no part, or they differ in backend, steps, projections or counting.
        """
        if not parts:
            raise ConfigError("counts: found no batch to merge, expected at least one")
        first = parts[0]
        for part in parts[1:]:
            for what in ("backend", "steps", "counting"):
                if getattr(part, what) != getattr(first, what):
                    raise ConfigError(
                        f"counts: cannot merge batches with different {what}: found {getattr(first, what)!r} and "
                        f"{getattr(part, what)!r}"
                    )
        batches = [part.summed() for part in parts]
        return first._with(
            sum(part.images for part in parts),
            {
                name: SpikeCounts(
                    sum((b.spikes[name].positive for b in batches[1:]), batches[0].spikes[name].positive),
                    sum((b.spikes[name].negative for b in batches[1:]), batches[0].spikes[name].negative),
                )
                for name in first.spikes
            },
            {key: sum((b.events[key] for b in batches[1:]), batches[0].events[key]) for key in first.events},
        )

    def check_fits(self, graph: SpikingGraph) -> None:
        """Check that every population that sends spikes and every projection of the graph has counts.

        Raises
        ------
        BackendError
            If one is missing or has another number of neurons.
        """
        for name in (graph.input.name, *graph.spiking):
            size = graph.population(name).size
            if name not in self.spikes:
                raise BackendError(
                    f"counts of {self.backend!r}: spikes of population {name!r} are missing; is it another graph's?"
                )
            if self.spikes[name].positive.shape[1] != size:
                raise BackendError(
                    f"counts of {self.backend!r}, spikes of {name!r}: found {self.spikes[name].positive.shape[1]} neurons, "
                    f"expected {size}; is it another graph's?"
                )
        for pre, post in (projection.key for projection in graph.projections):
            if (pre, post) not in self.events:
                raise BackendError(
                    f"counts of {self.backend!r}: events of {pre!r} -> {post!r} are missing; is it another graph's?"
                )
            if self.counting.get((pre, post)) not in ("measured", "computed"):
                raise BackendError(
                    f"counts of {self.backend!r}: found counting {self.counting.get((pre, post))!r} for {pre!r} -> {post!r}, "
                    "expected 'measured' or 'computed'"
                )


def differences(left: EventCounts, right: EventCounts, populations: Sequence[str]) -> list[str]:
    """Where the spikes of two backends differ, a line for each population; empty if they are equal.

    Both must hold counts for the same groups.
    """
    lines = []
    for name in populations:
        pairs = [(getattr(left.spikes[name], sign), getattr(right.spikes[name], sign)) for sign in ("positive", "negative")]
        unequal: NDArray[np.bool_] = np.logical_or.reduce([a != b for a, b in pairs])
        if unequal.any():
            group, neuron = (int(i) for i in np.argwhere(unequal)[0])
            counts = [[int(array[group, neuron]) for array in pair] for pair in pairs]
            where = f"image {group}, neuron {neuron}" if left.per_image else f"neuron {neuron}, all images"
            lines.append(
                f"population {name!r}: {left.backend} and {right.backend} differ in {int(unequal.any(axis=0).sum())} of "
                f"{unequal.shape[1]} neurons; first at {where}: {left.backend} {_signed(counts, 0)}, "
                f"{right.backend} {_signed(counts, 1)}"
            )
    return lines


def _signed(counts: list[list[int]], which: int) -> str:
    return f"+{counts[0][which]} -{counts[1][which]} spikes"


def _sum(array: NDArray[Any]) -> NDArray[np.int64]:
    return np.asarray(array.sum(axis=0, keepdims=True, dtype=np.int64))
