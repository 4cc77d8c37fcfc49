"""What to simulate, and what came of it: plain data, so that both can pass to another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.base import InputMode, SpikeCounts
from sparsespike.export.graph import Key, SpikingGraph


@dataclass(frozen=True, eq=False)
class Job:
    """A graph that Brian2 can run and checked inputs of shape (B, N), simulated at most ``batch`` images at a time."""

    graph: SpikingGraph
    inputs: NDArray[np.int64]
    steps: int
    record: frozenset[str]
    input: InputMode
    batch: int

    @property
    def batches(self) -> list[NDArray[np.int64]]:
        """The inputs, batch by batch, all of one size but for one image."""
        return np.array_split(self.inputs, -(-len(self.inputs) // self.batch))


@dataclass(frozen=True, eq=False)
class Fired:
    """What was seen of one kind of event of a population; counts add up from the beginning, modulo 2^32.

    Attributes
    ----------
    so_far : int32 array, shape (simulated steps,)
        Events up to every step.
    each : int32 array, shape (windows + 1, N)
        Events of each neuron before every window, and at the end.
    neurons : int32 array, shape (events,), or None
        The neuron of every event, in the order of steps; None if it was not recorded.
    """

    so_far: NDArray[np.int32]
    each: NDArray[np.int32]
    neurons: NDArray[np.int32] | None


@dataclass(frozen=True, eq=False)
class Traces:
    """What Brian2's monitors hold after a simulation of some images; step s is s steps from its beginning.

    Attributes
    ----------
    fired : mapping of (population, event) to Fired
    membrane : float64 array, shape (simulated steps, classes)
        The readout's.
    totals : mapping of (pre, post) to int32 or float64 array, shape (simulated steps, parts)
        Synaptic events up to every step, from the beginning, in parts to be added up; int32 modulo 2^32.
    """

    fired: Mapping[tuple[str, str], Fired]
    membrane: NDArray[np.float64]
    totals: Mapping[Key, NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Recording:
    """What was seen of one batch of images; arrays as in RunResult."""

    readout: NDArray[np.int64]
    spikes: Mapping[str, SpikeCounts]
    spikes_by_step: Mapping[str, SpikeCounts]
    events_by_step: Mapping[Key, NDArray[np.int64]]
    rasters: Mapping[str, NDArray[np.int8]]


@dataclass(frozen=True, eq=False)
class Outcome:
    """Recordings of all batches, Brian2's version, and the seconds spent by phase."""

    recordings: list[Recording]
    version: str
    seconds: Mapping[str, float]
